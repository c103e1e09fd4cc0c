"""Model folders from strangers: no code runs, nothing outside is read, and every fault is one sentence."""

from __future__ import annotations

import json
import math
import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers.hostile import CPU, DEEP, as_json, json_lines, make_index, write_model
from imgcap.captioning.explain import TrainingIndex
from imgcap.errors import ImgcapError
from imgcap.files import read_json, write_json
from imgcap.model.encoder import Encoder
from imgcap.model.folder import load_model_folder
from imgcap.model.inception import FEATURE_SIZE
from imgcap.model.search import SearchOptions
from imgcap.model.store import (
    CONFIG_FILE,
    DECODER_FILE,
    ENCODER_FILE,
    INDEX_FILE,
    MANIFEST_FILE,
    METRICS_FILE,
    MODEL_CARD_FILE,
    VOCABULARY_FILE,
    import_model,
    verify,
    write_manifest,
)
from imgcap.training.curves import learning_curves

needs_links = pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links and pipes")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def edit_config(folder: Path, part: str, **changes: object) -> None:
    data = read_json(folder / CONFIG_FILE)
    data[part] |= changes
    write_json(folder / CONFIG_FILE, data)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("search", {"beam_size": 2.0}, "config.json is damaged. The beam size, .* whole numbers"),
        ("search", {"max_length": 4.5}, "config.json is damaged. .* whole numbers"),
        ("search", {"num_captions": 1.5}, "config.json is damaged. .* whole numbers"),
        ("search", {"min_length": 1.5}, "config.json is damaged. .* whole numbers"),
        ("search", {"beam_size": 10**9}, "config.json is damaged. The beam size must be between 1 and 1000"),
        ("search", {"seed": DEEP}, "settings of the model .* are damaged|The seed must be"),
        ("decoder", {"embedding_size": 10**30}, "does not fit its settings"),
        ("decoder", {"hidden_size": 10**30}, "does not fit its settings"),
        ("confidence", {"weights": [10**400, 1, 1]}, "config.json is damaged. There is no calibration"),
        ("confidence", {"images": math.nan}, "config.json is damaged. There is no calibration"),
    ],
)
def test_unreasonable_settings_are_one_sentence(model: Path, part: str, changes: dict[str, Any], message: str) -> None:
    edit_config(model, part, **changes)
    with pytest.raises(ImgcapError, match=message):
        load_model_folder(model, CPU)


@pytest.mark.parametrize(
    ("name", "tensor", "read", "message"),
    [
        (DECODER_FILE, "output.bias", lambda file: load_model_folder(file.parent, CPU), "does not fit its settings"),
        (ENCODER_FILE, "Conv2d_1a_3x3.conv.weight", lambda file: Encoder.load(file, CPU), "missing or misshapen"),
        (INDEX_FILE, "codes", TrainingIndex.load, "is not an index of training images"),
    ],
    ids=["decoder", "encoder", "index"],
)
def test_sizes_are_checked_before_weights_take_memory(
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    tensor: str,
    read: Callable[[Path], object],
    message: str,
) -> None:
    size = 10**9  # of a tensor that is a hole in its file, which takes no place on the disk
    with safe_open(model / name, framework="pt") as opened:
        metadata = opened.metadata()
    save_file({key: each for key, each in load_file(model / name).items() if key != tensor}, model / name, metadata)
    whole = (model / name).read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    parts, rest = json.loads(whole[8:end]), whole[end:]
    offsets = [len(rest), len(rest) + size]
    header = as_json({**parts, tensor: {"dtype": "F16", "shape": [size // 2], "data_offsets": offsets}})
    with (model / name).open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header + rest)
        file.truncate(8 + len(header) + offsets[1])
    for touch in ("float", "to", "isfinite", "aminmax"):
        monkeypatch.setattr(Tensor, touch, lambda *_, **__: pytest.fail("weights were read before they were checked"))
    with pytest.raises(ImgcapError, match=message):
        read(model / name)


def test_weights_beyond_single_precision_are_one_sentence(model: Path) -> None:
    weights = {name: tensor.double() * 1e300 for name, tensor in load_file(model / DECODER_FILE).items()}
    save_file(weights, model / DECODER_FILE)
    with pytest.raises(ImgcapError, match="holds weights that are not numbers"):
        load_model_folder(model, CPU)


@pytest.mark.parametrize("options", [SearchOptions(), SearchOptions(sample=True), SearchOptions(beam_size=1)], ids=str)
def test_weights_whose_probabilities_are_not_numbers_are_one_sentence(tmp_path: Path, options: SearchOptions) -> None:
    loaded = load_model_folder(write_model(tmp_path / "model", weights=1e38), CPU)
    with pytest.raises(ImgcapError, match="computes no probabilities"):
        list(loaded.search(torch.ones(1, FEATURE_SIZE), options))


def test_features_that_are_not_numbers_are_one_sentence(model: Path) -> None:
    loaded = load_model_folder(model, CPU)
    with pytest.raises(ImgcapError, match="computes no probabilities"):
        list(loaded.search(torch.full((1, FEATURE_SIZE), math.nan), SearchOptions()))


def test_an_encoder_whose_header_is_nested_too_deeply_is_one_sentence(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(1)}, tmp_path / "e.safetensors", {"imgcap": "[" * 100_000})
    with pytest.raises(ImgcapError, match="does not describe a known encoder"):
        Encoder.load(tmp_path / "e.safetensors", CPU)


def test_an_encoder_with_unknown_weights_is_one_sentence(tmp_path: Path, encoder_file: Path) -> None:
    weights = {**load_file(encoder_file), "attention.weight": torch.zeros(1)}
    save_file(weights, tmp_path / "e.safetensors")
    with pytest.raises(ImgcapError, match=r"Inception V3: it has no attention\.weight"):
        Encoder.load(tmp_path / "e.safetensors", CPU)


@pytest.mark.parametrize(
    "changes",
    [
        {"std": torch.zeros(FEATURE_SIZE)},
        {"std": -torch.ones(FEATURE_SIZE)},
        {"variances": torch.zeros(2)},
        {"variances": torch.tensor([1.0, -1.0])},
        vars(make_index(0)),
        vars(make_index(129)),
    ],
    ids=["std 0", "std below 0", "variance 0", "variance below 0", "no components", "too many components"],
)
def test_an_index_that_gives_no_distances_is_one_sentence(tmp_path: Path, changes: dict[str, Any]) -> None:
    replace(make_index(), **changes).save(tmp_path / INDEX_FILE)
    with pytest.raises(ImgcapError, match="is not an index of training images"):
        TrainingIndex.load(tmp_path / INDEX_FILE)


def test_an_index_whose_names_are_nested_too_deeply_is_one_sentence(tmp_path: Path) -> None:
    tensors = {name: value for name, value in vars(make_index()).items() if isinstance(value, Tensor)}
    save_file(tensors, tmp_path / INDEX_FILE, {"names": "[" * 100_000})
    with pytest.raises(ImgcapError, match="is not an index of training images"):
        TrainingIndex.load(tmp_path / INDEX_FILE)


@pytest.mark.parametrize(
    "changes", [{"loss": 10**400}, {"epoch": math.inf}, {"val_cider_d": math.inf}], ids=lambda c: str(c)[:20]
)
def test_training_metrics_that_cannot_be_plotted_are_one_sentence(model: Path, changes: dict[str, object]) -> None:
    first = json.loads((model / METRICS_FILE).read_text().splitlines()[0])
    (model / METRICS_FILE).write_bytes(json_lines([first, {**first, **changes}]))
    with pytest.raises(ImgcapError, match=r"metrics\.jsonl is damaged"):
        learning_curves(model)


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.marker), "w")


