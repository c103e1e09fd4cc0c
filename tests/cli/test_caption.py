"""`imgcap caption` and `imgcap apply` as a person uses them, on folders of images."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from helpers.data import Run, draw
from helpers.image_zoo import build_zoo
from imgcap.errors import ExitCode
from imgcap.images.metadata.description import read_description

COLOURS = ("red", "green", "blue", "white")
COMMAND = Path(sys.executable).with_name("imgcap")


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Twenty images, in a folder and a sub-folder."""
    folder = tmp_path / "album"
    (folder / "more").mkdir(parents=True)
    for i in range(20):
        draw(COLOURS[i % 4], i).save(folder / ("more" if i > 11 else "") / f"{i:02}.{'jpg' if i % 3 else 'png'}")
    return folder


def read_json_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def captions(stdout: str) -> dict[str, str]:
    return dict(line.split("\t") for line in stdout.splitlines())


@pytest.fixture
def expected(imgcap_here: Run, album: Path, telling_model: Path) -> dict[str, str]:
    """The caption of each image of the album."""
    done = imgcap_here("caption", album, "--model", telling_model)
    assert done.returncode == ExitCode.DONE, done.stderr
    found = captions(done.stdout)
    assert len(found) == 20
    assert len(set(found.values())) > 3  # else a mix-up could not be seen
    return found


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


@pytest.mark.parametrize(
    ("kind", "read"),
    [
        ("jsonl", lambda text: [json.loads(line) for line in text.splitlines()]),
        ("json", json.loads),
        ("csv", lambda text: list(csv.DictReader(text.splitlines()))),
    ],
)
def test_rows_in_every_format_go_to_stdout_or_a_file(
    imgcap_here: Run, album: Path, telling_model: Path, tmp_path: Path, expected: dict[str, str], kind: str, read: Any
) -> None:
    done = imgcap_here("caption", album, "--format", kind, "--model", telling_model)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert {row["path"]: row["caption"] for row in read(done.stdout)} == expected
    file = tmp_path / "out" / f"rows.{kind}"
    to_file = imgcap_here("caption", album, "-o", file, "--model", telling_model)
    assert to_file.stdout == ""
    assert file.read_bytes().decode() == done.stdout
    again = imgcap_here("caption", album, "-o", file, "--model", telling_model)
    assert again.returncode == ExitCode.FAILED
    assert "is there already" in again.stderr


