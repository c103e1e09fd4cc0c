"""`imgcap caption` stopped, killed and resumed."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

from helpers.command import COLOURS, read_json_lines
from helpers.data import Run, draw
from helpers.forked import ForkedProcess
from helpers.forked import imgcap as imgcap_main
from imgcap.errors import ExitCode


def test_fail_fast_stops_at_the_first_failure(
    imgcap_here: Run, album: Path, telling_model: Path, tmp_path: Path
) -> None:
    (album / "05-broken.jpg").write_bytes(b"no image")
    output = tmp_path / "rows.jsonl"
    done = imgcap_here("caption", album, "-o", output, "--fail-fast", "--model", telling_model)
    assert done.returncode == ExitCode.SOME_FAILED
    rows = read_json_lines(output)
    assert ["error" in row for row in rows] == [False] * 5 + [True]


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
        process = ForkedProcess(imgcap_main, [*base, killed])
        while process.poll() is None and not (killed.exists() and killed.stat().st_size > before + 200 * rows_more):
            time.sleep(0.005)
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        with killed.open("ab") as file:
            file.write(b'{"path": "torn')
    assert kills >= 2
    done = imgcap(*base, killed)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert killed.read_bytes() == whole.read_bytes()
    assert "120 images are done" in imgcap(*base, killed).stderr


def test_ctrl_c_finishes_the_batch_and_says_how_to_continue(album: Path, telling_model: Path, tmp_path: Path) -> None:
    for i in range(20, 220):
        draw(COLOURS[i % 4], i, 65 + i).save(album / f"{i}.png")
    output = tmp_path / "rows.jsonl"
    arguments = ["caption", album, "--model", telling_model, "-o", output, "--batch-size", 4]
    process = ForkedProcess(imgcap_main, arguments)
    while process.poll() is None and not (output.exists() and output.stat().st_size):
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == ExitCode.INTERRUPTED
    assert "--resume" in errors
    assert "Traceback" not in errors
    rows = read_json_lines(output)
    assert 0 < len(rows) < 220
    assert f"Captioned {len(rows)} images in" in errors
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
    assert "line 1 was written with --beam-size 2, not with --beam-size 1." in other.stderr
    assert read_json_lines(output) == after
