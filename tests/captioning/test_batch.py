"""The long run: what reaches which output, in which order."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from helpers.data import draw
from imgcap.captioning.batch import Outputs, Tally, caption_batches
from imgcap.captioning.captioner import Captioner, load_model
from imgcap.captioning.options import BatchOptions
from imgcap.captioning.row_files import RowWriter
from imgcap.captioning.rows import NOT_WRITTEN, Origin, Row, RowOptions
from imgcap.captioning.sidecars import Sidecars
from imgcap.errors import UsageError
from imgcap.images.errors import ImageError
from imgcap.images.metadata.description import read_description

ORIGIN = Origin("telling", "0123", "beam_size=3")


class Witness(RowWriter):
    """Takes rows, and notes which sidecars and descriptions are there when each row comes."""

    def __init__(self) -> None:
        super().__init__(io.StringIO())
        self.rows: list[Row] = []
        self.sidecars: list[bool] = []
        self.descriptions: list[str | None] = []

    def write(self, row: Row) -> None:
        self.rows.append(row)
        path = Path(row["path"])
        self.sidecars.append(path.with_suffix(".txt").exists())
        self.descriptions.append(read_description(path) if path.is_file() else None)


@pytest.fixture(scope="module")
def captioner(telling_model: Path) -> Captioner:
    return load_model(telling_model, device="cpu")


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"{i}.png" for i in range(5)]
    for i, file in enumerate(files):
        draw("red", i).save(file)
    return files


def run(captioner: Captioner, images: list[Any], outputs: dict[str, Any] | None = None, **options: Any) -> Witness:
    witness = Witness()
    search, tally = captioner.model.config.search, Tally()
    for rows in caption_batches(
        captioner, images, search, BatchOptions(**options), Outputs(witness, **outputs or {}), ORIGIN, tally
    ):
        assert witness.rows[-len(rows) :] == rows
        assert tally.images == len(witness.rows)
    return witness


def test_a_row_is_written_after_the_other_outputs(captioner: Captioner, images: list[Path]) -> None:
    witness = run(captioner, images, {"sidecars": Sidecars(), "metadata": True}, batch_size=2)
    assert witness.sidecars == [True] * 5
    assert witness.descriptions == [row["caption"] for row in witness.rows]
    assert [row["bytes"] for row in witness.rows] == [file.stat().st_size for file in images]
    assert [row["modified"] for row in witness.rows] == [file.stat().st_mtime_ns for file in images]


def test_a_caption_that_cannot_be_written_has_an_error_too(captioner: Captioner, images: list[Path]) -> None:
    images[1].with_suffix(".txt").write_text("by hand\n")
    witness = run(captioner, images, {"sidecars": Sidecars()})
    assert ["error" in row for row in witness.rows] == [False, True, False, False, False]
    assert witness.rows[1]["error_kind"] == NOT_WRITTEN
    assert witness.rows[1]["caption"]
    assert images[1].with_suffix(".txt").read_text() == "by hand\n"


def test_bytes_images_and_errors_may_be_mixed_with_paths(captioner: Captioner, images: list[Path]) -> None:
    error = ImageError("folder cannot be read.", kind="unreadable", path="folder")
    sources = [images[0], images[0].read_bytes(), draw("red", 0), error, images[1]]
    witness = run(captioner, sources, {"sidecars": Sidecars()})
    assert [row["path"] for row in witness.rows] == [str(images[0]), "-", "-", "folder", str(images[1])]
    assert len({row["caption"] for row in witness.rows[:3]}) == 1
    assert witness.rows[3]["error_kind"] == "unreadable"


def test_the_state_in_a_row_is_that_of_the_file_that_was_read(captioner: Captioner, images: list[Path]) -> None:
    before = images[0].stat()
    witness = run(captioner, images)
    assert (witness.rows[0]["bytes"], witness.rows[0]["modified"]) == (before.st_size, before.st_mtime_ns)
    images[0].unlink()
    [row] = run(captioner, images[:1]).rows
    assert (row["error_kind"], row["bytes"]) == ("missing", None)


def test_images_with_too_many_pixels_are_not_decoded(captioner: Captioner, images: list[Path]) -> None:
    witness = run(captioner, images, max_pixels=64 * 64 - 1)
    assert {row["error_kind"] for row in witness.rows} == {"too large"}
    assert "caption" in run(captioner, images, max_pixels=64 * 64).rows[0]


@pytest.mark.parametrize("values", [{"batch_size": 0}, {"max_pixels": 0}])
def test_numbers_below_one_are_wrong_usage(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="at least 1"):
        BatchOptions(**values)


def test_a_minimum_confidence_needs_a_calibrated_model(captioner: Captioner, images: list[Path]) -> None:
    with pytest.raises(UsageError, match="no calibrated confidence"):
        run(captioner, images, rows=RowOptions(min_confidence=0.5))
