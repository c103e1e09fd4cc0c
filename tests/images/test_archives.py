"""Images in tar archives: what is listed, what hostile archives come to, and the same results as from a folder."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.data import Run, draw, write_data_set
from helpers.tars import write_shards, write_tar
from imgcap.dataset.prepared import PreparedFolder
from imgcap.dataset.readers import SPLITS, Dataset, Record, read_dataset
from imgcap.errors import ExitCode, ImgcapError, UsageError
from imgcap.images import archives
from imgcap.images.archives import ArchivedFile, expand_braces, find_image, images_in, is_archive
from imgcap.images.decoding import open_image
from imgcap.images.discovery import Selection
from imgcap.images.errors import ImageError


def png(colour: str = "red", number: int = 0) -> bytes:
    content = io.BytesIO()
    draw(colour, number).save(content, "PNG")
    return content.getvalue()


def header(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def listed(file: Path, selection: Selection | None = None) -> list[str]:
    """Members that can be read, and the kinds of errors."""
    found = images_in(str(file), selection or Selection())
    return [each.member if isinstance(each, ArchivedFile) else each.kind for each in found]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a.tar", ["a.tar"]),
        ("{0..2}.tar", ["0.tar", "1.tar", "2.tar"]),
        ("s/{098..101}.tar", ["s/098.tar", "s/099.tar", "s/100.tar", "s/101.tar"]),
        ("{0..0}{3..1}.tar", ["03.tar", "02.tar", "01.tar"]),
        ("{08..10}", ["08", "09", "10"]),
        ("{8..010}", ["008", "009", "010"]),
        ("{train,val}-{0..1}.tar", ["train-0.tar", "train-1.tar", "val-0.tar", "val-1.tar"]),
        ("s3://b/{a,}.tar", ["s3://b/a.tar", "s3://b/.tar"]),
        ("{a}.tar", ["{a}.tar"]),
        ("{1..x}.tar", ["{1..x}.tar"]),
        ("{0..", ["{0.."]),
        ("", [""]),
    ],
)
def test_braces(pattern: str, expected: list[str]) -> None:
    assert expand_braces(pattern) == expected


@pytest.mark.parametrize("pattern", ["{0..999999999999}.tar", "{0..9999}{0..9999}.tar"])
def test_a_pattern_of_too_many_archives_is_refused_before_they_are_listed(pattern: str) -> None:
    with pytest.raises(UsageError, match="1,000,000"):
        expand_braces(pattern)


def test_what_counts_as_an_archive(tmp_path: Path) -> None:
    (tmp_path / "folder.tar").mkdir()
    assert not is_archive(str(tmp_path / "folder.tar"))
    assert not is_archive("a.jpg")
    assert all(map(is_archive, ("a.tar", "A.TAR", "a.tar.gz", "s3://bucket/a", "{0..9}.tar")))


def test_members_are_listed_in_their_order_and_read_in_place(tmp_path: Path) -> None:
    long = "x" * 300 + ".png"
    file = write_tar(
        tmp_path / "a.tar",
        [
            ("b.png", png()),
            ("b.txt", b"A wall"),
            (header("d", tarfile.DIRTYPE), b""),
            ("./d/a.PNG", png("blue")),
            (".hidden/a.png", b""),
            ("./._a.png", b""),
            (long, b"5"),
            ("d/grüße.jpg", b"6"),
        ],
    )
    assert listed(file) == ["b.png", "d/a.PNG", long, "d/grüße.jpg"]
    assert listed(file, Selection(recursive=False)) == ["b.png", long]
    assert listed(file, Selection(include=("*.png",), exclude=("x*",))) == ["b.png", "d/a.PNG"]
    assert listed(file, Selection(exclude=("d/",))) == ["b.png", long]
    assert listed(file, Selection(include=("*.gif",))) == ["empty folder"]
    images = [each for each in images_in(str(file)) if isinstance(each, ArchivedFile)]
    assert images[0].name == f"{file}/b.png"
    with ThreadPoolExecutor(4) as pool:
        contents = list(pool.map(ArchivedFile.read, images * 50))
    assert contents == [png(), png("blue"), b"5", b"6"] * 50
    assert open_image(images[1]).tobytes() == draw("blue", 0).tobytes()
    assert find_image(f"{file}/d/a.PNG", {str(file)}) == images[1]
    for name in (f"{file}/gone.png", f"{tmp_path}/other.tar/b.png"):
        with pytest.raises(ImageError, match="does not exist"):
            find_image(name, {str(file)})


def test_pax_archives_and_names_that_are_no_utf_8(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "pax.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("ü" * 200 + ".jpg", "b.jpg"):
            tar.addfile(header(name, size=1), io.BytesIO(b"1"))
    assert listed(tmp_path / "pax.tar") == ["ü" * 200 + ".jpg", "b.jpg"]
    file = write_tar(tmp_path / "a.tar", [(os.fsdecode(b"\xff.jpg"), b"1")])
    assert listed(file) == [os.fsdecode(b"\xff.jpg")]


def test_hostile_members_are_one_error_each_and_nothing_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    file = write_tar(
        folder / "a.tar",
        [
            ("good.png", png()),
            ("../up.png", png()),
            ("/etc/absolute.png", png()),
            ("a/../../b.png", png()),
            (header("link.png", tarfile.SYMTYPE, linkname="/etc/passwd"), b""),
            (header("hard.png", tarfile.LNKTYPE, linkname="good.png"), b""),
            (header("pipe.png", tarfile.FIFOTYPE), b""),
            (header("device.png", tarfile.CHRTYPE), b""),
            (header("link.txt", tarfile.SYMTYPE, linkname="/etc/passwd"), b""),
            ("good.png", png("blue")),
            ("last.png", png()),
        ],
    )
    assert listed(file) == ["good.png", *["unsupported"] * 3, *["not an image"] * 4, "unsupported", "last.png"]
    assert all("\n" not in str(each) for each in images_in(str(file)))
    assert [path.name for path in tmp_path.rglob("*")] == ["here", "a.tar"]


def sparse(file: Path) -> None:
    write_tar(file, [(header("a.png", tarfile.GNUTYPE_SPARSE, size=1), b"1"), ("b.png", b"1")])


def gigantic(file: Path) -> None:
    """The size is a lie, in the number format of large files."""
    write_tar(file, [("a.png", b"1"), (header("b.png", size=1 << 40), b"1")])


def negative(file: Path) -> None:
    write_tar(file, [("a.png", b"1"), ("b.png", b"1")])
    data = bytearray(file.read_bytes())
    data[1024 + 124 : 1024 + 136] = b"\xff" * 10 + b"\xfa\x00"  # -1536
    block = data[1024:1536]
    block[148:156] = b" " * 8
    data[1024 + 148 : 1024 + 156] = b"%06o\0 " % sum(block)
    file.write_bytes(data)


def long_header(file: Path) -> None:
    """A name of two megabytes."""
    write_tar(file, [("a.png", b"1"), (header("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=2 << 20), b"")])
    with file.open("ab") as opened:
        opened.truncate(4 << 20)


def many_long_names(file: Path) -> None:
    """Headers that each belong to the next one."""
    write_tar(file, [("a.png", b"1")])
    one = header("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=1).tobuf() + b"x".ljust(512, b"\0")
    file.write_bytes(file.read_bytes()[:1024] + one * 5000)


def damaged_header(file: Path) -> None:
    write_tar(file, [("a.png", b"1"), ("b.png", b"1"), ("c.png", b"1")])
    data = bytearray(file.read_bytes())
    data[1024 + 10] ^= 1
    file.write_bytes(data)


def cut_off(file: Path) -> None:
    write_tar(file, [("a.png", b"1"), ("b.png", b"1" * 2000), ("c.png", b"1")])
    os.truncate(file, 2000)


def in_a_header(file: Path) -> None:
    write_tar(file, [("a.png", b"1"), ("b.png", b"1")])
    os.truncate(file, 1100)


def no_tar(file: Path) -> None:
    file.write_bytes(b"This is no archive. " * 100)


def empty(file: Path) -> None:
    file.touch()


def no_images(file: Path) -> None:
    write_tar(file, [("a.txt", b"1")])


def compressed(file: Path) -> None:
    file.write_bytes(gzip.compress(png()))


def folder(file: Path) -> None:
    file.mkdir()


def pipe(file: Path) -> None:
    os.mkfifo(file)


def missing(file: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (sparse, ["unsupported", "b.png"]),
        (gigantic, ["a.png", "b.png", "damaged"]),
        (negative, ["a.png", "damaged"]),
        (long_header, ["a.png", "damaged"]),
        (many_long_names, ["a.png", "damaged"]),
        (damaged_header, ["a.png", "damaged"]),
        (cut_off, ["a.png", "b.png", "damaged"]),
        (in_a_header, ["a.png", "damaged"]),
        (no_tar, ["damaged"]),
        (empty, ["damaged"]),
        (no_images, ["empty folder"]),
        (compressed, ["unsupported"]),
        (folder, ["not an image"]),
        pytest.param(pipe, ["not an image"], marks=pytest.mark.skipif(os.name == "nt", reason="needs named pipes")),
        (missing, ["missing"]),
    ],
)
def test_damaged_archives_give_what_is_whole_and_one_error(
    make: Callable[[Path], None], expected: list[str], tmp_path: Path
) -> None:
    file = tmp_path / "a.tar"
    make(file)
    assert listed(file) == expected


def test_a_member_that_is_cut_off_or_larger_than_is_sensible_takes_no_memory(tmp_path: Path) -> None:
    gigantic(tmp_path / "a.tar")
    whole, lie, _ = images_in(str(tmp_path / "a.tar"))
    assert isinstance(whole, ArchivedFile)
    assert isinstance(lie, ArchivedFile)
    with pytest.raises(ImageError, match="1,099,511,627,776 bytes") as refused:
        lie.read()
    assert refused.value.kind == "too large"
    with pytest.raises(ImageError, match="cut off"):
        replace(lie, size=archives.MOST_BYTES).read()
    with pytest.raises(ImageError, match="cannot be read"):
        replace(whole, archive=replace(whole.archive, location=str(tmp_path / "gone.tar"))).read()


def test_archives_on_disk_need_no_fsspec(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "a.tar", [("a.png", b"1")])
    program = "import sys; from imgcap.images.archives import *; print([p.read() for p in images_in(sys.argv[1])], "
    program += "[name for name in ('fsspec', 'torch') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program, str(file)], capture_output=True, text=True, check=True)
    assert done.stdout == "[b'1'] []\n"


def test_archives_that_are_replaced_are_read_anew(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "a.tar", [("a.png", b"before")])
    [before] = images_in(str(file))
    assert isinstance(before, ArchivedFile)
    assert before.read() == b"before"
    file.unlink()
    write_tar(file, [("a.png", b"after!")])
    os.utime(file, ns=(1, 1))
    [after] = images_in(str(file))
    assert isinstance(after, ArchivedFile)
    assert after.read() == b"after!"
    assert after.archive != before.archive
    archives._opened.cache_clear()
    with pytest.raises(ImageError, match="has changed since it was listed"):
        before.read()


# Data sets


def captions_of(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {record.path: record.captions for record in dataset.records}


def left_out(dataset: Dataset) -> dict[str, str]:
    return {left.name: left.reason for left in dataset.left_out}


def test_samples_are_files_of_one_key(tmp_path: Path) -> None:
    write_tar(
        tmp_path / "a.tar",
        [
            ("1.png", b""),
            ("1.txt", "\ufeffOne .\r\n\n Ün .\n".encode()),
            ("1.json", b'{"caption": "not this one", "split": "dev"}'),
            ("d/2.json", b'{"captions": ["Two .", "Zwei ."], "caption": null, "split": "test"}'),
            ("d/2.seg.png", b""),
            ("3.1.jpg", b""),
            ("3.1.txt", b"Three one ."),
            ("3.2.jpg", b""),
            ("3.2.txt", b"Three two ."),
            ("4.jpg", b""),
            ("5.txt", b"No image ."),
            ("6.jpg", b""),
            ("6.txt", b"\xff\xfe"),
            ("7.json", b'{"caption": 7}'),
            ("7.jpg", b""),
            ("8.json", b"[]"),
            ("8.cls", b"3"),
            (header("9.jpg", tarfile.SYMTYPE), b""),
        ],
    )
    dataset = read_dataset(str(tmp_path / "a.tar"))
    assert dataset.root == str(tmp_path)
    assert captions_of(dataset) == {
        "a.tar/1.png": ("One .", "Ün ."),
        "a.tar/d/2.seg.png": ("Two .", "Zwei ."),
        "a.tar/3.1.jpg": ("Three one .",),
        "a.tar/3.2.jpg": ("Three two .",),
    }
    assert [record.split for record in dataset.records] == ["val", "test", None, None]
    reasons = left_out(dataset)
    assert reasons["a.tar/4.jpg"] == "has no caption"
    assert reasons["a.tar/5"] == "has captions, but no image"
    assert "UTF-8" in reasons["a.tar/6.txt"]
    assert "neither text" in reasons["a.tar/7.json"]
    assert "JSON object" in reasons["a.tar/8.json"]
    assert "link" in reasons["a.tar/9.jpg"]
    assert dataset.source(dataset.records[0]) == dataset.archived["a.tar/1.png"]


def test_splits_by_lists_of_keys_or_by_the_name_of_the_member(tmp_path: Path) -> None:
    captions = write_data_set(tmp_path, 30)
    shards = write_shards(tmp_path / "shards", tmp_path / "images", captions)
    pattern = str(tmp_path / "shards" / "{00..02}.tar")
    folder = read_dataset(tmp_path / "images", captions)
    dataset = read_dataset(pattern)
    assert dataset.archives == ("00.tar", "01.tar", "02.tar")
    assert [record.path for record in dataset.records[9:11]] == ["00.tar/009.png", "01.tar/010.png"]
    assert [(r.captions, r.split) for r in dataset.records] == [(r.captions, r.split) for r in folder.records]
    for split in SPLITS:
        names = {"train": "000\n001.png", "val": "01.tar/010.png", "test": "029"}[split]
        (tmp_path / f"{split}.lst").write_text(names)
    listed = read_dataset(pattern, split_files={split: tmp_path / f"{split}.lst" for split in SPLITS})
    splits = {record.path: record.split for record in listed.records if record.split}
    assert splits == {
        "00.tar/000.png": "train",
        "00.tar/001.png": "train",
        "01.tar/010.png": "val",
        "02.tar/029.png": "test",
    }
    beside = read_dataset(pattern, captions)  # captions from a file of their own
    assert [r.captions for r in beside.records] == [r.captions for r in folder.records]
    shards[1].unlink()
    with pytest.raises(ImgcapError, match=r"01\.tar does not exist"):
        read_dataset(pattern)


def test_archives_without_captions_or_images(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("1.png", b"")])
    with pytest.raises(ImgcapError, match="No caption in"):
        read_dataset(str(tmp_path / "a.tar"))
    write_tar(tmp_path / "b.tar", [("1.txt", b"One .")])
    with pytest.raises(ImgcapError, match="no images"):
        read_dataset(str(tmp_path / "b.tar"))
    with pytest.raises(UsageError, match="captions"):
        read_dataset(tmp_path)


# Commands: the same as from a folder


@pytest.fixture(scope="module")
def walls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 images, of which one is damaged, and the same in shards."""
    folder = tmp_path_factory.mktemp("walls")
    captions = write_data_set(folder)
    (folder / "images" / "013.png").write_bytes(b"damaged")
    write_shards(folder / "shards", folder / "images", captions)
    return folder


