"""The default model, as a new user sees it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from helpers.data import EXAMPLES, SHARED_DATA, Run
from imgcap import doctor, load_model
from imgcap.captioning.captioner import Captioner
from imgcap.model.store import DEFAULT_MODEL, MODEL_CARD_FILE, locate
from imgcap.scoring.scores import score
from imgcap.text.vocabulary import SPECIAL_WORDS, Vocabulary
from imgcap.training.start import described

CONSTANT_CAPTION = "a man in a blue shirt is standing on a rock"
IMAGES = 100


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> Captioner:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMGCAP_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        return load_model()


def test_the_examples_get_captions_offline(imgcap_fresh: Run) -> None:
    done = imgcap_fresh("caption", EXAMPLES, "--format", "jsonl", without_network=True)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    names = ["astronaut.jpg", "cat.jpg", "coffee.jpg", "dandelions.jpg", "moose.jpg", "rocket.jpg"]
    assert [Path(row["path"]).name for row in rows] == names
    assert len({row["caption"] for row in rows}) == 5  # cat and moose are both "an animal"


def test_captions_in_the_documentation_are_those_of_the_model(captioner: Captioner) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    for caption in captioner.caption(sorted(EXAMPLES.glob("*.jpg"))):
        assert caption.path
        assert f"{Path(caption.path).name}\t{caption.text}\n" in readme


def test_the_card_counts_the_words_as_train_does(captioner: Captioner) -> None:
    model = captioner.model
    card = (locate(DEFAULT_MODEL) / MODEL_CARD_FILE).read_text(encoding="utf-8")
    assert f"LSTM decoder (512 units), {len(model.vocabulary) - len(SPECIAL_WORDS):,} words, " in card
    assert f": 0 of its {len(model.vocabulary) - len(SPECIAL_WORDS):,} words stay" in described(
        model, Vocabulary(SPECIAL_WORDS)
    )


def test_examples_get_the_same_captions_alone_and_together(captioner: Captioner) -> None:
    files, threads = sorted(EXAMPLES.glob("*.jpg")), torch.get_num_threads()
    together = [caption.text for caption in captioner.caption(files)]
    torch.set_num_threads(2)
    try:
        assert [captioner.caption(file).text for file in files] == together
    finally:
        torch.set_num_threads(threads)


def test_the_recorded_features_of_doctor_come_from_this_model(captioner: Captioner) -> None:
    known, _ = doctor._read_expected()
    assert known["encoder"] == captioner.model.config.encoder_fingerprint
    assert known["model"] == doctor._identity(captioner.model)
    assert "from the expected ones" in doctor.check_features(captioner).text
    assert known["caption"] in doctor.check_captions(captioner).text


def test_weights_are_in_half_precision_except_the_feature_statistics(captioner: Captioner) -> None:
    for name in ("encoder.safetensors", "decoder.safetensors"):
        for key, tensor in load_file(captioner.model.folder / name).items():
            wanted = torch.float32 if key.startswith("feature_") else torch.float16
            assert tensor.dtype == wanted or key.startswith("int8.") or not tensor.is_floating_point(), key


def test_the_card_names_data_terms_and_scores() -> None:
    card = (locate(DEFAULT_MODEL) / MODEL_CARD_FILE).read_text()
    for word in ("Flickr8k", "non-commercial", "BLEU-4", "CIDEr-D", "EfficientNet-Lite"):
        assert word in card


def test_card_readme_and_documentation_give_the_same_scores() -> None:
    root = Path(__file__).parents[2]
    pages = (locate(DEFAULT_MODEL) / MODEL_CARD_FILE, root / "README.md", root / "docs" / "default-model.md")
    lines = [
        [line for line in page.read_text().splitlines() if line.startswith("| **default model**")] for page in pages
    ]
    assert len(lines[0]) == 1
    assert lines[0] == lines[1] == lines[2]


@pytest.mark.shared_data
def test_the_model_beats_the_constant_caption_on_unseen_images(captioner: Captioner) -> None:
    names = (SHARED_DATA / "Flickr_8k.testImages.txt").read_text().split()[:IMAGES]
    captions: dict[str, list[str]] = {}
    for line in (SHARED_DATA / "Flickr8k.token.txt").read_text().splitlines():
        key, caption = line.split("\t")
        captions.setdefault(key.rsplit("#", 1)[0], []).append(caption)
    references = [captions[name] for name in names]
    found = captioner.caption([SHARED_DATA / "images" / name for name in names])
    ours = score([caption.text for caption in found], references)
    floor = score([CONSTANT_CAPTION] * IMAGES, references)
    assert ours.bleu[3] > 1.5 * floor.bleu[3]
    assert ours.cider_d > 2 * floor.cider_d


def test_captions_have_confidence_and_nearest_training_images(captioner: Captioner) -> None:
    [[caption]] = captioner.batches([EXAMPLES / "coffee.jpg"], explain=True)
    assert caption.confidence is not None
    assert 0 < caption.confidence < 1
    assert caption.explanation is not None
    similarities = [similarity for _, similarity in caption.explanation.nearest]
    assert len(similarities) == 3
    assert 1 > similarities[0] >= similarities[1] >= similarities[2] > 0
    assert 0 < (caption.explanation.percentile or 0) < 1


@pytest.mark.shared_data
def test_the_index_recognises_training_captions_but_not_test_captions(captioner: Captioner) -> None:
    def captions(split: str) -> list[str]:
        names = set((SHARED_DATA / f"Flickr_8k.{split}Images.txt").read_text().split()[:100])
        lines = (SHARED_DATA / "Flickr8k.token.txt").read_text().splitlines()
        return [line.split("\t")[1] for line in lines if line.split("#")[0] in names]

    def share_known(texts: list[str]) -> float:
        features = torch.zeros(len(texts), 2048)
        return sum(e.verbatim for e in captioner.training_index.explain(features, texts)) / len(texts)

    assert share_known(captions("train")) == 1
    assert share_known(captions("test")) < 0.05
