"""`imgcap caption` on folders of images: inputs, captions and exit codes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from helpers import forked
from helpers.command import captions, read_json_lines
from helpers.data import Run
from helpers.image_zoo import build_zoo
from imgcap.errors import ExitCode
from imgcap.files import read_json, write_json
from imgcap.model.store import CONFIG_FILE, write_manifest


def test_captions_do_not_depend_on_batches_order_or_company(
    imgcap_here: Run, album: Path, telling_model: Path, expected: dict[str, str]
) -> None:
    backwards = sorted(expected, reverse=True)
    for size in (1, 3, 64):
        done = imgcap_here("caption", *backwards, "--batch-size", size, "--model", telling_model)
        assert list(captions(done.stdout)) == backwards
        assert captions(done.stdout) == expected
    alone = backwards[3]
    assert imgcap_here("caption", alone, "--model", telling_model).stdout == expected[alone] + "\n"


def test_samples_do_not_depend_on_batches_order_or_company(imgcap_here: Run, album: Path, telling_model: Path) -> None:
    def draw_captions(*arguments: object) -> dict[str, str]:
        done = imgcap_here("caption", *arguments, "--model", telling_model, "--sample")
        assert done.returncode == ExitCode.DONE, done.stderr
        return captions(done.stdout)

    drawn = draw_captions(album, "--seed", 3)
    assert draw_captions(*sorted(drawn, reverse=True), "--batch-size", 3, "--seed", 3) == drawn
    assert draw_captions(album, "--seed", 4) != drawn


def test_every_good_image_is_captioned_and_every_bad_one_is_a_row(
    imgcap_here: Run, telling_model: Path, tmp_path: Path
) -> None:
    zoo = tmp_path / "zoo"
    good, bad = build_zoo(zoo)
    assert len(good) >= 40
    assert len(bad) >= 25
    named = [zoo / name for name in (*good, *bad)]
    listed = tmp_path / "list"
    listed.write_bytes(b"\0".join(os.fsencode(path) for path in named))
    output = tmp_path / "rows.jsonl"
    done = imgcap_here("caption", "--from-file", listed, "-o", output, "--model", telling_model)
    assert done.returncode == ExitCode.SOME_FAILED, done.stderr
    rows = read_json_lines(output)
    assert [row["path"] for row in rows] == [str(path) for path in named]
    for row in rows[: len(good)]:
        assert row.get("caption"), row
        assert "error" not in row
    for row in rows[len(good) :]:
        assert "caption" not in row, row
        assert row["error"].endswith(".")
        assert "\n" not in row["error"]
        assert row["error_kind"]
    assert "Traceback" not in done.stderr
    assert f"Captioned {len(good)} of {len(named)} images" in done.stderr
    assert f"{len(bad)} failed" in done.stderr
    resumed = imgcap_here("caption", "--from-file", listed, "-o", output, "--resume", "--model", telling_model)
    assert resumed.returncode == ExitCode.DONE, resumed.stderr
    assert read_json_lines(output) == rows


def test_images_come_from_stdin_and_from_lists(
    imgcap_here: Run, album: Path, telling_model: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    some = sorted(expected)[:3]
    (tmp_path / "list.txt").write_text("\n".join(some) + "\n\n")
    done = imgcap_here("caption", "--from-file", tmp_path / "list.txt", "--model", telling_model)
    assert captions(done.stdout) == {path: expected[path] for path in some}

    def piped(data: bytes, *arguments: object) -> str:
        done = forked.run(forked.imgcap, ["caption", *arguments, "--model", telling_model], stdin=data)
        assert done.returncode == ExitCode.DONE, done.stderr
        return done.stdout

    assert piped(Path(some[0]).read_bytes(), "-") == expected[some[0]] + "\n"
    assert captions(piped("\0".join(some).encode(), "--from-file", "-")) == {path: expected[path] for path in some}
    row = json.loads(piped(Path(some[0]).read_bytes(), "-", "--format", "jsonl"))
    assert (row["path"], row["caption"], row["bytes"]) == ("-", expected[some[0]], None)


def test_a_list_may_have_a_byte_order_mark_and_is_not_utf16(
    imgcap_here: Run, album: Path, telling_model: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    some, listed = sorted(expected)[:2], tmp_path / "list.txt"
    for encoding, end in (("utf-8-sig", "\r\n"), ("utf-8-sig", "\0")):
        listed.write_bytes(end.join(some).encode(encoding))
        done = imgcap_here("caption", "--from-file", listed, "--model", telling_model)
        assert captions(done.stdout) == {path: expected[path] for path in some}
    for encoding in ("utf-16", "utf-16-le", "utf-16-be"):
        listed.write_bytes("\r\n".join(some).encode(encoding))
        done = imgcap_here("caption", "--from-file", listed, "--model", telling_model)
        assert done.returncode == ExitCode.FAILED
        assert f"{listed} is UTF-16, not UTF-8 text." in " ".join(done.stderr.split())


def test_images_in_formats_that_cannot_be_read_are_counted(imgcap_here: Run, album: Path, telling_model: Path) -> None:
    for name in ("a.CR2", "more/b.cr2", "c.jxl", "notes.md"):
        (album / name).write_bytes(b"x")
    done = imgcap_here("caption", album, "--model", telling_model)
    assert done.returncode == ExitCode.DONE
    assert "3 skipped, in formats that imgcap cannot read (2 .cr2, 1 .jxl)." in done.stderr


def test_folders_are_searched_as_asked(imgcap_here: Run, album: Path, telling_model: Path) -> None:
    def names(*arguments: object) -> set[str]:
        done = imgcap_here("caption", album, *arguments, "--model", telling_model)
        return {Path(path).relative_to(album).as_posix() for path in captions(done.stdout)}

    every = names()
    assert names("--no-recursive") == {name for name in every if "/" not in name}
    assert names("--include", "*.png") == {name for name in every if name.endswith(".png")}
    assert names("--exclude", "more/**", "--exclude", "*.jpg") == {n for n in every if "/" not in n and "jpg" not in n}


@pytest.mark.parametrize(
    ("names", "exit_code"),
    [(["00.png"], ExitCode.DONE), (["00.png", "broken.jpg"], ExitCode.SOME_FAILED), (["broken.jpg"], ExitCode.FAILED)],
)
def test_the_exit_code_says_how_many_succeeded(
    imgcap_here: Run, album: Path, telling_model: Path, names: list[str], exit_code: ExitCode
) -> None:
    (album / "broken.jpg").write_bytes(b"no image")
    assert imgcap_here("caption", *(album / name for name in names), "--model", telling_model).returncode == exit_code


def test_quiet_prints_only_failures(imgcap_here: Run, album: Path, telling_model: Path) -> None:
    assert imgcap_here("caption", album, "--quiet", "--model", telling_model).stderr == ""
    assert "Captioned 20 of 20 images" in imgcap_here("caption", album, "--model", telling_model).stderr
    (album / "broken.jpg").write_bytes(b"no image")
    done = imgcap_here("caption", album, "--quiet", "--model", telling_model)
    assert len(done.stderr.splitlines()) == 1
    assert "broken.jpg" in done.stderr


def test_a_single_image_without_a_result_says_why(
    imgcap_here: Run, album: Path, telling_model: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(telling_model, tmp_path / "calibrated"))
    calibration = {"weights": [0.0, 0.0, 0.0], "images": 50, "agreeing": 0.5, "calibration_error": 0.0}
    write_json(model / CONFIG_FILE, read_json(model / CONFIG_FILE) | {"confidence": calibration})
    write_manifest(model)
    image = album / "01.jpg"

    def messages(*options: object) -> str:
        done = imgcap_here("caption", image, *options, "--model", model)
        assert done.returncode == ExitCode.DONE
        assert (done.stdout == "") is ("withheld" in done.stderr or "nothing left" in done.stderr)
        return done.stderr

    withheld = ("--min-confidence", 0.75)
    sentence = f"The caption of {image} is withheld, because its confidence, 0.5, is below 0.75 (--min-confidence).\n"
    assert messages(*withheld) == messages(*withheld, "--words") == sentence
    assert messages("--min-confidence", 0.5000001) == sentence.replace("0.75", "0.5000001")
    assert imgcap_here("caption", image, *withheld, "--quiet", "--model", model).stderr == ""
    assert messages("--sidecar", ".txt") == ""
    assert messages("--sidecar", ".txt", "--skip-existing") == "There was nothing left to do.\n"
    (tmp_path / "rows.jsonl").write_text(json.dumps({"path": str(image), "caption": "checked"}) + "\n")
    imgcap_here("apply", tmp_path / "rows.jsonl", "--write-metadata")
    assert (
        messages("--write-metadata") == f"{image} keeps the description that a person wrote; --overwrite replaces it.\n"
    )
    assert messages("--write-metadata", "--overwrite") == ""


def test_a_single_image_says_the_precision_that_was_chosen_on_stderr(
    imgcap_here: Run, album: Path, telling_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imgcap.captioning.run.automatic_precision", lambda device: ("float32", "it is old"))
    command = ["caption", album / "00.png", "--model", telling_model]
    plain, chosen = imgcap_here(*command), imgcap_here(*command, "--precision", "auto")
    assert (plain.stderr, chosen.stderr) == ("", "Precision: float32, because it is old.\n")
    assert chosen.stdout == plain.stdout
    assert imgcap_here(*command, "--precision", "auto", "--quiet").stderr == ""


def test_several_captions_words_prefix_and_trigger(imgcap_here: Run, album: Path, telling_model: Path) -> None:
    image = album / "00.png"
    three = imgcap_here("caption", image, "-n", 3, "--model", telling_model).stdout.splitlines()
    assert len(three) == len(set(three)) == 3
    assert three[0] == imgcap_here("caption", image, "--beam-size", 3, "--model", telling_model).stdout.strip()
    banned = three[0].split()[0]
    assert banned not in imgcap_here("caption", image, "--ban", banned, "--model", telling_model).stdout.split()
    wrapped = imgcap_here(
        "caption", image, "--trigger", "sks", "--prefix", "a photo: ", "--model", telling_model
    ).stdout
    assert wrapped.startswith("sks, a photo: ")
    rows = imgcap_here("caption", image, "--words", "--format", "jsonl", "--model", telling_model).stdout
    row = json.loads(rows)
    assert " ".join(word for word, _ in row["words"]) == row["caption"]
    assert all(0 <= probability <= 1 for _, probability in row["words"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Give an image, a folder"),
        (["x.jpg", "--resume"], "-o FILE.jsonl"),
        (["x.jpg", "--resume", "-o", "x.csv"], "-o FILE.jsonl"),
        (["x.jpg", "--retry-failed"], "--resume"),
        (["x.jpg", "--skip-existing"], "--sidecar"),
        (["x.jpg", "--format", "xml"], "no format 'xml'"),
        (["x.jpg", "--sidecar", "txt"], "ending of sidecars"),
        (["x.jpg", "--append"], "--append needs --sidecar"),
        (["x.jpg", "--sidecar", ".txt", "--append", "--overwrite"], "--append cannot be combined with --overwrite"),
        (["x.jpg", "--sidecar", ".txt", "--append", "--skip-existing"], "cannot be combined with --append"),
        (["x.jpg", "-o", "-", "--format", "jsonl", "--resume"], "-o FILE.jsonl"),
        (["x.jpg", "--html", "x.csv"], "--html writes a web page, but x.csv is not .html."),
        (["x.jpg", "--html", "-"], "Only rows of captions can be written to stdout."),
        (["x.jpg", "-o", "x.html"], "x.html would be a web page, but --output writes rows. Write a page with --html"),
        (["x.jpg", "-o", "x.htm", "-f", "csv"], "x.htm would be a web page, but --output writes rows."),
        (["x.jpg", "-o", "x.xlsx"], "The ending of x.xlsx stands for no format of rows."),
        (["-", "--write-metadata"], "An image from stdin is not a file"),
        (["-", "--from-file", "-"], "both an image and a list"),
        (["x.jpg", "--min-confidence", "2"], "between 0 and 1"),
        (["x.jpg", "--min-confidence", "0.5", "--model", "MODEL"], "no calibrated confidence"),
        (["x.jpg", "--batch-size", "0", "--model", "MODEL"], "at least 1"),
        (["x.jpg", "--temperature", "0", "--model", "MODEL"], "temperature"),
        (["x.jpg", "--ban", "two words", "--model", "MODEL"], "two words"),
    ],
)
def test_wrong_usage_is_one_sentence_and_writes_nothing(
    imgcap_here: Run, model_folder: Path, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    places = {"MODEL": model_folder}
    done = imgcap_here("caption", *(places.get(a, a) for a in arguments))
    assert done.returncode == ExitCode.USAGE, done.stderr
    assert sentence in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