@pytest.fixture(scope="module")
def shards(walls: Path) -> str:
    return str(walls / "shards" / "{00..02}.tar")


def rows(file: Path) -> list[tuple[str, object, object]]:
    """Name of the image, caption and kind of error of each row."""
    parsed = map(json.loads, file.read_text().splitlines())
    return [(Path(row["path"]).name, row.get("caption"), row.get("error_kind")) for row in parsed]


@pytest.fixture(scope="module")
def expected(walls: Path, telling_model: Path) -> list[tuple[str, object, object]]:
    """Rows of the folder."""
    from imgcap.captioning.captioner import load_model

    found = []
    for caption in load_model(telling_model).stream(sorted((walls / "images").iterdir())):
        name, error = Path(caption.path or "").name, caption.error
        found.append((name, None if error else caption.text, error.kind if error else None))
    assert len({text for _, text, _ in found}) > 5
    return found


def test_caption_resume_and_shards(
    imgcap_here: Run, walls: Path, shards: str, telling_model: Path, tmp_path: Path, expected: list[object]
) -> None:
    caption = ["caption", shards, "--model", telling_model, "--batch-size", 4]
    done = imgcap_here(*caption, "-o", tmp_path / "rows.jsonl", "--html", tmp_path / "page.html")
    assert done.returncode == ExitCode.SOME_FAILED, done.stderr
    assert rows(tmp_path / "rows.jsonl") == expected
    first = json.loads((tmp_path / "rows.jsonl").read_text().splitlines()[0])
    archive = walls / "shards" / "00.tar"
    size = (walls / "images" / "000.png").stat().st_size
    assert (first["path"], first["bytes"], first["modified"]) == (f"{archive}/000.png", size, None)
    page = (tmp_path / "page.html").read_text()
    assert page.count("UklGR") == 23  # the beginning of a WebP

    whole = (tmp_path / "rows.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    (tmp_path / "rows.jsonl").write_bytes(b"".join(lines[:17]) + lines[17][:20])  # as a kill leaves it
    done = imgcap_here(*caption, "-o", tmp_path / "rows.jsonl", "--resume", "--html", tmp_path / "page.html")
    assert "17 images are done" in done.stderr
    assert (tmp_path / "rows.jsonl").read_bytes() == whole
    assert (tmp_path / "page.html").read_text().count("UklGR") == 23
    done = imgcap_here(*caption, "-o", tmp_path / "rows.jsonl", "--resume", "--retry-failed")
    assert "23 images are done, 1 to be done again" in done.stderr

    for shard in ("2/3", "1/3", "3/3"):
        imgcap_here(*caption, "-o", tmp_path / "parts.jsonl", "--shard", shard)
    assert imgcap_here("merge", tmp_path / "parts.jsonl").returncode == ExitCode.DONE
    assert (tmp_path / "parts.jsonl").read_bytes() == whole


def test_caption_from_a_list_with_a_selection_and_by_content(
    imgcap_here: Run, walls: Path, telling_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "list.txt").write_text(f"{walls}/shards/{{00..01}}.tar\n{walls}/images/023.png\n")
    options = ["--model", telling_model, "--include", "00*", "--exclude", "*8.png", "--by-content"]
    done = imgcap_here("caption", "--from-file", tmp_path / "list.txt", *options, "-o", tmp_path / "rows.jsonl")
    assert done.returncode == ExitCode.SOME_FAILED  # the second archive has none that begins with 00
    names = [name for name, _, _ in rows(tmp_path / "rows.jsonl")]
    assert names == [*(f"{i:03}.png" for i in range(10) if i != 8), "01.tar", "023.png"]
    parsed = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len({row["sha256"] for row in parsed if "caption" in row}) == 10


def test_what_archives_cannot_do_is_a_sentence(imgcap_here: Run, walls: Path, model_folder: Path) -> None:
    tar = walls / "shards" / "00.tar"
    for option in (["--sidecar", ".txt"], ["--sidecar-dir", walls / "out"], ["--write-metadata"]):
        done = imgcap_here("caption", tar, "--model", model_folder, *option)
        assert done.returncode == ExitCode.USAGE
        assert "neither sidecars nor metadata" in done.stderr
    done = imgcap_here("caption", walls / "gone.tar.gz", "--model", model_folder)
    assert done.returncode == ExitCode.FAILED
    assert "does not exist" in done.stderr
    done = imgcap_here("prepare", "--images", walls / "images", "-o", walls / "out")
    assert done.returncode == ExitCode.USAGE
    assert "--captions" in done.stderr


def features(prepared: PreparedFolder) -> bytes:
    return prepared.features[list(range(len(prepared.records)))].tobytes()


def test_prepare_and_fine_tuning_are_the_same_from_archives(
    imgcap_here: Run, walls: Path, shards: str, encoder_file: Path, telling_model: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "walls"
    shutil.copytree(walls, moved)
    shards = shards.replace(str(walls), str(moved))
    prepare = ["prepare", "--encoder", encoder_file, "--images"]
    done = imgcap_here(*prepare, moved / "images", "--captions", moved / "captions.csv", "-o", tmp_path / "folder")
    assert done.returncode == ExitCode.SOME_FAILED
    done = imgcap_here(*prepare, shards, "-o", tmp_path / "whole")
    assert done.returncode == ExitCode.SOME_FAILED
    folder, whole = PreparedFolder(tmp_path / "folder"), PreparedFolder(tmp_path / "whole")
    assert features(whole) == features(folder)

    def told(record: Record) -> object:
        return Path(record.path).name, record.captions, record.split

    assert list(map(told, whole.records)) == list(map(told, folder.records))
    assert [left.name for left in whole.left_out()] == ["01.tar/013.png"]
    for number in ("2/2", "1/2"):
        imgcap_here(*prepare, shards, "--captions", shards, "-o", tmp_path / "parts", "--shard", number)
    imgcap_here(*prepare, shards, "-o", tmp_path / "parts")
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")

    train = ["--fine-tune-encoder", "--epochs", 1, "--embedding-size", 16, "--hidden-size", 16, "--min-count", 1]
    train += ["--batch-size", 8, "--beam-size", 2, "--device", "cpu"]
    for name in ("folder", "whole"):
        done = imgcap_here("train", tmp_path / name, "-o", tmp_path / f"{name}-model" / "model", *train)
        assert done.returncode == ExitCode.DONE, done.stderr
    for file in ("decoder.safetensors", "encoder.safetensors"):
        one, other = (tmp_path / f"{name}-model" / "model" / file for name in ("folder", "whole"))
        assert one.read_bytes() == other.read_bytes()

    page = tmp_path / "page.html"
    done = imgcap_here("eval", tmp_path / "whole", "--model", telling_model, "--split", "val", "--html", page)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert page.read_text().count("UklGR") == whole.metadata.splits["val"]

    shard = moved / "shards" / "01.tar"
    os.utime(shard, ns=(1, 1))
    done = imgcap_here(*prepare, shards, "-o", tmp_path / "whole")
    assert done.returncode == ExitCode.FAILED
    assert "prepared from other inputs" in done.stderr
    shard.unlink()
    archives._table.cache_clear()
    done = imgcap_here("train", tmp_path / "whole", "-o", tmp_path / "gone", *train)
    assert done.returncode == ExitCode.FAILED
    assert "01.tar does not exist" in done.stderr


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
