"""Fixtures of the commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.command import COLOURS, captions
from helpers.data import Run, draw
from imgcap.errors import ExitCode


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Twenty images, in a folder and a sub-folder."""
    folder = tmp_path / "album"
    (folder / "more").mkdir(parents=True)
    for i in range(20):
        draw(COLOURS[i % 4], i).save(folder / ("more" if i > 11 else "") / f"{i:02}.{'jpg' if i % 3 else 'png'}")
    return folder


@pytest.fixture
def expected(imgcap_here: Run, album: Path, telling_model: Path) -> dict[str, str]:
    """The caption of each image of the album."""
    done = imgcap_here("caption", album, "--model", telling_model)
    assert done.returncode == ExitCode.DONE, done.stderr
    found = captions(done.stdout)
    assert len(found) == 20
    assert len(set(found.values())) > 3  # else a mix-up could not be seen
    return found
