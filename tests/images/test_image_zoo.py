"""Every kind of image decodes to its colour, and every kind of damage is one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from time import process_time

import numpy as np
import pytest

from helpers.image_zoo import Bad, Good, build_zoo
from imgcap.images.decoding import Pixels, load_batches, open_image
from imgcap.images.discovery import expand
from imgcap.images.errors import ImageError

Zoo = tuple[Path, dict[str, Good], dict[str, Bad]]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    folder = tmp_path_factory.mktemp("zoo")
    return folder, *build_zoo(folder)


def test_the_zoo_is_large(zoo: Zoo) -> None:
    _, good, bad = zoo
    assert len(good) >= 80
    assert len(bad) >= 40
    assert {expected.kind for expected in bad.values()} >= {
        "missing", "unreadable", "not an image", "unsupported", "damaged", "too large",
    }  # fmt: skip


def test_every_good_image_has_its_size_and_colour(zoo: Zoo) -> None:
    folder, good, _ = zoo
    for name, expected in good.items():
        image = open_image(folder / name)
        assert (image.mode, image.size) == ("RGB", expected.size), name
        wrong = np.abs(np.asarray(image).astype(int) - expected.colour).max()
        assert wrong <= expected.tolerance, (name, image.getpixel((0, 0)))


def test_every_bad_file_is_one_sentence_of_its_kind_and_takes_no_time(zoo: Zoo) -> None:
    folder, _, bad = zoo
    for name, expected in bad.items():
        started = process_time()
        with pytest.raises(ImageError) as caught:
            open_image(folder / name)
        assert process_time() - started < 1, name
        message = str(caught.value)
        assert caught.value.kind == expected.kind, (name, message)
        assert caught.value.path == str(folder / name)
        assert message.startswith(f"{folder}{os.sep}{name[:3]}")
        assert message.endswith(".")
        assert message.isprintable()


def test_a_search_finds_files_with_the_ending_of_an_image(zoo: Zoo) -> None:
    folder, good, bad = zoo
    found = list(expand([folder]))
    names = [path.relative_to(folder).as_posix() for path in found if isinstance(path, Path)]
    assert len(names) == len(found)
    files: list[tuple[str, Good | Bad]] = [*good.items(), *bad.items()]
    expected = [name for name, file in files if file.found]
    assert sorted(names) == sorted(expected)


def test_a_run_over_everything_reaches_the_end(zoo: Zoo) -> None:
    folder, good, bad = zoo
    sources = list(expand(folder / name for name in [*good, *bad]))
    results: list[Pixels | ImageError] = [item for batch in load_batches(sources, 8, 7) for item in batch]
    assert len(results) == len(sources)
    kinds = Counter(item.kind for item in results if isinstance(item, ImageError))
    assert kinds["empty folder"] == 2  # a-folder.jpg and empty
    assert kinds["damaged"] == Counter(expected.kind for expected in bad.values())["damaged"]
    assert sum(not isinstance(item, ImageError) for item in results) == len(good)


def test_nothing_reaches_stderr(zoo: Zoo) -> None:
    folder, good, bad = zoo
    program = f"""
import sys
from pathlib import Path
from imgcap.images.decoding import load_batches
for batch in load_batches([Path({str(folder)!r}, name) for name in {[*good, *bad]!r}], 8): pass
"""
    done = subprocess.run([sys.executable, "-W", "always", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr == ""
