"""Images in tar archives: what is listed, and what hostile archives lead to."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from helpers.archives import header, listed, png
from helpers.data import draw
from helpers.tars import write_tar
from imgcap.images import archived
from imgcap.images.archived import ArchivedFile
from imgcap.images.archives import find_image, images_in
from imgcap.images.decoding import open_image
from imgcap.images.discovery import Selection
from imgcap.images.errors import ImageError


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


def test_members_in_formats_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    file = write_tar(tmp_path / "a.tar", [("a.jpg", b"1"), ("b.ARW", b"1"), ("@eaDir/c.arw", b"1"), ("d.txt", b"1")])
    unreadable: Counter[str] = Counter()
    assert len(list(images_in(str(file), Selection(), unreadable))) == 1
    assert unreadable == {".arw": 1}


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
    """Headers that each describe the next one."""
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
        replace(lie, size=archived.MOST_BYTES).read()
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
    archived.opened.cache_clear()
    with pytest.raises(ImageError, match="has changed since it was listed"):
        before.read()
