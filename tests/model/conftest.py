"""Fixtures for the tests of the model store."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.model_folders import write_model


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_model(tmp_path / "walls", "words")


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A default model inside the package."""
    folder = write_model(tmp_path / "package" / "default", "shipped")
    monkeypatch.setattr("imgcap.model.store._packaged_default", lambda: folder)
    return folder
