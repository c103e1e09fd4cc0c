"""Averaging decoders, `tools/average_decoders.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

TOOL = Path(__file__).parents[2] / "tools" / "average_decoders.py"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def save(file: Path, value: float, mean: float = 0.0, words: tuple[str, ...] = ("a", "cat")) -> None:
    weights = {"weight": torch.full((2,), value), "feature_mean": torch.full((2,), mean)}
    torch.save({"decoder": weights, "vocabulary": list(words)}, file)


@pytest.fixture
def decoders(tmp_path: Path) -> list[Path]:
    files = [tmp_path / "a.pt", tmp_path / "b.pt"]
    for file, value in zip(files, (1.0, 3.0), strict=True):
        save(file, value)
    return files


def test_weights_are_averaged_by_their_shares(decoders: list[Path], tmp_path: Path) -> None:
    done = run(tmp_path / "mean.pt", f"0.75:{decoders[0]}", f"0.25:{decoders[1]}")
    assert done.returncode == 0, done.stderr
    mean = torch.load(tmp_path / "mean.pt", weights_only=True)
    assert mean["decoder"]["weight"].tolist() == [1.5, 1.5] and mean["vocabulary"] == ["a", "cat"]


def test_decoders_that_do_not_belong_together_are_refused(decoders: list[Path], tmp_path: Path) -> None:
    other, elsewhere = tmp_path / "other.pt", tmp_path / "elsewhere.pt"
    save(other, 1, words=("a", "dog"))
    save(elsewhere, 1, mean=2)
    refused = {
        "the decoders have different words": (f"0.5:{decoders[0]}", f"0.5:{other}"),
        "different trunks": (f"0.5:{decoders[0]}", f"0.5:{elsewhere}"),
        "the shares do not add up to 1": (f"0.5:{decoders[0]}", f"0.6:{decoders[1]}"),
        "No such file": (f"1:{tmp_path / 'gone.pt'}",),
    }
    for message, arguments in refused.items():
        done = run(tmp_path / "mean.pt", *arguments)
        assert done.returncode == 2 and message in done.stderr
    assert not (tmp_path / "mean.pt").exists()
