"""Averaging decoders, `tools/average_decoders.py`."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers.data import EXAMPLES
from imgcap.errors import ImgcapError

TOOL = Path(__file__).parents[2] / "tools" / "average_decoders.py"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def assert_refused(sentence: str, out: Path, *arguments: object) -> None:
    """In one sentence, and without a result."""
    done = run(out, *arguments)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"average_decoders.py: error: {sentence}"
    assert not out.exists()


def save(
    file: Path,
    value: float,
    mean: float = 0.0,
    words: tuple[str, ...] = ("a", "cat"),
    size: int = 2,
    std: float = 1.0,
) -> None:
    weights = {"weight": torch.full((size,), value), "feature_mean": torch.full((2,), mean)}
    weights["feature_std"] = torch.full((2,), std)
    torch.save({"decoder": weights, "vocabulary": list(words)}, file)


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(TOOL.parent))
    return importlib.import_module("average_decoders")


@pytest.fixture
def decoders(tmp_path: Path) -> list[Path]:
    files = [tmp_path / "a.pt", tmp_path / "b.pt"]
    for file, value in zip(files, (1.0, 3.0), strict=True):
        save(file, value)
    second = torch.load(files[1], weights_only=True)
    torch.save({**second, "vocabulary": tuple(second["vocabulary"])}, files[1])  # as `refit_image_layer.py` may have it
    return files


def test_weights_are_averaged_by_their_shares(decoders: list[Path], tmp_path: Path) -> None:
    done = run(tmp_path / "mean.pt", f"0.75:{decoders[0]}", f"0.25:{decoders[1]}")
    assert done.returncode == 0, done.stderr
    mean = torch.load(tmp_path / "mean.pt", weights_only=True)
    assert mean["decoder"]["weight"].tolist() == [1.5, 1.5] and mean["vocabulary"] == ("a", "cat")


def test_an_average_can_be_averaged_again(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.pt" for number in range(4)]
    for file in files[:3]:
        save(file, 1.0, mean=0.9)
    assert run(files[3], f"0.6:{files[0]}", f"0.3:{files[1]}", f"0.1:{files[2]}").returncode == 0
    assert torch.load(files[3], weights_only=True)["decoder"]["feature_mean"][0] != torch.tensor(0.9)  # rounded
    assert run(tmp_path / "again.pt", f"0.7:{files[3]}", f"0.3:{files[0]}").returncode == 0


def test_decoders_that_do_not_belong_together_are_refused(decoders: list[Path], tmp_path: Path) -> None:
    other, elsewhere, wider, larger = (tmp_path / f"{name}.pt" for name in ("other", "elsewhere", "wider", "larger"))
    save(other, 1, words=("a", "dog"))
    save(elsewhere, 1, mean=2.0)
    save(wider, 1, std=9.0)
    save(larger, 1, size=3)
    refused = {
        "The decoders have different words.": (f"0.5:{decoders[0]}", f"0.5:{other}"),
        "The decoders have different sizes.": (f"0.5:{decoders[0]}", f"0.5:{larger}"),
        "The decoders standardise features differently: they belong to different trunks.": (
            f"0.5:{decoders[0]}",
            f"0.5:{elsewhere}",
        ),
        "The shares do not add up to 1.": (f"0.5:{decoders[0]}", f"0.6:{decoders[1]}"),
    }
    for sentence, arguments in refused.items():
        assert_refused(sentence, tmp_path / "mean.pt", *arguments)
    trunks = "The decoders standardise features differently: they belong to different trunks."
    assert_refused(trunks, tmp_path / "mean.pt", f"0.5:{decoders[0]}", f"0.5:{wider}")


def test_a_file_that_is_no_decoder_is_refused(tool: Any, tmp_path: Path) -> None:
    text, tensor, empty, gone = (tmp_path / name for name in ("text.pt", "tensor.pt", "empty.pt", "gone.pt"))
    text.write_text("not a decoder")
    torch.save({"decoder": torch.ones(2), "vocabulary": []}, tensor)
    empty.touch()
    for file in (text, tensor, empty, EXAMPLES / "cat.jpg"):
        with pytest.raises(ImgcapError, match=f"^{file} is not a decoder of train_general.py.$"):
            tool.read_decoder(file)
    assert_refused(f"{gone} cannot be read: no such file or directory.", tmp_path / "mean.pt", f"1:{gone}")
