"""The way of 8-bit integers on any processor: calibrate an encoder, then compare captions and layers with float32."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from helpers.data import EXAMPLES
from imgcap.model.encoder import fingerprint, read_encoder
from imgcap.model.quantization import from_tensors, is_supported
from imgcap.model.store import ENCODER_FILE

ROOT = Path(__file__).parents[2]


def run(program: str, *arguments: object) -> str:
    command = [sys.executable, str(ROOT / program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_calibrated_model_computes_in_integers(telling_model: Path, tmp_path: Path) -> None:
    model = shutil.copytree(telling_model, tmp_path / "model")
    before = fingerprint(model / ENCODER_FILE)
    images, captions = EXAMPLES, tmp_path / "captions.csv"  # photographs: flat images have their peaks everywhere
    names = [file.name for file in sorted(images.glob("*.jpg"))]
    captions.write_text("image,caption\n" + "".join(f"{name},a thing\n" for name in names))
    printed = run("tools/calibrate_int8.py", model, images, "--count", 8)
    assert printed.endswith("integers from 6 images\n")
    assert len(from_tensors(read_encoder(model / ENCODER_FILE)[0])) == 94
    assert fingerprint(model / ENCODER_FILE) == before

    (tmp_path / "list.txt").write_text("".join(f"{name}\n" for name in names[:4]))
    some = ("--set", images, captions, tmp_path / "list.txt", "--set", images, captions)
    found = json.loads(run("benchmarks/int8_captions.py", *some, "--model", model, "--images", 9).splitlines()[-1])
    assert found["simulated"] == (not is_supported())
    row = found[str(captions)]["int8"]
    # At 75 pixels, a larger share of the positions reaches the peaks that large maps cut than at 299.
    assert 0 < row["median error of the features"] < 0.1
    assert ("images/s" in row) == is_supported()
    rows = run("benchmarks/int8_layers.py", *sorted(images.glob("*.jpg")), "--model", model, "--together")
    assert [line.split(" | ")[:2] for line in rows.splitlines()[-5:]] == [
        ["| all", "100.0%"],
        ["| as int8 computes", "98.4%"],
        ["| its weights", "98.4%"],
        ["| its weights, biases not corrected", "98.4%"],
        ["| its inputs", "98.4%"],
    ]
