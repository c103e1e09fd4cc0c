"""Captioning images from Python."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import imgcap
from helpers.data import draw
from imgcap.captioning.captioner import MAX_DISTANCE, Captioner, feature_distances, load_model
from imgcap.captioning.options import BATCH_SIZE
from imgcap.dataset.prepared import PreparedFolder
from imgcap.errors import ImgcapError, UsageError
from imgcap.model.search import SearchOptions
from imgcap.model.store import import_model
from imgcap.text.tokenizer import detokenize

COLOURS = ("red", "green", "blue", "white")


@pytest.fixture(scope="module")
def captioner(telling_model: Path) -> Captioner:
    return load_model(telling_model, device="cpu")


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """More images than two batches hold."""
    files = [tmp_path / f"{i:02}.png" for i in range(2 * BATCH_SIZE + 3)]
    for i, file in enumerate(files):
        draw(COLOURS[i % 4], i).save(file)
    return files


def test_a_path_a_string_and_an_image_get_the_same_caption(captioner: Captioner, images: list[Path]) -> None:
    by_path = captioner.caption(images[0])
    by_name = captioner.caption(str(images[0]))
    with Image.open(images[0]) as image:
        by_pixels = captioner.caption(image)
    assert by_path == by_name
    assert by_path.path == str(images[0])
    assert by_pixels == replace(by_path, path=None)
    assert by_path.text
    assert by_path.log_probability < 0
    assert by_path.error is None


def test_captions_are_those_of_the_prepared_features(captioner: Captioner, prepared: PreparedFolder) -> None:
    rows = [0, 5, 10, 23]
    captions = captioner.caption([prepared.image_root / prepared.records[row].path for row in rows])
    features = torch.from_numpy(prepared.features[rows])
    assert len({caption.text for caption in captions}) > 1
    for caption, found in zip(captions, captioner.model.search(features, captioner.model.config.search), strict=True):
        assert caption.text == detokenize(captioner.model.vocabulary.decode(found[0].ids))
        assert caption.log_probability == pytest.approx(found[0].log_probability, abs=1e-2)


def test_a_list_is_captioned_in_its_order(captioner: Captioner, images: list[Path]) -> None:
    captions = captioner.caption(list(images))
    assert len({caption.text for caption in captions}) > 3  # else a wrong order could not be seen
    assert [caption.path for caption in captions] == [str(path) for path in images]
    assert [caption.text for caption in captions] == [captioner.caption(path).text for path in images]
    backwards = captioner.caption(list(images[::-1]))
    assert [caption.path for caption in backwards] == [str(path) for path in images[::-1]]
    assert [caption.text for caption in backwards] == [caption.text for caption in captions[::-1]]


def test_an_empty_list_has_no_captions(captioner: Captioner) -> None:
    assert captioner.caption([]) == []


def test_paths_and_images_may_be_mixed(captioner: Captioner, images: list[Path]) -> None:
    captions = captioner.caption([images[0], draw("blue", 3), str(images[1])])
    assert [caption.path for caption in captions] == [str(images[0]), None, str(images[1])]
    assert all(caption.text for caption in captions)


@pytest.mark.parametrize("bad", [(0,), (3, 4), (8,), (18,), tuple(range(8, 16)), tuple(range(19))], ids=str)
def test_a_bad_file_in_a_list_stops_nothing(captioner: Captioner, images: list[Path], bad: tuple[int, ...]) -> None:
    good = captioner.caption(list(images))
    for i in bad:
        images[i].write_bytes(b"no image")
    captions = captioner.caption(list(images))
    assert [caption.path for caption in captions] == [str(path) for path in images]
    for i, caption in enumerate(captions):
        if i in bad:
            assert isinstance(caption.error, ImgcapError)
            assert str(images[i]) in str(caption.error)
            assert (caption.text, caption.log_probability) == ("", -torch.inf)
        else:
            assert caption.error is None
            assert caption.text == good[i].text


def test_a_list_of_bad_files_alone_is_captioned_with_errors(captioner: Captioner, tmp_path: Path) -> None:
    [caption] = captioner.caption([tmp_path / "none.png"])
    assert "does not exist" in str(caption.error)


def test_a_single_bad_file_raises(captioner: Captioner, tmp_path: Path) -> None:
    with pytest.raises(ImgcapError, match=r"none\.png does not exist"):
        captioner.caption(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ImgcapError, match=r"text\.png is not an image"):
        captioner.caption(str(tmp_path / "text.png"))
    with pytest.raises(ImgcapError, match="is a folder, not an image"):
        captioner.caption(tmp_path)


def test_a_damaged_image_object_is_no_worse_than_a_damaged_file(captioner: Captioner, images: list[Path]) -> None:
    stored = io.BytesIO()
    draw("red", 1, size=300).save(stored, "JPEG")
    torn = Image.open(io.BytesIO(stored.getvalue()[: len(stored.getvalue()) // 2]))
    damaged, good = captioner.caption([torn, images[0]])
    assert isinstance(damaged.error, ImgcapError)
    assert (damaged.path, good.path) == (None, str(images[0]))
    assert good.text
    with pytest.raises(ImgcapError, match="cannot be decoded"):
        captioner.caption(torn)


def test_a_stream_is_lazy(captioner: Captioner) -> None:
    taken = []

    def forever() -> Iterator[Image.Image]:
        for number in count():
            taken.append(number)
            yield draw(COLOURS[number % 4], number)

    stream = captioner.stream(forever())
    assert taken == []
    captions = list(islice(stream, 20))
    assert len(captions) == 20
    assert all(caption.text for caption in captions)
    assert len(taken) <= 20 + 5 * BATCH_SIZE
    next(stream)
    stream.close()  # type: ignore[attr-defined]


def test_options_are_followed_and_the_models_own_are_the_default(captioner: Captioner, images: list[Path]) -> None:
    own = captioner.model.config.search
    assert captioner.caption(images[0]) == captioner.caption(images[0], own)
    long = captioner.caption(list(images[:3]), SearchOptions(beam_size=1, min_length=9, max_length=9))
    assert all(len(caption.text.split()) == 9 for caption in long)
    assert captioner.caption(images[0], SearchOptions(max_length=1)).text.count(" ") == 0


def test_a_model_is_loaded_by_name_folder_and_by_default(
    telling_model: Path, captioner: Captioner, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = captioner.caption(images[0])
    import_model(telling_model, "walls")
    monkeypatch.setattr("imgcap.model.store._packaged_default", lambda: telling_model)
    for name in ("walls", str(telling_model), telling_model, "default"):
        assert load_model(name, device="cpu").caption(images[0]) == expected
    assert imgcap.load_model(device="cpu").caption(images[0]) == expected
    assert imgcap.available_models() == ["default", "walls"]


def test_an_unknown_model_or_device_is_one_sentence(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ImgcapError, match="There is no model 'barns'") as caught:
        load_model("barns")
    assert "default" in caught.value.hint
    with pytest.raises(ImgcapError, match="is not a model folder"):
        load_model(tmp_path)
    with pytest.raises(UsageError, match="abacus"):
        load_model(model_folder, device="abacus")


def test_a_training_image_is_about_one_deviation_away(captioner: Captioner, prepared: PreparedFolder) -> None:
    decoder = captioner.model.decoder
    features = torch.from_numpy(prepared.features[list(range(24))])
    distances = feature_distances(decoder, features)
    assert distances.shape == (24,)
    assert distances.square().mean().sqrt() == pytest.approx(1, abs=0.05)
    assert feature_distances(decoder, features[:2], features[:2]).tolist() == [0, 0]
    varied = decoder.feature_std > 1e-3
    assert 0 < varied.sum() < len(varied)
    moved = features + torch.where(varied, 0, 1e6)  # what never varied in training has no scale
    assert torch.equal(feature_distances(decoder, moved), distances)
    assert torch.allclose(
        feature_distances(decoder, decoder.feature_mean + 3 * decoder.feature_std[None]), torch.tensor(3.0)
    )


@pytest.fixture
def far_off(telling_model: Path) -> Captioner:
    """A model whose training features were far from those that its encoder makes."""
    captioner = load_model(telling_model, device="cpu")
    decoder = captioner.model.decoder
    decoder.feature_mean = decoder.feature_mean + 10 * MAX_DISTANCE * decoder.feature_std
    return captioner


def test_features_far_from_all_training_images_are_warned_about_once(
    far_off: Captioner, images: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    captions = far_off.caption(list(images))
    assert all(caption.text for caption in captions)
    far_off.caption(list(images))
    [record] = caplog.records
    assert (record.name, record.levelname) == ("imgcap.captioning.captioner", "WARNING")
    assert "imgcap doctor" in record.getMessage()


def test_a_few_images_or_one_near_image_are_no_reason_to_warn(
    far_off: Captioner, captioner: Captioner, images: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    far_off.caption(list(images[:3]))
    captioner.caption(list(images))
    encode, decoder = far_off.encoder, far_off.model.decoder

    def one_near(pixels: list[object]) -> torch.Tensor:
        features = encode(pixels).clone()  # type: ignore[arg-type]
        features[2] = decoder.feature_mean
        return features

    one_near.config = encode.config  # type: ignore[attr-defined]
    far_off.encoder = one_near  # type: ignore[assignment]
    far_off.caption(list(images[:8]))
    assert caplog.records == []


def test_the_default_model_accepts_all_kinds_of_images(caplog: pytest.LogCaptureFixture) -> None:
    side, random = 299, np.random.default_rng(0)
    page = Image.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(page)
    for y in range(5, side, 14):
        pen.text((5, y), f"{y} the quick brown fox jumps over the lazy dog", fill="black")
    drawing = Image.new("RGB", (side, side), "white")
    ImageDraw.Draw(drawing).ellipse((50, 60, 200, 250), outline="black", width=3)
    noise = Image.fromarray(random.integers(0, 256, (side, side, 3), np.uint8))
    plain = [Image.new("RGB", (side, side), colour) for colour in ("black", "white", "red")]
    captioner = load_model(device="cpu")
    for kind in ([page] * 4, [drawing] * 4, [noise] * 4, [plain[0]] * 4, [*plain, noise]):
        captioner._checked_features = False
        captioner.caption(list(kind))
        assert captioner._checked_features
    assert caplog.records == []


def test_the_command_warns_in_one_line_on_stderr(telling_model: Path, images: list[Path]) -> None:
    program = "from imgcap import cli; from imgcap.captioning import captioner; captioner.MAX_DISTANCE = 0; cli.main()"
    command = [sys.executable, "-c", program, "caption", str(images[0].parent), "--model", str(telling_model), "-q"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(images)
    [line] = done.stderr.splitlines()
    assert re.fullmatch(
        r"The features of these images are [\d.]+ standard deviations or more from those that the model was trained "
        r"on, so captions will mean little: imgcap doctor finds out what is wrong\.",
        line,
    )
    assert ".py" not in line
