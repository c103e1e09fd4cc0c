"""The page that a training ends with: what it shows, and what it says where something is missing."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from helpers.data import TINY_TRAINING, with_records
from helpers.training import CPU
from imgcap.captioning.split import caption_split
from imgcap.dataset.prepared import METADATA_FILE, PreparedFolder
from imgcap.dataset.splits import TEST, TRAIN, VAL
from imgcap.files import read_json, write_json
from imgcap.model.store import CONFIG_FILE, write_manifest
from imgcap.text.vocabulary import SPECIAL_WORDS
from imgcap.training.report import REPORT_FILE, Report, write_report
from imgcap.training.trainer import train


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, prepared: PreparedFolder, telling_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("models") / "mine"
    train(prepared, replace(TINY_TRAINING, start_from=str(telling_model)), folder)
    return folder


@pytest.fixture
def folder(shared_folder: Path, tmp_path: Path) -> Path:
    """A model that was trained from `telling_model`; a copy that can be changed."""
    return Path(shutil.copytree(shared_folder, tmp_path / "mine"))


def write(prepared: PreparedFolder, folder: Path) -> tuple[Report, str]:
    """The report on `folder`, and the text of its page without tags."""
    report = write_report(prepared, folder, CPU)
    assert report.file == folder / REPORT_FILE
    page = report.file.read_text(encoding="utf-8").split("<body>")[1].split("<script>")[0]
    return report, unescape(re.sub(r"<[^>]*>", "\n", page))


def with_splits(prepared: PreparedFolder, splits: dict[str, str], folder: Path) -> PreparedFolder:
    """`prepared` with other splits, by their present names."""
    records = [replace(r, split=splits.get(str(r.split), r.split)) for r in prepared.records]
    return with_records(prepared, records, folder)


def captions(page: str) -> list[str]:
    """The two captions of each card."""
    found = re.findall(r'<p class="caption">(.*?)</p>', page)
    return [unescape(re.sub("<.*?>", "", caption)) for caption in found]


def test_it_shows_the_val_images_before_and_after(prepared: PreparedFolder, folder: Path, telling_model: Path) -> None:
    report, text = write(prepared, folder)
    shown = captions(report.file.read_text(encoding="utf-8"))
    before, after = (
        {record.caption for record in caption_split(prepared.root, str(model), VAL).records}
        for model in (telling_model, folder)
    )
    assert len(shown) == 2 * len(prepared.rows(VAL))
    assert (set(shown[::2]), set(shown[1::2])) == (before, after)
    for row in prepared.rows(VAL):
        assert all(caption in text for caption in prepared.records[row].captions)
    assert report.file.read_text().count('src="data:image/webp;base64,') == len(prepared.rows(VAL))
    assert report.content == f"{len(prepared.rows(VAL))} val images with their captions before and after the training."
    assert report.verdict
    assert report.verdict in text
    assert "mine before and after its training" in text
    assert f"Before: the captions of {telling_model}." in text
    assert (
        "The val images also chose the epoch, which raises the scores after the training a little. The test images did "
        f"not: `imgcap eval {prepared.root} --model {folder} --compare-model {telling_model}` compares the two models "
        "on them."
    ) in text
    assert f"\n{len(prepared.rows(TRAIN))} images with " in text
    assert "Training loss" in text


@pytest.mark.parametrize(("keep_words", "more"), [(False, ", or with --keep-words"), (True, "")])
@pytest.mark.parametrize("significance", [0.0, 1.1])
def test_if_the_start_model_scores_higher_the_advice_goes_no_further_than_the_verdict(
    prepared: PreparedFolder,
    telling_model: Path,
    folder: Path,
    keep_words: bool,
    more: str,
    significance: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("training.report", "scoring.resampling"):
        monkeypatch.setattr(f"imgcap.{module}.ALPHA", significance)
    config = read_json(telling_model / CONFIG_FILE)
    worse = Path(shutil.copytree(telling_model, folder.parent / "worse"))
    config["training"]["options"] |= {"start_from": str(folder), "keep_words": keep_words}
    write_json(worse / CONFIG_FILE, config)
    write_manifest(worse)
    report, text = write(prepared, worse)
    assert report.verdict
    images = len(prepared.rows(TRAIN))
    if significance:
        assert report.verdict.startswith(f"{folder} is better than {worse} by ")
        assert report.advice == f"Use {folder} as it is, or train again on more images{more}."
    else:
        assert report.verdict.startswith("Too few images: ")
        assert report.advice == (
            f"{images} training images are few: in imgcap's measurements, 100 images of what a model did not know made "
            "it better than its start, and 50 did not. Compare the captions on the page before you choose, or train "
            f"again on more images{more}."
        )
        monkeypatch.setattr("imgcap.training.report.WORTH_TRAINING", images)
        compare = f"Compare the captions on the page before you choose, or train again on more images{more}."
        assert write(prepared, worse)[0].advice == compare
    assert report.advice in text
    assert write(prepared, folder)[0].advice is None


def test_the_words_that_a_training_adds_are_named(prepared: PreparedFolder, folder: Path, telling_model: Path) -> None:
    words = read_json(folder / "vocabulary.json")["words"]
    captioned = caption_split(prepared.root, str(folder), VAL)
    new = min(word for record in captioned.records for word in record.caption.split())
    other = Path(shutil.copytree(telling_model, folder.parent / "other"))
    write_json(other / "vocabulary.json", {"words": ["stone" if word == new else word for word in words]})
    write_manifest(other)
    config = read_json(folder / CONFIG_FILE)
    config["training"]["options"]["start_from"] = str(other)
    write_json(folder / CONFIG_FILE, config)
    _, text = write(prepared, folder)
    assert (
        f"{len(words) - len(SPECIAL_WORDS) - 1} words kept, 1 dropped, 1 new, of which these captions have 1: {new}\n"
        in text
    )


def test_a_training_from_random_weights_has_no_before(
    prepared: PreparedFolder, model_folder: Path, tmp_path: Path
) -> None:
    report, text = write(prepared, Path(shutil.copytree(model_folder, tmp_path / "walls")))
    assert report.verdict is None
    assert report.content == f"{len(prepared.rows(VAL))} val images with their captions after the training."
    assert "walls after its training" in text
    assert "random weights, embeddings of 16 numbers and an LSTM of 16" in text
    assert "Before" not in text


def test_a_start_model_that_is_gone_is_said(prepared: PreparedFolder, folder: Path) -> None:
    config = read_json(folder / CONFIG_FILE)
    config["training"]["options"]["start_from"] = "gone"
    write_json(folder / CONFIG_FILE, config)
    report, text = write(prepared, folder)
    assert report.verdict is None
    assert "There are no captions from before the training: There is no model 'gone'." in text
    assert "the weights of gone" in text


def test_without_a_val_split_the_test_split_is_shown(prepared: PreparedFolder, folder: Path, tmp_path: Path) -> None:
    report, text = write(with_splits(prepared, {VAL: TRAIN}, tmp_path / "prepared"), folder)
    assert len(prepared.rows(TEST)) == 1
    assert report.content == "1 test image with its captions before and after the training."
    assert report.verdict
    assert "chose the epoch" not in text


def test_training_images_have_no_scores(prepared: PreparedFolder, folder: Path, tmp_path: Path) -> None:
    report, text = write(with_splits(prepared, {VAL: TRAIN, TEST: TRAIN}, tmp_path / "prepared"), folder)
    sentence = (
        f"There are no scores, because there is no val or test split: {folder} has learned from what is shown. "
        "Expect worse captions of other images."
    )
    assert report.verdict is None
    assert report.advice
    assert report.advice.startswith("24 training images are few: in imgcap's measurements, 100 images of what")
    assert report.advice in text
    assert report.content == f"24 training images with their captions before and after the training. {sentence}"
    assert sentence in text
    assert "95 % interval" not in text
    assert len(captions(report.file.read_text(encoding="utf-8"))) == 2 * 24


def test_a_val_split_that_was_drawn_is_drawn_again(prepared: PreparedFolder, tmp_path: Path) -> None:
    without_val = with_splits(prepared, {VAL: TRAIN}, tmp_path / "prepared")
    train(without_val, replace(TINY_TRAINING, val_share=0.2, seed=3), tmp_path / "mine")
    report, text = write(without_val, tmp_path / "mine")
    drawn = without_val.with_val_share(0.2, seed=3).rows(VAL)
    assert report.content == f"{len(drawn)} val images with their captions after the training."
    assert all(without_val.records[row].image_id in text for row in drawn)


def test_a_tuned_encoder_encodes_the_images_again(
    prepared: PreparedFolder, tuned_folder: Path, model_folder: Path, tmp_path: Path
) -> None:
    tuned = Path(shutil.copytree(tuned_folder, tmp_path / "tuned"))
    report, text = write(prepared, tuned)
    assert report.verdict
    assert (
        f"The features in {prepared.root} come from another encoder than {tuned} needs, so its own encoder encoded the "
        "images again."
    ) in text
    assert f"than {model_folder} needs" not in text


def test_images_that_are_gone_are_said(prepared: PreparedFolder, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(prepared.root, tmp_path / "prepared")
    metadata = read_json(prepared.root / METADATA_FILE)
    write_json(tmp_path / "prepared" / METADATA_FILE, {**metadata, "image_root": str(tmp_path / "gone")})
    report, text = write(PreparedFolder(tmp_path / "prepared"), folder)
    assert report.verdict
    assert "None of the images can be read any more." in text


def test_progress_counts_the_captions_of_both_models(prepared: PreparedFolder, folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_report(prepared, folder, CPU, lambda *now: seen.append(now))
    total = 2 * len(prepared.rows(VAL))
    assert list(dict.fromkeys(seen)) == [(done, total) for done in range(total + 1)]
