"""The encoder file: its content, its fingerprint, what is refused, and how it is found."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from helpers.data import SMALLEST_IMAGE, draw
from imgcap.device import pick_device
from imgcap.errors import ImgcapError, UsageError
from imgcap.images.decoding import Pixels, squash
from imgcap.model.encoder import IMAGENET, Encoder, EncoderConfig, find_encoder, fingerprint, save_encoder
from imgcap.model.inception import InceptionV3
from imgcap.model.store import ENCODER_FILE
from imgcap.model.torchvision_compat import import_torchvision

CPU = torch.device("cpu")
ONE_WEIGHT = "Mixed_6c.branch7x7_2.conv.weight"

Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def weights(encoder_file: Path) -> Weights:
    """The weights of the test encoder: half precision, to be copied before they are changed."""
    return load_file(encoder_file)


@pytest.fixture(scope="module")
def pixels() -> list[Pixels]:
    return [squash(draw(colour, i), SMALLEST_IMAGE) for i, colour in enumerate(["red", "green", "blue", "white"] * 2)]


def config(**changes: object) -> EncoderConfig:
    return replace(EncoderConfig(pixels=SMALLEST_IMAGE, count_padding=False), **changes)  # type: ignore[arg-type]


def changed(weights: Weights, name: str, change: Callable[[Tensor], Tensor]) -> Weights:
    return {**weights, name: change(weights[name].clone())}


def with_one(value: float) -> Callable[[Tensor], Tensor]:
    """A copy of a tensor with `value` as its first element."""

    def set_first(tensor: Tensor) -> Tensor:
        tensor.view(-1)[0] = value
        return tensor

    return set_first


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_saved_and_loaded_encoder_computes_the_same_features(
    tmp_path: Path, weights: Weights, pixels: list[Pixels], dtype: torch.dtype
) -> None:
    file = tmp_path / "encoder.safetensors"
    save_encoder(file, weights, config(), dtype)
    assert {t.dtype for t in load_file(file).values() if t.is_floating_point()} == {dtype}
    loaded = Encoder.load(file, CPU, fold=False)
    assert loaded.config == config()
    network = InceptionV3(count_padding=False).eval()
    network.load_state_dict(weights)
    with torch.inference_mode():
        expected = network(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2) / 127.5 - 1)
    features = loaded(pixels)
    assert (features.dtype, features.shape) == (torch.float32, (len(pixels), 2048))
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    folded = Encoder.load(file, CPU)(pixels)
    torch.testing.assert_close(folded, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_only_an_unfolded_encoder_can_be_trained(encoder_file: Path) -> None:
    folded, unfolded = Encoder.load(encoder_file, CPU).network, Encoder.load(encoder_file, CPU, fold=False).network
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert not any(tensor.requires_grad for tensor in (*folded.parameters(), *folded.buffers()))
    assert any(isinstance(module, nn.BatchNorm2d) for module in unfolded.modules())
    assert all(parameter.requires_grad for parameter in unfolded.parameters())
    assert not folded.training
    assert not unfolded.training


def test_the_input_is_scaled_to_plus_minus_one(encoder: Encoder) -> None:
    batch = torch.tensor([0, 127, 128, 255], dtype=torch.uint8).view(1, 2, 2, 1).expand(1, 2, 2, 3)
    x = encoder.to_input(batch)
    assert x.shape == (1, 3, 2, 2)
    torch.testing.assert_close(x[0, 2].flatten(), torch.tensor([-1.0, -0.5 / 127.5, 0.5 / 127.5, 1.0]))


def test_features_do_not_depend_on_the_batch(encoder: Encoder, pixels: list[Pixels]) -> None:
    together = encoder(pixels)
    alone = torch.cat([encoder([each]) for each in pixels])
    by_three = torch.cat([encoder(pixels[i : i + 3]) for i in range(0, len(pixels), 3)])
    scale = together.abs().max().item()
    assert (together[0] - together[1]).abs().max() > 0
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-4 * scale)
    torch.testing.assert_close(by_three, together, rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize(
    ("threads", "images", "expected"),
    [
        (1, 1, {(1, 1): 1}),
        (1, 7, {(4, 1): 1, (1, 1): 3}),
        (2, 1, {(1, 2): 1}),
        (2, 3, {(1, 1): 3}),
        (2, 8, {(4, 1): 2}),
        (3, 2, {(1, 1): 2}),
        (4, 2, {(1, 2): 2}),
    ],
)
def test_each_thread_encodes_images_of_its_own(
    encoder: Encoder,
    pixels: list[Pixels],
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
    images: int,
    expected: dict[tuple[int, int], int],
) -> None:
    """`expected` counts the parts of a batch by the images in the part and the threads that compute it."""
    seen: list[tuple[int, int]] = []
    original = InceptionV3.to_features

    def noting(network: InceptionV3, x: Tensor) -> Tensor:
        seen.append((len(x), torch.get_num_threads()))
        return original(network, x)

    alone = torch.cat([encoder([each]) for each in pixels[:images]])
    monkeypatch.setattr(InceptionV3, "to_features", noting)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        features = encoder(pixels[:images])
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert Counter(seen) == expected
    torch.testing.assert_close(features, alone, rtol=1e-4, atol=1e-4 * alone.abs().max().item())


def test_half_and_single_precision_copies_have_the_same_fingerprint(
    tmp_path: Path, weights: Weights, encoder_file: Path
) -> None:
    file = tmp_path / "single.safetensors"
    save_encoder(file, weights, config(), torch.float32)
    assert file.read_bytes() != encoder_file.read_bytes()
    assert fingerprint(file) == fingerprint(encoder_file)


def test_unused_parts_do_not_change_the_fingerprint(tmp_path: Path, weights: Weights, encoder_file: Path) -> None:
    more = {
        **{name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")},
        "fc.weight": torch.zeros(5),
        "AuxLogits.conv0.conv.weight": torch.zeros(5),
    }
    file = tmp_path / "torchvision.safetensors"
    save_file(more, file, {"imgcap": json.dumps(vars(config()))})
    assert fingerprint(file) == fingerprint(encoder_file)
    assert Encoder.load(file, CPU).config == config()
    save_encoder(file, more, config(), torch.float16)
    assert not any(name.startswith(("fc", "AuxLogits")) for name in load_file(file))


@pytest.mark.parametrize(
    ("changes", "one_weight"), [({"pixels": 76}, False), ({"count_padding": True}, False), ({}, True)]
)
def test_the_fingerprint_changes_with_everything_that_features_depend_on(
    tmp_path: Path, weights: Weights, encoder_file: Path, changes: dict[str, object], one_weight: bool
) -> None:
    file = tmp_path / "other.safetensors"
    other = changed(weights, ONE_WEIGHT, lambda t: with_one(t.view(-1)[0].item() + 0.5)(t)) if one_weight else weights
    save_encoder(file, other, config(**changes), torch.float16)
    assert fingerprint(file) != fingerprint(encoder_file)


def test_a_file_without_our_header_has_the_settings_of_torchvision(tmp_path: Path, weights: Weights) -> None:
    file = tmp_path / "plain.safetensors"
    save_file(weights, file)
    loaded = Encoder.load(file, CPU)
    assert loaded.config == EncoderConfig(pixels=299, resize="squash-bicubic", count_padding=True)
    save_encoder(tmp_path / "said.safetensors", weights, EncoderConfig(), torch.float16)
    assert fingerprint(file) == fingerprint(tmp_path / "said.safetensors")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for read in (Encoder.load, fingerprint):
        with pytest.raises(ImgcapError, match=r"none\.safetensors does not exist"):
            read(tmp_path / "none.safetensors")


@pytest.mark.parametrize("content", ["text", "empty", "truncated", "folder"])
def test_a_file_in_another_format_is_refused(tmp_path: Path, encoder_file: Path, content: str) -> None:
    file = tmp_path / "wrong.safetensors"
    if content == "folder":
        file.mkdir()
    else:
        whole = encoder_file.read_bytes()
        file.write_bytes({"text": b"not weights\n" * 9, "empty": b"", "truncated": whole[: len(whole) // 2]}[content])
    for read in (Encoder.load, fingerprint):
        with pytest.raises(ImgcapError, match=r"wrong\.safetensors is not a readable \.safetensors file"):
            read(file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {n: t for n, t in w.items() if n != ONE_WEIGHT}, ONE_WEIGHT + " is missing or misshapen"),
        (lambda w: changed(w, ONE_WEIGHT, lambda t: t[1:].contiguous()), ONE_WEIGHT + " is missing or misshapen"),
        (
            lambda w: {**w, "Mixed_7c.branch1x1.bn.num_batches_tracked": torch.zeros(3, dtype=torch.int64)},
            "num_batches_tracked is missing or misshapen",
        ),
        (lambda _: {"weight": torch.zeros(3)}, "does not hold the weights of an Inception V3"),
        (lambda w: changed(w, ONE_WEIGHT, with_one(torch.nan)), "not numbers"),
        (lambda w: changed(w, ONE_WEIGHT, with_one(torch.inf)), "not numbers"),
        (lambda w: changed(w, "Mixed_5b.branch1x1.bn.running_var", with_one(torch.nan)), "not numbers"),
    ],
    ids=["missing", "misshapen", "misshapen counter", "another network", "NaN", "infinite", "NaN statistics"],
)
def test_weights_that_do_not_fit_are_refused(
    tmp_path: Path, weights: Weights, change: Callable[[Weights], Weights], message: str
) -> None:
    file = tmp_path / "wrong.safetensors"
    save_file(change(weights), file)
    for fold in (True, False):
        with pytest.raises(ImgcapError, match=message) as caught:
            Encoder.load(file, CPU, fold)
        assert str(file) in str(caught.value)
    file.unlink()


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"resize": "centre-crop"}, "resized with 'centre-crop', which this version does not support"),
        ({"pixels": 74}, "images of 74 pixels"),
        ({"pixels": 2049}, "images of 2049 pixels"),
        ({"pixels": -299}, "images of -299 pixels"),
        ({"pixels": 299.0}, "images of 299.0 pixels"),
        ({"pixels": True}, "images of True pixels"),
        ({"pixels": "299"}, "images of '299' pixels"),
        ({"pixels": None}, "images of None pixels"),
        ({"count_padding": "no"}, "count_padding is neither true nor false"),
        ({"colours": "BGR"}, "does not describe"),
        ([299], "does not describe"),
        (299, "does not describe"),
        ("{half of", "does not describe"),
    ],
    ids=str,
)
def test_invalid_settings_are_refused(tmp_path: Path, header: object, message: str) -> None:
    file = tmp_path / "wrong.safetensors"
    save_file({"weight": torch.zeros(3)}, file, {"imgcap": header if isinstance(header, str) else json.dumps(header)})
    for read in (Encoder.load, fingerprint):
        with pytest.raises(ImgcapError, match=message) as caught:
            read(file)
        assert str(file) in str(caught.value)


def test_find_encoder_accepts_a_file_a_model_folder_and_the_default(
    encoder_file: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_encoder(str(encoder_file)) == encoder_file
    assert find_encoder(str(model_folder)) == model_folder / ENCODER_FILE
    monkeypatch.setattr("imgcap.model.store._packaged_default", lambda: model_folder)
    assert fingerprint(find_encoder("default")) == fingerprint(encoder_file)


@pytest.mark.parametrize("name", ["nothing-like-this", "no/such/file.safetensors", "x" * 5000, ""])
def test_find_encoder_refuses_unknown_names(name: str) -> None:
    with pytest.raises(ImgcapError, match="There is no model") as caught:
        find_encoder(name)
    assert "default" in caught.value.hint


@pytest.mark.parametrize("name", ["abacus", "cuda:99", "cpu:x"])
def test_a_missing_device_is_a_usage_error(name: str) -> None:
    assert pick_device("cpu") == CPU
    with pytest.raises(UsageError, match=name):
        pick_device(name)


def imagenet_folder(cache: Path) -> Path:
    return cache / "encoders"


@pytest.mark.parametrize("error", [URLError("no route to host"), RuntimeError("invalid hash value"), TimeoutError()])
def test_the_error_for_a_failed_download_says_where_to_save_the_file(
    cache: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_args: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    with pytest.raises(ImgcapError, match=r"could not be downloaded from https://\S+\.pth") as caught:
        find_encoder(IMAGENET)
    assert str(imagenet_folder(cache)) in caught.value.hint
    assert "inception_v3_google-0cc3c7bd.pth" in caught.value.hint
    assert list(imagenet_folder(cache).iterdir()) == []


@pytest.fixture
def placed_by_hand(cache: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A .pth with random weights where the ImageNet weights belong, under a name with its hash; no network."""
    folder = imagenet_folder(cache)
    folder.mkdir()
    unused = {"fc.weight": torch.zeros(1000, 2048), "AuxLogits.fc.bias": torch.zeros(1000)}
    torch.save({name: t.float() for name, t in weights.items()} | unused, folder / "new.pth")
    digest = hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()
    file = (folder / "new.pth").rename(folder / f"inception-{digest[:8]}.pth")

    member = import_torchvision("torchvision.models").Inception_V3_Weights.IMAGENET1K_V1
    monkeypatch.setattr(member, "_value_", replace(member.value, url=f"https://example.invalid/models/{file.name}"))

    def fail(*_args: object, **_options: object) -> None:
        raise AssertionError("this test must not download")

    monkeypatch.setattr("torch.hub.download_url_to_file", fail)
    return file


