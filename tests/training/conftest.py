"""Fixtures of the training tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from helpers.data import TINY_TRAINING
from imgcap.dataset.prepared import PreparedFolder
from imgcap.training.trainer import train

FEWEST_IMAGES = "imgcap.training.export.FEWEST_IMAGES"


@pytest.fixture
def calibrated_on_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two val images are enough to calibrate the confidence."""
    monkeypatch.setattr(FEWEST_IMAGES, 2)


@pytest.fixture(scope="session")
def tuned_folder(tmp_path_factory: pytest.TempPathFactory, prepared: PreparedFolder, model_folder: Path) -> Path:
    """A model that went on from `model_folder` with its encoder trained too, and is calibrated on two val images."""
    folder = tmp_path_factory.mktemp("models") / "tuned"
    options = replace(TINY_TRAINING, epochs=1, fine_tune_encoder=True, start_from=str(model_folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FEWEST_IMAGES, 2)
        train(prepared, options, folder)
    return folder
