"""`imgcap prepare`: what it says before and after, and its exit codes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from helpers.data import Run, draw, write_data_set
from imgcap.dataset.prepared import PreparedFolder
from imgcap.errors import ExitCode


@pytest.fixture
def prepare(imgcap_here: Run, encoder_file: Path) -> Run:
    """`imgcap prepare` of a folder of images and a file of captions, with the small encoder and more options."""

    def run(images: Path, captions: Path, *options: object) -> subprocess.CompletedProcess[str]:
        return imgcap_here("prepare", "--images", images, "--captions", captions, "--encoder", encoder_file, *options)

    return run


def write_images(folder: Path, count: int = 3) -> Path:
    folder.mkdir()
    for number in range(count):
        draw("red", number).save(folder / f"{number}.png")
    return folder


def test_what_training_would_miss_is_said_before_anything_is_encoded(
    imgcap_here: Run, prepare: Run, tmp_path: Path
) -> None:
    images = write_images(tmp_path / "images")
    rows = [f"{number}.png,一只狗在草地上跑步,train" for number in range(3)]
    (tmp_path / "c.csv").write_text("image,caption,split\n" + "\n".join(rows) + "\n", encoding="utf-8")
    done = prepare(images, tmp_path / "c.csv", "-o", tmp_path / "out")
    assert done.returncode == ExitCode.DONE
    unspaced, summary = (done.stderr.find(text) for text in ("no spaces", "3 images (train 3)"))
    assert 0 <= unspaced < summary
    assert "val" not in done.stderr  # so few images need no val split

    train = ["train", tmp_path / "out", "--epochs", 1, "--min-count", 1, "--embedding-size", 8, "--hidden-size", 8]
    refused = imgcap_here(*train, "-o", tmp_path / "model", "--patience", 2)
    assert refused.returncode == ExitCode.FAILED
    assert "Draw a val split with --val-share 0.1, or" in refused.stderr
    trained = imgcap_here(*train, "-o", tmp_path / "model", "--device", "cpu")
    assert trained.returncode == ExitCode.DONE, trained.stderr
    said = " ".join(trained.stderr.split())
    assert (
        "Starts from random weights. 3 training images: batches of 32, learning rate 0.001, dropout 0.5, 1 epoch,"
        in said
    )
    assert "epoch 1 of 1 is kept." in said
    assert imgcap_here(*train, "-o", tmp_path / "model").stderr.count("--start-from") == 1


def test_a_single_image_is_counted_as_one(prepare: Run, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 1)
    (tmp_path / "c.csv").write_text("image,caption\n0.png,A dog\n")
    out = tmp_path / "out"
    done = prepare(images, tmp_path / "c.csv", "-o", out)
    assert done.stderr.splitlines()[-1] == f"{out}: 1 image (train 1) with 1 caption."


def test_images_that_nobody_has_captioned_are_counted_and_are_no_failure(prepare: Run, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 4)
    (tmp_path / "c.csv").write_text("image,caption\n0.png,A dog\n1.png,A cat\n")
    done = prepare(images, tmp_path / "c.csv", "-o", tmp_path / "out")
    assert done.returncode == ExitCode.DONE
    assert done.stderr.splitlines()[-1] == "Left out 2 images without a caption."
    left_out = [item.name for item in PreparedFolder(tmp_path / "out").left_out()]
    assert left_out == ["2.png", "3.png"]


def test_rows_without_a_caption_are_faults(prepare: Run, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 3)
    (tmp_path / "c.jsonl").write_text('{"image": "0.png", "caption": "A dog"}\n{"image": "1.png"}\n')
    done = prepare(images, tmp_path / "c.jsonl", "-o", tmp_path / "out")
    assert done.returncode == ExitCode.SOME_FAILED
    assert done.stderr.splitlines()[-3:] == [
        "Left out 2 images without a caption.",
        "Left out 1:",
        "  c.jsonl, line 2: has no caption",
    ]


def test_an_unknown_split_is_a_usage_error(imgcap_here: Run, tmp_path: Path) -> None:
    done = imgcap_here("prepare", "--images", tmp_path, "-o", tmp_path / "out", "--split", "late=x.txt")
    assert done.returncode == ExitCode.USAGE
    assert "--split: unknown split 'late'." in done.stderr


def test_a_model_is_not_prepared_over(prepare: Run, model_folder: Path, tmp_path: Path) -> None:
    captions = write_data_set(tmp_path)
    before = sorted(model_folder.iterdir())
    done = prepare(tmp_path / "images", captions, "-o", model_folder, "--overwrite")
    assert done.returncode == ExitCode.FAILED
    assert f"{model_folder} is a model." in done.stderr
    assert sorted(model_folder.iterdir()) == before


def test_columns_can_be_named_and_bad_rows_are_listed(prepare: Run, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 4)
    (tmp_path / "c.csv").write_text("Foto;Alt\n0.png;A dog\n1.png;A cat\n2.png\n3.png;A bird\n")
    done = prepare(images, tmp_path / "c.csv", "-o", tmp_path / "out")
    assert done.returncode == ExitCode.FAILED
    assert "has no image column" in done.stderr
    assert "--image-column" in done.stderr
    done = prepare(
        images, tmp_path / "c.csv", "-o", tmp_path / "out", "--image-column", "foto", "--caption-column", "alt"
    )
    assert done.returncode == ExitCode.SOME_FAILED
    assert "c.csv, line 4: has 1 of 2 columns" in done.stderr
