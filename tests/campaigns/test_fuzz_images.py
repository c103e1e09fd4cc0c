"""The fuzzer makes the same files from the same seed, detects each kind of harm, and finds none in a short run."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from imgcap.images.decoding import load_pixels

TOOL = Path(__file__).parents[2] / "tools" / "fuzz_images.py"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and forks")


@pytest.fixture(scope="module")
def hostile() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOL.parent)
        return importlib.import_module("hostile_images")


@pytest.fixture(scope="module")
def bombs() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(TOOL.parent)
        return importlib.import_module("image_bombs")


@pytest.fixture(scope="module")
def samples(hostile: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "samples"
    hostile.write_samples(folder)
    return folder


def test_every_format_has_samples_that_can_be_decoded(samples: Path) -> None:
    good = [file for file in samples.iterdir() if not file.name.startswith("zoo")]
    assert {".jpg", ".png", ".webp", ".gif", ".bmp", ".tif"} <= {file.suffix for file in good}
    assert [file.name for file in good if isinstance(load_pixels(file, 8), Exception)] == []


def test_a_seed_and_a_number_are_one_file(hostile: Any, samples: Path) -> None:
    first, again, other = (hostile.Mutator(samples, seed) for seed in (0, 0, 1))
    files = [first.file(number) for number in range(100)]
    assert [again.file(number) for number in reversed(range(100))] == files[::-1]
    assert sum(other.file(number) == files[number] for number in range(100)) < 5
    assert len({content for _, content in files}) > 90
    assert [(name, make()) for name, make in first.files(range(5, 9))] == files[5:9]


def test_checksums_are_repaired_whatever_a_chunk_holds(hostile: Any, bombs: Any) -> None:
    png = bytearray(bombs.png((4, 4), 8, 2, 52, [(b"tEXt", b"k\0value")]))
    place = png.index(b"value")
    png[place] ^= 255
    hostile.repair_checksums(png)
    start, stop = next(span for span in hostile.segments(png) if span[0] < place < span[1])
    assert int.from_bytes(png[stop - 4 : stop], "big") == zlib.crc32(png[start + 4 : stop - 4])


HARMS = """
import json, os, sys, warnings
from pathlib import Path
import fuzz_images as fuzz

def crash(): os.abort()
def fail(): raise KeyError("odd")
def loop():
    while True: pass
def grow(): return sum(bytearray(b"x" * 200_000_000)[::4096])
def speak(): os.write(2, b"libtiff: odd")
def warn(): warnings.warn("odd")

def load(file):
    if file.name in globals():
        globals()[file.name]()

names = ["first", "crash", "fail", "loop", "grow", "speak", "warn", "last"]
report = fuzz.Report()
fuzz.decode([[(name, name.encode) for name in names]], fuzz.Limits(5, 150), Path("out"), report, load=load)
print(json.dumps([report.decoded, [(Path(file).name, kind) for file, kind, _ in report.findings]]))
"""
"""A program that decodes files whose names say which harm they do; in a process of its own, because it forks."""


@pytest.mark.slow
def test_each_harm_is_found_and_kept_and_the_rest_is_decoded(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(TOOL.parent)}
    command = [sys.executable, "-c", HARMS]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    decoded, findings = json.loads(done.stdout.splitlines()[-1])
    assert findings == [
        ["crash", "crash"],
        ["fail", "crash"],
        ["loop", "hang"],
        ["grow", "memory"],
        ["speak", "noise"],
        ["warn", "noise"],
    ]
    assert decoded == 6  # two processes have died
    kept = {file.name: file.read_text() for file in (tmp_path / "out").iterdir()}
    assert kept == {name: name for name, _ in findings}


@pytest.mark.slow
def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    command = [sys.executable, TOOL, "--files", "60", "--no-bombs", "--in-folder", "0", "--out", tmp_path / "out"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "seed 0" in done.stdout
    assert "60 decoded or refused" in done.stdout
    assert "findings: none" in done.stdout
    assert not (tmp_path / "out").exists()
