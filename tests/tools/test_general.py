"""A smoke run of every step that makes a general model, on a few images."""

from __future__ import annotations

import argparse
import gzip
import json
import math
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path
from typing import IO, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from helpers.data import EXAMPLES
from imgcap.model.store import ENCODER_FILE
from imgcap.text.vocabulary import END, SPECIAL_WORDS, Vocabulary

ROOT = Path(__file__).parents[2]
WORDNET = (
    "00015388 05 n 02 animal 0 beast 0 000 | a living organism\n"
    "02121620 05 n 02 cat 0 true_cat 0 001 @ 00015388 n 0000 | feline mammal\n"
    "02123045 05 n 02 tabby 0 tabby_cat 0 001 @ 02121620 n 0000 | a cat with a grey coat\n"
    "00002684 05 n 01 object 0 000 | a tangible entity\n"
    "03063073 05 n 01 coffee_cup 0 001 @ 00002684 n 0000 | a cup\n"
)


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """Small folders with the layout of Flickr8k, the general set and WordNet."""
    from PIL import Image

    flickr8k, general, wordnet = tmp_path / "flickr8k", tmp_path / "general", tmp_path / "wordnet"
    for folder in (flickr8k / "images", general / "images", general / "dev" / "naming", general / "dev" / "coco"):
        folder.mkdir(parents=True)
    wordnet.mkdir()
    (wordnet / "data.noun").write_text("  1 a line of the licence\n" + WORDNET)
    stems = ("astronaut", "cat", "coffee", "rocket")
    examples = {stem: Image.open(EXAMPLES / f"{stem}.jpg").convert("RGB") for stem in stems}
    captions: list[str] = []
    splits: dict[str, list[str]] = {"train": [], "dev": []}
    for stem, image in examples.items():
        for place in range(4):
            name = f"{stem}{place}.jpg"
            image.crop((place * 20, 0, place * 20 + 160, 160)).save(flickr8k / "images" / name)
            captions += [f"{name}#{i}\tA {stem} on the black table ." for i in range(5)]
            splits["dev" if place == 3 else "train"].append(name)
    (flickr8k / "Flickr8k.token.txt").write_text("\n".join(captions) + "\n")
    for split, names in splits.items():
        (flickr8k / f"Flickr_8k.{split}Images.txt").write_text("\n".join(names) + "\n")
    rows = []
    for place in range(6):
        for stem, image in examples.items():
            name = f"caltech-{stem}-{place}.jpg"
            image.crop((0, place * 10, 160, place * 10 + 160)).save(general / "images" / name)
            rows.append({"image": name, "source": "caltech", "label": "cup" if stem == "coffee" else stem})
    (general / "images.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with gzip.open(general / "captions_without_images.tsv.gz", "wt") as file:
        file.writelines(f"coco\tA cat sleeps beside the cup number {i % 7} .\n" for i in range(20))
        file.writelines(f"flickr30k\tA rocket flies over {i} people .\n" for i in range(5))
    (general / "imagenet_words.tsv").write_text("281\t02123045\ttabby\tcat\n")
    examples["cat"].save(general / "dev" / "naming" / "n02123045_tabby.jpg")
    examples["coffee"].save(general / "dev" / "naming" / "n03063073_coffee_cup.jpg")
    examples["rocket"].save(general / "dev" / "coco" / "rocket.jpg")
    captions_of = {"image": "rocket.jpg", "captions": ["A rocket stands on the ground.", "A white rocket."]}
    (general / "dev" / "coco.jsonl").write_text(json.dumps(captions_of) + "\n")
    return {"flickr8k": flickr8k, "general": general, "wordnet": wordnet}


def run(script: str, *arguments: object) -> str:
    command = [sys.executable, str(ROOT / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_teachers_concepts_decoder_and_top_of_the_trunk(
    places: dict[str, Path], encoder_file: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino", reason="OpenVINO, which runs the teachers, is not installed")
    features, teachers = tmp_path / "features", tmp_path / "teachers"
    concepts, state, top = tmp_path / "concepts.pt", tmp_path / "decoder", tmp_path / "top"
    sets = ("--flickr8k", places["flickr8k"], "--general", places["general"])
    run("tools/encode_sets.py", "teachers", teachers, *sets)
    run("tools/encode_sets.py", "trunk", features, *sets, "--encoder", encoder_file)
    assert np.load(features / "general" / "features.npy").shape == (24, 2048)
    assert np.load(teachers / "general" / "logits.npy").shape == (24, 3, 1000)
    assert not (features / "dev-naming" / "maps.npy").exists()

    layers = (features, teachers, concepts)
    run("tools/concepts.py", *layers, *sets, "--batch", 8, "--epochs", 2)
    probed = json.loads(run("tools/probe_general.py", features, teachers, *sets, "--wordnet", places["wordnet"]))
    assert probed["general_images"] == 24

    few = ("--features", features, "--wordnet", places["wordnet"], "--score-every", 2, "--min-count", 1)
    training = ("tools/train_general.py", concepts, state, *sets, *few)
    run(*training, "--steps", 2)
    assert "resumed at step 2" in run(*training, "--steps", 3)
    assert scored_steps(state) == [0, 2, 3]

    reinforced = tmp_path / "reinforced"
    start = ("--start-from", state / "decoder.pt", "--images", 3, 2, "--mix", 0.4)
    reinforcement = ("tools/reinforce_general.py", concepts, reinforced, *sets, *few, *start)
    run(*reinforcement, "--steps", 1)
    assert "resumed at step 1" in run(*reinforcement, "--steps", 2)
    assert scored_steps(reinforced) == [0, 1, 2] and (reinforced / "best.pt").exists()

    distil = ("tools/distill_top.py", *layers, top, "--start", encoder_file, "--batch", 4)
    run(*distil, "--steps", 2, "--plain", 1, "--heads-only", 1, "--reset", "Mixed_7c.branch3x3dbl")
    shares = run("tools/frames.py", *sorted((places["general"] / "images").iterdir()), "--trunk", encoder_file)
    assert len(shares.splitlines()) == 94 and shares.startswith("Conv2d_1a_3x3")
    before, after = load_file(encoder_file), load_file(top / "trunk.safetensors")
    assert before["Mixed_6e.branch1x1.conv.weight"].equal(after["Mixed_6e.branch1x1.conv.weight"])
    assert not before["Mixed_7c.branch1x1.conv.weight"].equal(after["Mixed_7c.branch1x1.conv.weight"])
    plain, mirrored = (np.load(top / "features" / "general" / f"{array}.npy") for array in ("features", "mirrored"))
    assert plain.shape == mirrored.shape == (24, 2048) and (plain != mirrored).any()

    refitted = tmp_path / "refitted.pt"
    printed = run("tools/refit_image_layer.py", reinforced / "decoder.pt", features, top / "features", refitted)
    assert printed.startswith("36 images")
    again = tmp_path / "again"
    dev_sets = ("--sets", "dev-naming", "dev-coco", "flickr8k-dev")
    run("tools/encode_sets.py", "trunk", top / "features", *sets, "--encoder", top / "trunk.safetensors", *dev_sets)
    on_top = (*sets, "--features", top / "features", *few[2:], "--start-from", refitted)
    assert "2 views of" in run("tools/train_general.py", concepts, again, *on_top, "--steps", 1)
    assert scored_steps(again) == [0, 1]

    model = tmp_path / "model"
    run("tools/assemble_general.py", reinforced / "decoder.pt", model, "--encoder", encoder_file)
    assert (model / ENCODER_FILE).exists()
    run("tools/refit_image_layer.py", model, features, top / "features", tmp_path / "from_model.pt")
    of_file, of_model = (torch.load(file, weights_only=True) for file in (refitted, tmp_path / "from_model.pt"))
    assert of_model["vocabulary"] == of_file["vocabulary"]
    assert of_model["decoder"]["image.weight"].equal(of_file["decoder"]["image.weight"])
    dev = places["general"] / "dev"
    printed = run("benchmarks/general.py", dev, "--model", model, "--wordnet", places["wordnet"], "--show", 1)
    assert "COCO CIDEr-D" in json.loads(printed.splitlines()[-1])


def scored_steps(state: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (state / "curve.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("decoder", ["nowhere", "nowhere.pt"])
def test_refitting_a_decoder_that_is_not_there_is_one_sentence(decoder: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "tools/refit_image_layer.py"), decoder, "old", "new", "out.pt"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 2
    assert decoder in done.stderr.splitlines()[-1]


def test_the_data_set_for_packaging_has_every_image_with_its_split(places: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "all.jsonl"
    (places["flickr8k"] / "Flickr_8k.testImages.txt").write_text("cat0.jpg\n")
    root = run("tools/general_data_set.py", out, "--flickr8k", places["flickr8k"], "--general", places["general"])
    assert Path(root.strip()) == tmp_path.resolve()
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert Counter(row["split"] for row in rows) == {"train": 12 + 24, "val": 4 + 1, "test": 1}
    assert all((tmp_path / row["image"]).exists() and row["captions"] for row in rows)
    general = [caption for row in rows if row["image"].startswith("general/images/") for caption in row["captions"]]
    assert "A cat sleeps beside the cup number 0 ." in general


def test_a_caption_names_a_subject_by_its_class_or_a_hypernym(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from naming import Naming

    naming = Naming(places["wordnet"])
    tabby, cup = "n02123045_tabby.jpg", "n03063073_cup.jpg"
    assert all(naming.names_subject(tabby, text) for text in ("two kittens asleep", "An animal.", "a tabby"))
    assert not naming.names_subject(tabby, "a man with a catalogue")
    assert naming.names_subject(cup, "cups of tea") and not naming.names_subject(cup, "an object")


def test_the_reward_prefers_what_the_image_shows_in_usual_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import concept_words
    from caption_rewards import ConceptReward

    vocabulary = Vocabulary((*SPECIAL_WORDS, "a", "cat", "animal", "dog", "sleeps"))
    concepts = concept_words.Concepts(["cat", "animal", "dog"], concept_words.Lemmas(Counter()))
    targets = torch.tensor([[0.6, 0.9, 0.1]])
    captions = [vocabulary.encode(f"a {word} sleeps".split()) for word in ("cat", "animal", "dog") * 2]
    reward = ConceptReward(concepts, vocabulary, torch.tensor([1.0, 0.3, 1.0]), captions)

    def of(text: str) -> float:
        return float(reward(torch.tensor([[*vocabulary.encode(text.split()), END]]), targets))

    assert of("a cat sleeps") == pytest.approx(0.6 - 0.15 + 3 * 0.6)
    assert of("a animal sleeps") == pytest.approx(0.9 - 0.15 + 3 * 0.27)
    assert of("a dog sleeps") == pytest.approx(0.1 - 0.15 + 3 * 0.1)
    assert of("a cat a") == pytest.approx(0.6 - 0.15 + 3 * 0.6 - 2 / 3)  # two of its three triples are in no caption


def test_mixtures_keep_the_variance_and_most_of_each_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from train_general import Run, mixed

    torch.manual_seed(0)
    run = Run.__new__(Run)
    run.args = argparse.Namespace(mix=0.4)
    shares = run.shares(200)
    torch.testing.assert_close(shares.sum(1), torch.ones(200))
    assert 0.6 <= float(shares.diag().min()) < 0.65
    assert float(((shares > 0).sum(1) == 2).float().mean()) > 0.9
    features = torch.randn(200, 500)
    made = mixed(features, shares)
    assert float(made.std()) == pytest.approx(1, abs=0.02)
    assert not made.equal(features)
    run.args.mix = 0.0
    assert mixed(features, run.shares(200)).equal(features)


def test_the_least_specificity_spreads_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from concepts import at_least

    specificity = torch.tensor([0.0, 0.05, 0.525, 1.0])
    torch.testing.assert_close(at_least(0.05, specificity), specificity)
    torch.testing.assert_close(at_least(0.2, specificity), torch.tensor([0.0, 0.2, 0.6, 1.0]))


def test_the_training_images_are_packed_into_tars(places: dict[str, Path], tmp_path: Path) -> None:
    from PIL import Image

    (places["general"] / "images" / "caltech-cat-0.jpg").write_bytes(b"not an image")
    out, sets = tmp_path / "packs", ("--flickr8k", places["flickr8k"], "--general", places["general"])
    command = [sys.executable, ROOT / "tools" / "pack_images.py", out, *sets, "--size", 48]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr == f"{places['general']}/images/caltech-cat-0.jpg is not an image that can be read.\n"
    assert done.stdout.splitlines()[-1].startswith("35 images, ")
    with tarfile.open(out / "images-1.tar") as tar:
        names = tar.getnames()
        for name in names:
            with Image.open(cast(IO[bytes], tar.extractfile(name))) as image:
                assert (image.format, image.size) == ("WEBP", (48, 48))
    assert (out / "images.txt").read_text().split() == names
    assert len(names) == 12 + 23 and "cat0.webp" in names and "cat3.webp" not in names  # cat3 is of the dev split


def test_no_pack_is_larger_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import pack_images

    images = [(f"{number}.webp", bytes(400 * number)) for number in range(40)]
    packs = list(pack_images.packs(images, 40_960))
    assert [image for pack in packs for image in pack] == images
    sizes = []
    for pack in packs:
        pack_images.write_tar(tmp_path / "pack.tar", pack)
        sizes.append((tmp_path / "pack.tar").stat().st_size)
    assert len(sizes) > 5 and 30_000 < max(sizes) <= 40_960


def test_the_bleu_of_a_caption_counts_n_grams_and_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    from caption_rewards import BleuReward

    vocabulary = Vocabulary((*SPECIAL_WORDS, "a", "cat", "sleeps", "here"))
    reward = BleuReward([[["a", "cat", "sleeps", "here"]], [["a"]]], vocabulary)

    def of(text: str, image: int = 0) -> float:
        return float(reward(torch.tensor([[*vocabulary.encode(text.split()), END]]), [image]))

    assert of("a cat sleeps here") == pytest.approx(1)
    assert of("a cat here sleeps") == pytest.approx((1 * 2 / 4 * 1 / 3 * 1 / 2) ** 0.25)
    assert of("a cat") == pytest.approx(math.exp(1 - 4 / 2))  # its n-grams match; it is half as long
    assert of("here", image=1) == 0