def test_images_come_from_stdin_and_from_lists(
    imgcap_here: Run, album: Path, telling_model: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    some = sorted(expected)[:3]
    (tmp_path / "list.txt").write_text("\n".join(some) + "\n\n")
    done = imgcap_here("caption", "--from-file", tmp_path / "list.txt", "--model", telling_model)
    assert captions(done.stdout) == {path: expected[path] for path in some}

    def piped(data: bytes, *arguments: object) -> str:
        command = [COMMAND, "caption", *arguments, "--model", telling_model]
        done = subprocess.run(list(map(str, command)), input=data, capture_output=True, timeout=900, check=True)
        return done.stdout.decode()

    assert piped(Path(some[0]).read_bytes(), "-") == expected[some[0]] + "\n"
    assert captions(piped("\0".join(some).encode(), "--from-file", "-")) == {path: expected[path] for path in some}
    row = json.loads(piped(Path(some[0]).read_bytes(), "-", "--format", "jsonl"))
    assert (row["path"], row["caption"], row["bytes"]) == ("-", expected[some[0]], None)


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


def test_fail_fast_stops_at_the_first_failure(
    imgcap_here: Run, album: Path, telling_model: Path, tmp_path: Path
) -> None:
    (album / "05-broken.jpg").write_bytes(b"no image")
    output = tmp_path / "rows.jsonl"
    done = imgcap_here("caption", album, "-o", output, "--fail-fast", "--model", telling_model)
    assert done.returncode == ExitCode.SOME_FAILED
    rows = read_json_lines(output)
    assert ["error" in row for row in rows] == [False] * 5 + [True]


def test_quiet_says_nothing_but_failures(imgcap_here: Run, album: Path, telling_model: Path) -> None:
    assert imgcap_here("caption", album, "--quiet", "--model", telling_model).stderr == ""
    assert "Captioned 20 of 20 images" in imgcap_here("caption", album, "--model", telling_model).stderr
    (album / "broken.jpg").write_bytes(b"no image")
    done = imgcap_here("caption", album, "--quiet", "--model", telling_model)
    assert len(done.stderr.splitlines()) == 1
    assert "broken.jpg" in done.stderr


def test_killed_at_random_moments_and_resumed_the_file_is_that_of_an_uninterrupted_run(
    imgcap: Run, album: Path, telling_model: Path, tmp_path: Path
) -> None:
    for i in range(20, 120):
        draw(COLOURS[i % 4], i, 65 + i).save(album / f"{i}.png")
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    base = ["caption", album, "--model", telling_model, "--resume", "-o"]
    assert imgcap(*base, whole).returncode == ExitCode.DONE
    chance = random.Random(0)
    kills = 0
    for rows_more in (chance.randrange(1, 50) for _ in range(4)):
        before = killed.stat().st_size if killed.exists() else 0
        process = subprocess.Popen([str(COMMAND), *map(str, [*base, killed])], stderr=subprocess.DEVNULL)
        while process.poll() is None and not (killed.exists() and killed.stat().st_size > before + 200 * rows_more):
            time.sleep(0.005)
        process.kill()
        kills += process.wait() == -signal.SIGKILL
        with killed.open("ab") as file:
            file.write(b'{"path": "torn')
    assert kills >= 2
    done = imgcap(*base, killed)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert killed.read_bytes() == whole.read_bytes()
    assert "120 images are done" in imgcap(*base, killed).stderr


def test_ctrl_c_finishes_the_batch_and_says_how_to_go_on(album: Path, telling_model: Path, tmp_path: Path) -> None:
    for i in range(20, 220):
        draw(COLOURS[i % 4], i, 65 + i).save(album / f"{i}.png")
    output = tmp_path / "rows.jsonl"
    arguments = ["caption", album, "--model", telling_model, "-o", output, "--batch-size", 4]
    process = subprocess.Popen([str(COMMAND), *map(str, arguments)], stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (output.exists() and output.stat().st_size):
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=900)
    assert process.returncode == ExitCode.INTERRUPTED
    assert "--resume" in errors
    assert "Traceback" not in errors
    rows = read_json_lines(output)
    assert 0 < len(rows) < 220
    assert len(rows) % 4 == 0
    assert output.read_text().endswith("\n")


def test_a_changed_image_is_captioned_again_and_the_rest_is_skipped(
    imgcap_here: Run, album: Path, telling_model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "rows.jsonl"
    base = ["caption", album, "-o", output, "--model", telling_model]
    imgcap_here(*base)
    before = read_json_lines(output)
    draw("white", 9, 200).save(album / "00.png")
    done = imgcap_here(*base, "--resume")
    assert "19 images are done, 1 to be done again" in done.stderr
    assert "Captioned 1 of 1 images" in done.stderr
    after = read_json_lines(output)
    assert after[:19] == before[1:]
    assert after[19]["path"] == before[0]["path"]
    assert after[19]["bytes"] != before[0]["bytes"]
    other = imgcap_here(*base, "--resume", "--beam-size", 1)
    assert other.returncode == ExitCode.USAGE
    assert "settings" in other.stderr
    assert read_json_lines(output) == after


def test_sidecars_are_written_and_skipped(
    imgcap_here: Run, album: Path, telling_model: Path, expected: dict[str, str]
) -> None:
    (album / "00.txt").write_text("by hand\n")
    done = imgcap_here("caption", album, "--sidecar", ".txt", "--skip-existing", "--model", telling_model)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert "Captioned 19 of 19" in done.stderr
    for path, caption in expected.items():
        wanted = "by hand" if path.endswith("00.png") else caption
        assert Path(path).with_suffix(".txt").read_text() == wanted + "\n"
    done = imgcap_here("caption", album, "--sidecar", ".txt", "--model", telling_model)
    assert done.returncode == ExitCode.SOME_FAILED
    assert "1 failed (1 not written)" in done.stderr
    assert (album / "00.txt").read_text() == "by hand\n"
    done = imgcap_here("caption", album, "--sidecar", ".txt", "--overwrite", "--model", telling_model)
    assert done.returncode == ExitCode.DONE
    assert (album / "00.txt").read_text() == expected[str(album / "00.png")] + "\n"


def test_caption_check_apply_is_one_loop(imgcap_here: Run, album: Path, telling_model: Path, tmp_path: Path) -> None:
    table = tmp_path / "captions.csv"
    imgcap_here("caption", album, "-o", table, "--model", telling_model)
    with table.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    rows[0]["caption"], rows[1]["caption"] = "checked, by hand", ""
    with table.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    out = tmp_path / "sidecars"
    done = imgcap_here("apply", table, "--sidecar-dir", out, "--write-metadata")
    assert done.returncode == ExitCode.DONE, done.stderr
    assert "19 of 19" in done.stderr
    assert (out / "00.txt").read_text() == "checked, by hand\n"
    assert not (out / "01.txt").exists()
    assert (out / "more" / "12.txt").exists()
    assert read_description(album / "00.png") == "checked, by hand"
    assert read_description(album / "01.jpg") is None
    done = imgcap_here("caption", album, "--write-metadata", "--format", "jsonl", "--model", telling_model)
    kept = [json.loads(line)["description"] for line in done.stdout.splitlines()]
    assert kept == ["kept", "written"] + ["kept"] * 18
    assert "19 keep the description that a person wrote" in done.stderr
    assert read_description(album / "00.png") == "checked, by hand"
    (album / "02.jpg").unlink()
    done = imgcap_here("apply", table, "--write-metadata")
    assert done.returncode == ExitCode.SOME_FAILED
    assert "02.jpg does not exist" in done.stderr


def test_metadata_is_written_without_touching_a_pixel(imgcap_here: Run, album: Path, telling_model: Path) -> None:
    def pixels() -> Iterator[bytes]:
        for path in sorted(album.rglob("*.*")):
            with Image.open(path) as image:
                yield image.tobytes()

    before = list(pixels())
    output = album.parent / "rows.jsonl"
    base = ["caption", album, "--write-metadata", "-o", output, "--model", telling_model]
    assert imgcap_here(*base).returncode == ExitCode.DONE
    assert list(pixels()) == before
    for row in read_json_lines(output):
        assert read_description(Path(row["path"])) == row["caption"]
        assert Path(row["path"]).stat().st_size == row["bytes"]
    resumed = imgcap_here(*base, "--resume")
    assert "20 images are done" in resumed.stderr
    assert "nothing left to do" in resumed.stderr


def test_a_gallery_is_written_beside_the_rows_and_holds_earlier_rows_too(
    imgcap_here: Run, album: Path, telling_model: Path, tmp_path: Path, expected: dict[str, str]
) -> None:
    page, output = tmp_path / "page.html", tmp_path / "rows.jsonl"
    base = ["caption", album, "-o", output, "--model", telling_model]
    imgcap_here(*base)
    draw("red", 3, 100).save(album / "zz.png")
    done = imgcap_here(*base, "--resume", "--html", page)
    assert done.returncode == ExitCode.DONE, done.stderr
    text = page.read_text()
    assert all(Path(path).name in text for path in expected)
    assert "zz.png" in text
    again = imgcap_here("caption", album, "--html", page, "--model", telling_model)
    assert again.returncode == ExitCode.FAILED
    assert "is there already" in again.stderr


def test_several_captions_words_and_surroundings(imgcap_here: Run, album: Path, telling_model: Path) -> None:
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
        (["x.jpg", "-o", "x.html", "--html", "x.html"], "both the gallery and the rows"),
        (["-", "--write-metadata"], "no file that could get"),
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


def test_a_model_that_cannot_do_what_is_asked_leaves_no_file(
    imgcap_here: Run, album: Path, telling_model: Path, tmp_path: Path
) -> None:
    for option in (["--explain"], ["--min-confidence", "0.5"]):
        done = imgcap_here("caption", album, "-o", tmp_path / "rows.jsonl", *option, "--model", telling_model)
        assert done.returncode in (ExitCode.FAILED, ExitCode.USAGE)
        assert not (tmp_path / "rows.jsonl").exists()


def test_apply_wants_to_know_where_to(imgcap_here: Run, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"path": "a.jpg", "error": "x"}\n')
    assert "Say where to" in imgcap_here("apply", tmp_path / "rows.jsonl").stderr
    done = imgcap_here("apply", tmp_path / "rows.jsonl", "--sidecar", ".txt")
    assert done.returncode == ExitCode.USAGE
    assert "holds no captions" in done.stderr
