"""Images in Parquet files are listed without being read, and read a few rows at a time."""

from __future__ import annotations

import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers.archives import png
from helpers.parquet import IMAGE, image, pa, write_parquet
from imgcap.images import archived, parquet
from imgcap.images.archived import ArchivedFile
from imgcap.images.archives import find_image, images_in
from imgcap.images.discovery import Selection
from imgcap.images.errors import ImageError
from imgcap.images.locations import archive_locations, is_archive, is_parquet


def contents(count: int) -> list[bytes]:
    return [b"image %d " % i * (1 + i % 5) for i in range(count)]


def listed(file: Path, selection: Selection | None = None) -> list[ArchivedFile]:
    found = list(images_in(str(file), selection or Selection()))
    assert all(isinstance(each, ArchivedFile) for each in found), found
    return [each for each in found if isinstance(each, ArchivedFile)]


def refusal(file: Path | str) -> ImageError:
    [error] = images_in(str(file))
    assert isinstance(error, ImageError)
    return error


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["b.jpg", "a.jpg", "c"], ["b.jpg", "a.jpg", "c"]),
        (["x/b.jpg", "C:\\a.jpg", "/c.png"], ["b.jpg", "a.jpg", "c.png"]),
        (["a.jpg", "x/a.jpg", "b.jpg"], ["0", "1", "2"]),
        (["a.jpg", None, "b.jpg"], ["0", "1", "2"]),
        ([None, "", "x/"], ["0", "1", "2"]),
    ],
)
def test_images_are_named_by_their_file_names_if_these_differ(
    tmp_path: Path, paths: list[str | None], names: list[str]
) -> None:
    file = write_parquet(tmp_path / "a.parquet", {"image": [image(b"x", path) for path in paths]})
    found = listed(file)
    assert [each.member for each in found] == names
    assert [each.name for each in found] == [f"{file}/{name}" for name in names]
    assert [find_image(each.name, {str(file)}) for each in found] == found


def test_the_numbers_of_rows_have_equal_length(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", {"image": [image(b"x") for _ in range(10)]})
    assert [each.member for each in listed(file)] == [f"{i:02}" for i in range(10)]
    assert [each.member for each in listed(file, Selection(include=("*5",)))] == ["05"]


@pytest.mark.parametrize("group", [1, 7, 100])
@pytest.mark.parametrize("order", ["forwards", "backwards", "shuffled", "threads"])
def test_every_image_is_read_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int, order: str
) -> None:
    monkeypatch.setattr(parquet, "_MOST_ROWS", 4)
    monkeypatch.setattr(parquet, "_FEWEST_ROWS", 2)
    expected = contents(50)
    file = write_parquet(tmp_path / "a.parquet", {"image": [image(each) for each in expected]}, group=group)
    numbered = list(enumerate(listed(file)))
    if order == "backwards":
        numbered.reverse()
    elif order == "shuffled":
        random.Random(0).shuffle(numbered)
    with ThreadPoolExecutor(8 if order == "threads" else 1) as pool:
        read = dict(pool.map(lambda pair: (pair[0], pair[1].read()), numbered))
    assert [read[i] for i in range(50)] == expected


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_a_plain_column_of_bytes_with_a_known_name_has_images(tmp_path: Path, kind: object) -> None:
    file = write_parquet(tmp_path / "a.parquet", {"hash": [b"1"], "JPG": [b"2"]}, {"JPG": kind})
    assert [each.read() for each in listed(file)] == [b"2"]


def test_of_several_columns_the_known_name_counts(tmp_path: Path) -> None:
    columns = {"depth": [image(b"1")], "img": [image(b"2")], "image": [image(b"3")]}
    types = dict.fromkeys(columns, IMAGE)
    assert listed(write_parquet(tmp_path / "a.parquet", columns, types))[0].read() == b"3"
    columns = {"depth": [image(b"1")], "picture": [image(b"2")]}
    assert listed(write_parquet(tmp_path / "b.parquet", columns, types | {"picture": IMAGE}))[0].read() == b"1"


