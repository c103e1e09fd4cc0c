"""Files of rows hold what was written, in every format, and come back as they were."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pytest

from helpers.captions import BROKEN, GOOD, ODD_PATHS, ORIGIN, STRIPE, WALL
from helpers.refusal import refusal
from imgcap.captioning.captioner import Caption
from imgcap.captioning.explain import Explanation
from imgcap.captioning.row_files import CsvWriter, format_of, open_rows, read_rows
from imgcap.captioning.rows import FileState, Row, RowOptions, make_row, with_state
from imgcap.errors import ImgcapError, UsageError


def rows_of(*paths: str) -> list[Row]:
    captions = [Caption(path, (WALL, STRIPE)) for path in paths] + [BROKEN]
    return [with_state(make_row(caption, RowOptions(words=True), ORIGIN), FileState(7, 8)) for caption in captions]


def write(file: Path, rows: list[Row], **options: bool) -> None:
    with open_rows(file, file.suffix[1:], **options) as writer:
        for row in rows:
            writer.write(row)


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_what_is_written_is_read_again(tmp_path: Path, ending: str) -> None:
    rows = rows_of(*ODD_PATHS)
    file = tmp_path / f"rows.{ending}"
    write(file, rows)
    again = list(read_rows(file))
    assert [row["path"] for row in again] == [*ODD_PATHS, "bad.jpg"]
    assert [row.get("caption") or "" for row in again] == [row.get("caption", "") for row in rows]
    if ending == "jsonl":
        assert again == rows


def test_json_is_one_array(tmp_path: Path) -> None:
    rows = rows_of(*ODD_PATHS)
    write(tmp_path / "rows.json", rows)
    assert json.loads((tmp_path / "rows.json").read_text()) == rows
    write(tmp_path / "none.json", [])
    assert json.loads((tmp_path / "none.json").read_text()) == []


def test_a_json_array_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    with pytest.raises(RuntimeError), open_rows(file, "json") as writer:
        writer.write(rows_of()[0])
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_no_cell_is_a_formula_and_lists_are_json(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    write(file, rows_of("=cmd()", "@x", "a.png"))
    with file.open(newline="") as lines:
        table = list(csv.DictReader(lines))
    assert [row["path"] for row in table] == ["'=cmd()", "'@x", "a.png", "bad.jpg"]
    assert json.loads(table[2]["words"])[1] == ["red", 0.512]
    assert table[3]["error"] == str(BROKEN.error)
    assert all(len(row) == len(CsvWriter.COLUMNS) for row in table)


def test_every_key_of_a_row_has_a_column() -> None:
    explanation = Explanation((("dog.jpg", 0.8),), True, 0.4, 0.99, "Unlike all of them.")
    full = make_row(Caption("a.png", (WALL, STRIPE), explanation), RowOptions(words=True), ORIGIN)
    withheld = make_row(GOOD, RowOptions(min_confidence=1), ORIGIN)
    keys = with_state(full | withheld | make_row(BROKEN, RowOptions(), ORIGIN), FileState(1, 2, "3")).keys()
    assert keys <= set(CsvWriter.COLUMNS)


def test_a_withheld_caption_leaves_no_explanation_under_another_image(tmp_path: Path) -> None:
    explanation = Explanation((("dog.jpg", 0.8),), True, 0.4, 0.99, "Unlike all of them.")
    withheld = make_row(Caption("a.png", (WALL,), explanation), RowOptions(min_confidence=1), ORIGIN)
    assert "nearest" in withheld and not withheld["caption"]
    file = tmp_path / "rows.text"
    write(file, [make_row(Caption("b.png", (STRIPE,)), RowOptions(), ORIGIN), withheld])
    assert file.read_text() == "b.png\ta stripe\n"


@pytest.mark.parametrize(
    ("name", "format_name"),
    [
        ("a.jsonl", "jsonl"), ("a.JSON", "json"), ("a.csv", "csv"), ("a.txt", "text"), ("a.tsv", "text"), ("a", "text"),
        ("/dev/stdout", "text"),
    ],
)  # fmt: skip
def test_the_ending_of_a_file_chooses_its_format(name: str, format_name: str) -> None:
    assert format_of(Path(name)) == format_name
    assert format_of(Path(name), "csv") == "csv"


def test_an_ending_without_a_format_needs_one_and_a_page_is_refused_in_every_format() -> None:
    assert format_of(Path("a.out"), "jsonl") == "jsonl"
    error = refusal(format_of, Path("a.xlsx"))
    assert isinstance(error, UsageError)
    assert str(error) == "The ending of a.xlsx stands for no format of rows."
    assert error.hint == (
        "Use one of .txt, .tsv, .jsonl, .json, .csv, or say what to write with --format text|jsonl|json|csv."
    )
    for given in (None, "csv"):
        error = refusal(format_of, Path("a/b.HTML"), given)
        assert isinstance(error, UsageError)
        assert str(error) == "a/b.HTML would be a web page, but --output writes rows."
        assert error.hint == "Write a page with --html a/b.HTML, or rows to a file such as a/b.csv."


@pytest.mark.parametrize(
    ("bare", "expected"),
    [(False, "a\\nb.png\ta red wall\na\\nb.png\ta stripe\n"), (True, "a red wall\na stripe\n")],
)
def test_text_is_one_line_a_caption(bare: bool, expected: str) -> None:
    stream = io.StringIO()
    with open_rows(stream, "text", bare=bare) as writer:
        writer.write(make_row(Caption("a\nb.png", (WALL, STRIPE)), RowOptions(), ORIGIN))
        writer.write(make_row(BROKEN, RowOptions(), ORIGIN))
        writer.write(make_row(GOOD, RowOptions(min_confidence=1), ORIGIN))
    assert stream.getvalue() == expected


def test_text_explains_below_the_caption() -> None:
    stream = io.StringIO()
    explanation = Explanation((("dog.jpg", 0.8),), True, 0.4, 0.99, "Unlike all of them.")
    with open_rows(stream, "text", bare=True) as writer:
        writer.write(make_row(Caption("a.png", (WALL,), explanation), RowOptions(words=True), ORIGIN))
    caption, words, nearest, verbatim, warning = stream.getvalue().splitlines()
    assert caption == "a red wall"
    assert "red 0.51" in words
    assert "dog.jpg 0.80" in nearest
    assert "verbatim" in verbatim
    assert warning.strip() == "Unlike all of them."


def test_text_explains_an_image_without_a_warning() -> None:
    stream = io.StringIO()
    explanation = Explanation((("dog.jpg", 0.8),), False, 0.4, 0.5, "")
    with open_rows(stream, "text", bare=True) as writer:
        writer.write(make_row(Caption("a.png", (WALL,), explanation), RowOptions(), ORIGIN))
    _, nearest, distance = stream.getvalue().splitlines()
    assert nearest == "  nearest in the model's training data: dog.jpg 0.80"
    assert distance == "  farther from the training images than 50% of the val images"


def test_text_says_nothing_of_a_percentile_that_nobody_knows() -> None:
    stream = io.StringIO()
    explanation = Explanation((("dog.jpg", 0.8),), False, 0.4, None, "")
    with open_rows(stream, "text", bare=True) as writer:
        writer.write(make_row(Caption("a.png", (WALL,), explanation), RowOptions(), ORIGIN))
    assert len(stream.getvalue().splitlines()) == 2


def test_an_existing_file_is_kept_unless_overwritten_or_appended_to(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    write(file, rows_of("a.png"))
    before = file.read_text()
    with pytest.raises(ImgcapError, match="already exists"):
        write(file, rows_of("b.png"))
    assert file.read_text() == before
    write(file, rows_of("b.png"), append=True)
    assert file.read_text().startswith(before)
    assert [row["path"] for row in read_rows(file)] == ["a.png", "bad.jpg", "b.png", "bad.jpg"]
    write(file, rows_of(), overwrite=True)
    assert [row["path"] for row in read_rows(file)] == ["bad.jpg"]


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ImgcapError, match="cannot be created"):
        write(tmp_path / "file" / "rows.jsonl", [])
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(ImgcapError, match="cannot be written: is a directory"):
        write(tmp_path / "folder.jsonl", [], append=True)


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("a.txt", "x", "neither .jsonl nor .csv"),
        ("a.jsonl", "[1]\n", "line 1 has no path"),
        ("a.jsonl", '{"path": "x", "caption": 3}\n', "caption that is not text"),
        ("a.jsonl", '{"path": "x"\n', "line 1 is not valid JSON"),
        ("a.csv", "a,b\n1,2\n", "no columns `path` and `caption`"),
        ("a.csv", "", "no columns `path` and `caption`"),
        ("none.csv", None, "cannot be read"),
    ],
)
def test_a_file_without_rows_is_one_sentence(tmp_path: Path, name: str, text: str | None, sentence: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ImgcapError) as raised:
        list(read_rows(tmp_path / name))
    assert sentence in str(raised.value)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_spreadsheet_may_save_with_its_own_delimiter_and_byte_order_mark(tmp_path: Path, delimiter: str) -> None:
    line = delimiter.join
    text = line(["path", "caption", "bytes"]) + "\r\n" + line(["a.png", '"a dog, a cat; both"', "3"]) + "\r\n"
    (tmp_path / "rows.csv").write_bytes(text.encode("utf-8-sig"))
    assert list(read_rows(tmp_path / "rows.csv")) == [{"path": "a.png", "caption": "a dog, a cat; both", "bytes": "3"}]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("path,caption\na.jpg,a dog\nb.jpg,a café\n".encode("cp1252"), "line 3 has a caption that is not UTF-8 text."),
        ("path;caption\r\nb.jpg;“café”\r\n".encode("cp1252"), "line 2 has a caption that is not UTF-8 text."),
        ("path,caption\nb.jpg,ein Hündchen\n".encode("mac_roman"), "line 2 has a caption that is not UTF-8 text."),
        ("path,caption\nb.jpg,日本\n".encode("shift_jis"), "line 2 has a caption that is not UTF-8 text."),
        ("path\tcaption\r\nb.jpg\ta café\r\n".encode("utf-16"), "line 1"),
        ("path\tcaption\r\nb.jpg\ta café\r\n".encode("utf-16-be"), "line 1"),
    ],
    ids=["cp1252", "cp1252 semicolons", "mac_roman", "shift_jis", "utf-16", "utf-16-be"],
)
def test_captions_in_another_encoding_are_an_error_with_the_line(tmp_path: Path, content: bytes, sentence: str) -> None:
    (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(ImgcapError) as raised:
        list(read_rows(tmp_path / "rows.csv"))
    assert sentence in str(raised.value)
    assert "Save it as UTF-8" in raised.value.hint


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["without BOM", "with BOM"])
def test_captions_keep_their_accents(tmp_path: Path, ending: str, mark: bytes) -> None:
    file = tmp_path / f"rows.{ending}"
    text = {"csv": "path,caption\nb.jpg,a café\n", "jsonl": '{"path": "b.jpg", "caption": "a café"}\n'}[ending]
    file.write_bytes(mark + text.encode())
    assert [(row["path"], row["caption"]) for row in read_rows(file)] == [("b.jpg", "a café")]


def test_half_a_character_in_json_is_no_caption(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"path": "b.jpg", "caption": "caf\\udce9"}\n')
    with pytest.raises(ImgcapError, match="line 1 has a caption that is not UTF-8 text"):
        list(read_rows(tmp_path / "rows.jsonl"))


def test_a_file_name_may_have_any_bytes(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"path,caption\nx\xff.jpg,a dog\n")
    [row] = read_rows(tmp_path / "rows.csv")
    assert os.fsencode(row["path"]) == b"x\xff.jpg"
