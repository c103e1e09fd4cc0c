"""Packaging the default model, `tools/package_model.py`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

import imgcap.doctor
from imgcap.captioning.captioner import load_model
from imgcap.dataset.prepared import PreparedFolder
from imgcap.model.encoder import read_encoder, save_encoder
from imgcap.model.quantization import ConvIntegers, from_tensors
from imgcap.model.store import MODEL_CARD_FILE, verify

TOOLS = Path(__file__).parents[2] / "tools"
KEPT = "The integers of the encoder are kept.\n"
NONE = "The encoder has no integers for this trunk: run calibrate_int8.py.\n"


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The tool, with a target outside the package."""
    monkeypatch.syspath_prepend(str(TOOLS))
    module = importlib.import_module("package_model")
    monkeypatch.setattr(module, "TARGET", tmp_path / "default")
    monkeypatch.setattr(imgcap.doctor, "EXPECTED_FILE", tmp_path / "expected.safetensors")
    return module


@pytest.fixture
def integers() -> dict[str, ConvIntegers]:
    bits = torch.ones(1, dtype=torch.uint8)
    return {"Mixed_7c.branch1x1": ConvIntegers(torch.ones(1), torch.ones(1), torch.zeros(1), bits)}


def test_a_packaged_model_is_whole_and_has_the_search_and_the_card(
    tool: Any, telling_model: Path, prepared: PreparedFolder, tmp_path: Path
) -> None:
    (tmp_path / "card.md").write_text("# Card\n")
    tool.package(str(telling_model), prepared.root, tmp_path / "card.md", {"beam_size": 2})
    verify(tool.TARGET)
    assert (tool.TARGET / MODEL_CARD_FILE).read_text() == "# Card\n"
    model = load_model(str(tool.TARGET), "cpu").model
    assert (model.config.name, model.config.search.beam_size) == ("default", 2)


def test_an_encoder_keeps_the_integers_of_exactly_its_weights(
    tool: Any,
    encoder_file: Path,
    integers: dict[str, ConvIntegers],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    weights, config = read_encoder(encoder_file)
    source, target = tmp_path / "source.safetensors", tmp_path / "target.safetensors"

    def package(change: float, in_source: bool, in_target: bool) -> str:
        changed = {name: tensor.float() * (1 + change) for name, tensor in weights.items()}
        save_encoder(source, changed, config, torch.float32, integers if in_source else None)
        save_encoder(target, weights, config, torch.float16, integers if in_target else None)
        tool.package_encoder(source, target)
        printed = str(capsys.readouterr().out)
        assert from_tensors(read_encoder(target)[0]).keys() == (integers.keys() if printed == KEPT else set())
        return printed

    assert package(change=0, in_source=False, in_target=True) == KEPT
    assert package(change=0, in_source=True, in_target=False) == KEPT
    assert package(change=0, in_source=False, in_target=False) == NONE
    assert package(change=0.1, in_source=False, in_target=True) == NONE  # another trunk
    assert package(change=0.1, in_source=True, in_target=False) == NONE  # half precision rounds its weights
