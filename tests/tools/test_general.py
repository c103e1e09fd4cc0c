"""A smoke run of every step that makes a general model, on a few images."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from helpers.data import EXAMPLES
from imgcap.model.store import ENCODER_FILE

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
    examples = {file.stem: Image.open(file).convert("RGB") for file in sorted(EXAMPLES.glob("*.jpg"))}
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
            name = f"general-{stem}-{place}.jpg"
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
    run("tools/concepts.py", *layers, *sets, "--batch", 8)
    probed = json.loads(run("tools/probe_general.py", features, teachers, *sets, "--wordnet", places["wordnet"]))
    assert probed["general_images"] == 24

    training = (
        "tools/train_general.py",
        concepts,
        state,
        *sets,
        "--features",
        features,
        "--wordnet",
        places["wordnet"],
    )
    few = ("--score-every", 2, "--min-count", 1)
    run(*training, *few, "--steps", 2)
    assert "resumed at step 2" in run(*training, *few, "--steps", 3)
    scores = [json.loads(line) for line in (state / "curve.jsonl").read_text().splitlines()]
    assert [row["step"] for row in scores] == [0, 2, 3]

    distil = ("tools/distill_top.py", *layers, top, "--start", encoder_file, "--batch", 4)
    run(*distil, "--steps", 2, "--plain", 1)
    before, after = load_file(encoder_file), load_file(top / "trunk.safetensors")
    assert before["Mixed_6e.branch1x1.conv.weight"].equal(after["Mixed_6e.branch1x1.conv.weight"])
    assert not before["Mixed_7c.branch1x1.conv.weight"].equal(after["Mixed_7c.branch1x1.conv.weight"])
    assert np.load(top / "features" / "general" / "features.npy").shape == (24, 2048)

    model = tmp_path / "model"
    run("tools/assemble_general.py", state / "decoder.pt", model, "--encoder", encoder_file)
    assert (model / ENCODER_FILE).exists()
    dev = places["general"] / "dev"
    printed = run("benchmarks/general.py", dev, "--model", model, "--wordnet", places["wordnet"], "--show", 1)
    assert "COCO CIDEr-D" in json.loads(printed.splitlines()[-1])


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
