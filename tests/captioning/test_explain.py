"""The index of training images: neighbours, captions known by heart, and images unlike all others."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from imgcap.captioning.explain import COMPONENTS, FEWEST_VAL_IMAGES, NEAREST, TrainingIndex
from imgcap.dataset.prepared import PreparedFolder, Rows
from imgcap.dataset.records import Record
from imgcap.errors import ImgcapError
from imgcap.model.decoder import DecoderConfig, LSTMDecoder
from imgcap.model.inception import FEATURE_SIZE

TRAIN, VAL, HIDDEN = 300, 100, 40
SURROGATE = "half \ud83d of a character.jpg"


class FakePrepared:
    """Images that differ in 40 directions of 2048, the later ones less, and a little noise."""

    def __init__(self, train: int = TRAIN, val: int = VAL) -> None:
        rng = np.random.default_rng(0)
        scales = np.linspace(2, 0.5, HIDDEN)
        self.directions = rng.normal(size=(HIDDEN, FEATURE_SIZE)) / np.sqrt(HIDDEN)
        hidden = rng.normal(size=(train + val, HIDDEN)) * scales
        noise = 0.02 * rng.normal(size=(train + val, FEATURE_SIZE))
        self.features = (3 + hidden @ self.directions + noise).astype(np.float32)
        self.records = tuple(
            Record(str(i), f"images/{i}.jpg" if i else SURROGATE, (f"A dog number {i}.",), split)
            for i, split in enumerate(["train"] * train + ["val"] * val)
        )

    def rows(self, split: str, may_be_empty: bool = False) -> Rows:
        return np.array([i for i, record in enumerate(self.records) if record.split == split], dtype=np.int64)


@pytest.fixture(scope="module")
def images() -> FakePrepared:
    return FakePrepared()


@pytest.fixture(scope="module")
def decoder(images: FakePrepared) -> LSTMDecoder:
    decoder = LSTMDecoder(DecoderConfig(8, 8, 8))
    features = torch.from_numpy(images.features[:TRAIN])
    decoder.standardize_features(features.mean(0), features.std(0))
    return decoder


def build(images: FakePrepared, decoder: LSTMDecoder, **options: Any) -> TrainingIndex:
    return TrainingIndex.build(images, decoder, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def index(images: FakePrepared, decoder: LSTMDecoder) -> TrainingIndex:
    return build(images, decoder)


@pytest.fixture
def file(index: TrainingIndex, tmp_path: Path) -> Path:
    index.save(tmp_path / "index.safetensors")
    return tmp_path / "index.safetensors"


def equal(a: TrainingIndex, b: TrainingIndex) -> bool:
    return all(
        torch.equal(value, vars(b)[name]) if isinstance(value, Tensor) else value == vars(b)[name]
        for name, value in vars(a).items()
    )


def test_a_saved_index_is_read_again_and_the_same_every_time(
    images: FakePrepared, decoder: LSTMDecoder, index: TrainingIndex, file: Path
) -> None:
    assert equal(TrainingIndex.load(file), index)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    build(images, decoder).save(file.with_name("again"))
    assert file.with_name("again").read_bytes() == file.read_bytes()
    assert torch.equal(torch.get_rng_state(), before)


def test_a_training_image_is_its_own_nearest(images: FakePrepared, index: TrainingIndex) -> None:
    rows = list(range(0, TRAIN, 10))
    for row, found in zip(rows, index.explain(torch.from_numpy(images.features[rows]), [""] * 30), strict=True):
        name, similarity = found.nearest[0]
        assert name == images.records[row].path
        assert similarity == pytest.approx(1, abs=0.01)


def test_neighbours_are_those_of_the_features_that_the_decoder_sees(
    images: FakePrepared, decoder: LSTMDecoder, index: TrainingIndex
) -> None:
    seen: list[Tensor] = []
    handle = decoder.image.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        decoder.eval().embed_images(torch.from_numpy(images.features))
    handle.remove()
    _, scales, components = torch.linalg.svd(seen[0][:TRAIN], full_matrices=False)
    variances = scales[:COMPONENTS] ** 2 / TRAIN
    whitened = seen[0] @ components[:COMPONENTS].T / variances.clamp(min=variances.sum() / 1000).sqrt()
    whole = torch.nn.functional.normalize(whitened)
    similarities = whole[TRAIN:] @ whole[:TRAIN].T
    for exact, found in zip(
        similarities, index.explain(torch.from_numpy(images.features[TRAIN:]), [""] * VAL), strict=True
    ):
        assert len(found.nearest) == NEAREST
        assert [s for _, s in found.nearest] == sorted((s for _, s in found.nearest), reverse=True)
        assert [s for _, s in found.nearest] == pytest.approx(exact.topk(NEAREST).values.tolist(), abs=0.05)
        assert found.nearest[0][0] in {images.records[i].path for i in exact.topk(3).indices.tolist()}


def test_images_that_share_one_strong_direction_are_not_alike() -> None:
    images = FakePrepared()
    strong = np.random.default_rng(1).choice([-25, 25], size=(TRAIN + VAL, 1))
    images.features += (strong * images.directions[:1]).astype(np.float32)
    decoder = LSTMDecoder(DecoderConfig(8, 8, 8))  # without statistics, which would shrink the strong direction
    features = torch.from_numpy(images.features)
    others = torch.nn.functional.normalize(features[TRAIN:]) @ torch.nn.functional.normalize(features[:TRAIN]).T
    similarities = build(images, decoder).similarities(features[TRAIN:])
    assert others.amax(1).min() > 0.95
    assert similarities.amax(1).median() < 0.7


def test_training_captions_are_recognised_word_for_word(images: FakePrepared, index: TrainingIndex) -> None:
    texts = ["a dog number 7", "A DOG, number 299!", "a dog number 300", "a dog number", "", "zebra"]
    found = index.explain(torch.from_numpy(images.features[: len(texts)]), texts)
    assert [explanation.verbatim for explanation in found] == [True, True, False, False, False, False]


def test_a_large_index_has_evenly_spaced_images_and_all_captions(
    images: FakePrepared, decoder: LSTMDecoder, index: TrainingIndex, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("imgcap.captioning.explain.MAX_IMAGES", 14)
    build(images, decoder).save(tmp_path / "index")
    bounded = TrainingIndex.load(tmp_path / "index")
    rows = range(0, TRAIN, 23)
    assert bounded.names == tuple(images.records[row].path for row in rows)
    assert torch.equal(bounded.caption_hashes, index.caption_hashes)
    texts = [f"a dog number {number}" for number in (0, 1, 22, 24, TRAIN - 1, TRAIN)]
    features = torch.from_numpy(images.features[[rows[i] for i in range(len(texts))]])
    found = bounded.explain(features, texts)
    assert [explanation.verbatim for explanation in found] == [True, True, True, True, True, False]
    assert [explanation.nearest[0][0] for explanation in found] == list(bounded.names[: len(texts)])


def test_a_bound_that_is_not_reached_changes_nothing(
    images: FakePrepared, decoder: LSTMDecoder, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgcap.captioning.explain.MAX_IMAGES", TRAIN)
    build(images, decoder).save(file.with_name("again"))
    assert file.with_name("again").read_bytes() == file.read_bytes()


def test_equal_captions_have_one_hash(decoder: LSTMDecoder) -> None:
    images = FakePrepared(5)
    images.records = tuple(replace(record, captions=("A dog .", "a dog", "Two!")) for record in images.records)
    hashes = build(images, decoder).caption_hashes
    assert len(hashes) == 2
    assert hashes[0] < hashes[1]


def test_percentiles_are_fractions_of_the_val_images(images: FakePrepared, index: TrainingIndex) -> None:
    val = index.explain(torch.from_numpy(images.features[TRAIN:]), [""] * VAL)
    distances = np.array([explanation.distance for explanation in val])
    for explanation in val:
        assert explanation.percentile is not None
        assert explanation.percentile == pytest.approx((distances < explanation.distance).mean(), abs=0.02)
        assert bool(explanation.warning) == (explanation.percentile >= 0.95)


def test_the_distance_of_a_typical_training_image_is_one(images: FakePrepared, index: TrainingIndex) -> None:
    found = index.explain(torch.from_numpy(images.features[:TRAIN]), [""] * TRAIN)
    assert np.mean([explanation.distance for explanation in found]) == pytest.approx(1, abs=0.03)


def test_an_unlike_image_gets_a_warning_and_a_typical_one_does_not(images: FakePrepared, index: TrainingIndex) -> None:
    rng = np.random.default_rng(9)
    stranger = 3 + 30 * rng.normal(size=(1, HIDDEN)) @ images.directions
    typical = images.features[:TRAIN].mean(0, keepdims=True)
    features = torch.from_numpy(np.concatenate([stranger, typical]).astype(np.float32))
    found, ordinary = index.explain(features, ["", ""])
    assert (found.percentile, ordinary.percentile) == (1.0, 0.0)
    assert found.warning == (
        "This image is unlike those that the model was trained on: farther from them than 100 % of its val images."
    )
    assert ordinary.warning == ""


def test_explanations_do_not_depend_on_the_batch(images: FakePrepared, index: TrainingIndex) -> None:
    features = torch.from_numpy(images.features[TRAIN : TRAIN + 5])
    together = index.explain(features, list("abcde"))
    for i, explanation in enumerate(together):
        [alone] = index.explain(features[i : i + 1], ["abcde"[i]])
        assert [name for name, _ in alone.nearest] == [name for name, _ in explanation.nearest]
        assert alone.percentile == pytest.approx(explanation.percentile, abs=1e-4)
    assert index.explain(torch.empty(0, FEATURE_SIZE), []) == []


@pytest.mark.parametrize("train", [1, 2, 5])
def test_a_handful_of_training_images_is_enough(decoder: LSTMDecoder, train: int) -> None:
    images = FakePrepared(train)
    found = build(images, decoder).explain(torch.from_numpy(images.features[:1]), [""])[0]
    assert found.nearest[0][0] == SURROGATE
    assert len(found.nearest) == min(train, NEAREST)


@pytest.mark.parametrize("val", [0, 3, FEWEST_VAL_IMAGES - 1])
def test_with_too_few_val_images_nobody_has_a_percentile_or_is_warned(decoder: LSTMDecoder, val: int) -> None:
    images = FakePrepared(20, val)
    [found] = build(images, decoder).explain(torch.from_numpy(images.features[:1] + 99), [""])
    assert (found.percentile, found.warning) == (None, "")


def test_few_val_images_are_enough(decoder: LSTMDecoder) -> None:
    images = FakePrepared(20, FEWEST_VAL_IMAGES)
    [found] = build(images, decoder).explain(torch.from_numpy(images.features[:1] + 99), [""])
    assert found.percentile is not None


def test_other_features_replace_the_prepared_ones(images: FakePrepared, decoder: LSTMDecoder) -> None:
    turned = np.ascontiguousarray(images.features[:, ::-1])
    other = build(images, decoder, features=turned)
    [found] = other.explain(torch.from_numpy(turned[7:8]), [""])
    assert found.nearest[0][0] == "images/7.jpg"


def test_codes_are_small(index: TrainingIndex, file: Path) -> None:
    assert index.codes.dtype == torch.int8
    assert index.codes.shape == (TRAIN, COMPONENTS)
    assert file.stat().st_size < 2 * FEATURE_SIZE * (COMPONENTS + 4) + TRAIN * (COMPONENTS + 60) + 4096


def test_a_prepared_folder_is_indexed_by_the_paths_of_its_records(
    prepared: PreparedFolder, decoder: LSTMDecoder
) -> None:
    index = TrainingIndex.build(prepared, decoder)
    assert index.names == tuple(record.path for record in prepared.records if record.split == "train")


def edit(**changes: Any) -> Callable[[TrainingIndex, Path], None]:
    def damage(index: TrainingIndex, file: Path) -> None:
        replace(index, **{name: change(vars(index)[name]) for name, change in changes.items()}).save(file)

    return damage


DAMAGES: dict[str, Callable[[TrainingIndex, Path], object]] = {
    "empty": lambda _index, file: file.write_bytes(b""),
    "text": lambda _index, file: file.write_text("index" * 100),
    "torn": lambda _index, file: os.truncate(file, 9999),
    "of other tensors": lambda _index, file: save_file({"weights": torch.zeros(3)}, file, {"names": "[]"}),
    "without names": lambda index, file: save_file(
        {name: t for name, t in vars(index).items() if isinstance(t, Tensor)}, file
    ),
    "names not JSON": lambda index, file: save_file(
        {name: t for name, t in vars(index).items() if isinstance(t, Tensor)}, file, {"names": "["}
    ),
    "a name too few": edit(names=lambda names: names[1:]),
    "a name a number": edit(names=lambda names: (1, *names[1:])),
    "no images": edit(names=lambda _: (), codes=lambda codes: codes[:0]),
    "codes of another size": edit(codes=lambda codes: codes[:, 1:]),
    "codes of another type": edit(codes=lambda codes: codes.float()),
    "mean cut": edit(mean=lambda mean: mean[1:]),
    "mean NaN": edit(mean=lambda mean: mean * torch.nan),
    "percentiles cut": edit(percentiles=lambda percentiles: percentiles[1:]),
    "hashes a matrix": edit(caption_hashes=lambda hashes: hashes[None]),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_index_is_one_sentence(index: TrainingIndex, file: Path, name: str) -> None:
    DAMAGES[name](index, file)
    with pytest.raises(ImgcapError, match="is damaged: it is not an index of training images") as caught:
        TrainingIndex.load(file)
    assert "\n" not in str(caught.value)


def test_a_missing_index_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ImgcapError, match="has no index of its training images"):
        TrainingIndex.load(tmp_path / "index.safetensors")