def test_manually_saved_imagenet_weights_are_converted_once(
    placed_by_hand: Path, weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = find_encoder(IMAGENET)
    assert kept.suffix == ".safetensors"
    assert list(kept.parent.iterdir()) == [kept]
    loaded = load_file(kept)
    assert loaded.keys() == weights.keys()
    assert torch.equal(loaded[ONE_WEIGHT], weights[ONE_WEIGHT].float())
    assert EncoderConfig() == Encoder.load(kept, CPU).config

    changed_at = kept.stat().st_mtime_ns
    monkeypatch.setattr(
        "imgcap.model.encoder.import_torchvision", lambda _module: pytest.fail("torchvision was asked again")
    )
    assert find_encoder(IMAGENET) == kept
    assert kept.stat().st_mtime_ns == changed_at


@pytest.mark.parametrize("damage", ["truncated", "an error page", "empty"])
def test_damaged_manually_saved_imagenet_weights_are_named(placed_by_hand: Path, damage: str) -> None:
    whole = placed_by_hand.read_bytes()
    content = {"truncated": whole[: len(whole) // 2], "an error page": b"<html>Not found</html>", "empty": b""}
    placed_by_hand.write_bytes(content[damage])
    with pytest.raises(ImgcapError, match="is damaged or does not hold the ImageNet weights") as caught:
        find_encoder(IMAGENET)
    assert str(placed_by_hand) in str(caught.value)
    assert "https://" in caught.value.hint
    assert list(placed_by_hand.parent.iterdir()) == [placed_by_hand]