def test_a_row_without_an_image_is_one_sentence(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", {"image": [image(b"x"), image(None, "b.jpg"), None, image(b"")]})
    found = listed(file)
    assert found[0].read() == b"x"
    for each in found[1:]:
        with pytest.raises(ImageError) as caught:
            each.read()
        assert str(caught.value) == f"{file}/{each.member} has no image in its row."


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"caption": ["a"], "n": [1]}, "has no column of images; its columns: caption, n."),
        ({"image": ["a.jpg"]}, "has no images: its column 'image' has only their names."),
        ({"image": [image(None, "a.jpg")]}, "has no images: its column 'image' has only their names."),
        ({"hash": [b"a"]}, "has no column of images; its columns: hash."),
        ({"image": [[image(b"a")]]}, "has no column of images; its columns: image."),
    ],
)
def test_a_file_without_images_is_one_sentence(tmp_path: Path, columns: dict[str, list[object]], sentence: str) -> None:
    plain = not isinstance(columns.get("image", [""])[0], dict)
    file = write_parquet(tmp_path / "a.parquet", columns, {"image": None} if plain else None)
    assert str(refusal(file)).split("\n")[0] == f"{file} {sentence}"


def test_files_that_cannot_be_read_are_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    assert str(refusal(file)) == f"The archive {file} does not exist."
    for content in (b"", b"no parquet", b"PAR1" * 100):
        file.write_bytes(content)
        assert str(refusal(file)) == f"{file} is not a Parquet file, or is damaged."
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert refusal(file).hint == "It is a pointer of Git LFS; fetch the file itself: git lfs pull"
    write_parquet(file, {"image": [image(content) for content in contents(50)]})
    whole = listed(file)
    write_parquet(file, {"image": [image(b"other")]})
    parquet._reader.cache_clear()
    archived.opened.cache_clear()
    with pytest.raises(ImageError, match="has changed since it was listed"):
        whole[0].read()


def test_damage_is_one_sentence(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", {"image": [image(random.Random(0).randbytes(999)) for _ in range(9)]})
    whole = bytearray(file.read_bytes())
    for seed in range(100):
        damaged, place = bytearray(whole), random.Random(seed)
        for _ in range(8):
            damaged[place.randrange(len(damaged))] = place.randrange(256)
        (tmp_path / f"{seed}.parquet").write_bytes(damaged)
        for found in images_in(str(tmp_path / f"{seed}.parquet")):
            try:
                if isinstance(found, ArchivedFile):
                    found.read()
            except ImageError as error:
                assert "\n" not in str(error)


def test_without_pyarrow_the_sentence_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_parquet(tmp_path / "a.parquet", {"image": [image(b"x")]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    error = refusal(file)
    assert (str(error), error.hint) == (
        f"{file} needs pyarrow, which is missing.",
        "pip install 'imgcap-cli[parquet]'",
    )


def test_inputs_that_name_parquet_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "data/README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert is_archive("data")
    assert is_archive("x.PARQUET")
    assert is_parquet("https://host/a.parquet?token=1")
    assert [Path(each).name for each in archive_locations("data")] == [
        "train-00000-of-00002.parquet",
        "train-00001-of-00002.parquet",
    ]


def test_a_url_is_read_as_a_file_is(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec", reason="needs fsspec")
    file = write_parquet(tmp_path / "a.parquet", {"image": [image(png(), "a.png"), image(png("blue"), "b.png")]})
    system = fsspec.filesystem("memory")
    system.pipe("/walls/data/a.parquet", file.read_bytes())
    try:
        locations = archive_locations("memory://walls/")
        assert locations == ["memory://walls/data/a.parquet"]
        found = list(images_in(locations[0]))
        assert [each.read() for each in found if isinstance(each, ArchivedFile)] == [png(), png("blue")]
    finally:
        system.rm("/walls", recursive=True)


def test_hugging_face_needs_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    [location] = archive_locations("hf://datasets/somebody/walls")
    assert location == "hf://datasets/somebody/walls/**/*.parquet"
    error = refusal(location)
    assert (str(error), error.hint) == (
        f"{location} needs a package that is missing: huggingface_hub.",
        "pip install huggingface_hub",
    )


MEMORY = """
import resource, sys
from imgcap.images.archives import images_in
import pyarrow.parquet
used = []
for number, image in enumerate(images_in(sys.argv[1])):
    image.read()
    if number in (100, 900):
        used.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(used[1] - used[0])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="this system does not measure the memory of a process")
def test_a_large_group_of_rows_is_not_held_in_memory(tmp_path: Path) -> None:
    images = [image(random.Random(i).randbytes(100_000)) for i in range(1000)]
    file = write_parquet(tmp_path / "a.parquet", {"image": images}, group=1000)
    done = subprocess.run([sys.executable, "-c", MEMORY, file], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 50_000  # KiB; the file has 100,000
