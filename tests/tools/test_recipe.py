"""All phases that make the default model, on a few images, by the commands of docs/default-model.md."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from helpers.data import EXAMPLES, Run
from imgcap.files import read_json
from imgcap.model.store import DECODER_FILE, ENCODER_FILE

TOOLS = Path(__file__).parents[2] / "tools"
SPLITS = {"train": 8, "val": 2, "test": 2}


@pytest.fixture
def flickr(tmp_path: Path) -> Path:
    """Twelve crops of four example images, laid out like Flickr8k: token file, split lists, `images`."""
    from PIL import Image

    folder = tmp_path / "flickr"
    (folder / "images").mkdir(parents=True)
    lines, names = [], []
    for file in sorted(EXAMPLES.glob("*.jpg"))[:4]:
        with Image.open(file) as image:
            for place in range(3):
                names.append(f"{file.stem}{place}.jpg")
                image.crop((place * 20, 0, place * 20 + 160, 160)).save(folder / "images" / names[-1])
                lines += [f"{names[-1]}#{i}\tA {file.stem} in part {place} ." for i in range(5)]
    (folder / "tokens.txt").write_text("\n".join(lines) + "\n")
    names = names[::3] + names[1::3] + names[2::3]  # each subject in the training split
    for split, count in SPLITS.items():
        (folder / f"{split}.txt").write_text("\n".join(names[:count]) + "\n")
        del names[:count]
    return folder


def distil(flickr: Path, start: Path, state: Path, *phases: str) -> str:
    arguments = {
        "--images": flickr / "images",
        "--train-list": flickr / "train.txt",
        "--captions": flickr / "tokens.txt",
        "--start": start,
        "--state": state,
        "--batch": 4,
    }
    command = [sys.executable, str(TOOLS / "distill.py"), *(str(part) for item in arguments.items() for part in item)]
    done = subprocess.run([*command, "--phases", *phases], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_distil_train_fine_tune_and_self_critical(
    flickr: Path, encoder_file: Path, tmp_path: Path, imgcap: Run
) -> None:
    state = tmp_path / "distil"
    distil(flickr, encoder_file, state, "96:2:stem-frozen", "128:1")
    trunk = state / "trunk.safetensors"
    before, after = load_file(encoder_file), load_file(trunk)
    assert before.keys() == after.keys()
    assert not before["Mixed_7c.branch1x1.conv.weight"].equal(after["Mixed_7c.branch1x1.conv.weight"])
    first = trunk.read_bytes()
    trunk.unlink()
    assert "resumed at step 3" in distil(flickr, encoder_file, state, "96:2:stem-frozen", "128:1")
    assert trunk.read_bytes() == first

    def run(*arguments: object, expected: int = 0) -> None:
        done = imgcap(*arguments)
        assert done.returncode == expected, done.stderr

    def prepare(encoder: Path, out: Path) -> Path:
        splits = [f"--split={split}={flickr / split}.txt" for split in SPLITS]
        files = ["--images", flickr / "images", "--captions", flickr / "tokens.txt", "--format", "flickr8k"]
        run("prepare", *files, *splits, "--encoder", encoder, "--mirrored", "-o", out)
        return out

    small = ["--epochs", 1, "--batch-size", 4]
    prepared = prepare(trunk, tmp_path / "prepared")
    words, tuned, best = tmp_path / "words", tmp_path / "tuned", tmp_path / "best"
    sizes = ["--embedding-size", 16, "--hidden-size", 16, "--min-count", 1]
    run("train", prepared, "-o", words, *small, *sizes, "--word-dropout", 0.1, "--average", 0.9)
    run("train", prepared, "-o", tuned, *small, "--fine-tune-encoder", "--start-from", words)
    assert not load_file(tuned / ENCODER_FILE)["Mixed_7c.branch1x1.conv.weight"].equal(
        load_file(words / ENCODER_FILE)["Mixed_7c.branch1x1.conv.weight"].float()
    )
    again = prepare(tuned, tmp_path / "prepared-again")
    run("train", again, "-o", best, *small, "--self-critical", "--samples", 3, "--start-from", tuned)
    assert not load_file(best / DECODER_FILE)["output.weight"].equal(load_file(tuned / DECODER_FILE)["output.weight"])
    assert read_json(best / "config.json")["training"]["options"]["self_critical"] is True

    shutil.rmtree(prepared)
    scored = imgcap("eval", again, "--model", best, "--json")
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["images"] == SPLITS["test"]
    assert imgcap("caption", EXAMPLES / "cat.jpg", "--model", best).returncode == 0