@pytest.mark.parametrize("name", [DECODER_FILE, ENCODER_FILE, INDEX_FILE, CONFIG_FILE, VOCABULARY_FILE])
@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_no_code_in_a_model_folder_runs(tmp_path: Path, model: Path, name: str, how: str) -> None:
    payload = Payload(tmp_path / "ran")
    if how == "torch":
        torch.save({"output.bias": payload}, model / name)
    else:
        (model / name).write_bytes(pickle.dumps(payload))
    write_manifest(model)
    verify(model)
    for read in (
        lambda: load_model_folder(model, CPU),
        lambda: Encoder.load(model / ENCODER_FILE, CPU),
        lambda: TrainingIndex.load(model / INDEX_FILE),
    ):
        try:
            read()
        except ImgcapError:
            continue
    assert not (tmp_path / "ran").exists()


@needs_links
@pytest.mark.parametrize(
    "name", [CONFIG_FILE, VOCABULARY_FILE, DECODER_FILE, ENCODER_FILE, INDEX_FILE, MODEL_CARD_FILE, MANIFEST_FILE]
)
def test_a_link_out_of_a_model_folder_is_not_followed(tmp_path: Path, model: Path, cache: Path, name: str) -> None:
    (model / name).rename(tmp_path / "outside")
    (model / name).symlink_to("../outside")
    for use in (verify, import_model):
        with pytest.raises(ImgcapError, match=rf"{name} is a link out of the model's folder") as caught:
            use(model)
        assert "copy" in caught.value.hint
    assert list(cache.iterdir()) == []


@needs_links
def test_a_link_to_a_model_folder_and_links_inside_it_are_followed(tmp_path: Path, model: Path) -> None:
    (model / CONFIG_FILE).rename(model / "settings.json")
    (model / CONFIG_FILE).symlink_to("settings.json")
    (tmp_path / "link").symlink_to(model)
    verify(tmp_path / "link")
    assert load_model_folder(tmp_path / "link", CPU).config.name == "walls"


@needs_links
def test_a_pipe_in_a_model_folder_is_not_waited_for(model: Path) -> None:
    os.mkfifo(model / "pipe")
    files = read_json(model / MANIFEST_FILE)["files"]
    write_json(model / MANIFEST_FILE, {"files": {**files, "pipe": {"bytes": 0, "sha256": "0" * 64}}})
    with pytest.raises(ImgcapError, match="pipe does not match its manifest"):
        verify(model)
