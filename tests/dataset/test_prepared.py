"""Preparing features: what ends up on the disk, whatever happens on the way there."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ImageOps
from safetensors.torch import save_file
from torch import Tensor

from helpers.data import draw, write_data_set
from imgcap.dataset import preparation
from imgcap.dataset import prepared as features
from imgcap.dataset.preparation import PROGRESS_FILE, FeatureOptions, prepare
from imgcap.dataset.prepared import (
    FEATURES_FOLDER,
    LEFT_OUT_FILE,
    METADATA_FILE,
    PARTIAL_FOLDER,
    RECORDS_FILE,
    RECORDS_INDEX_FILE,
    MappedFeatures,
    PreparedFolder,
)
from imgcap.dataset.readers import Dataset, read_dataset
from imgcap.errors import ImgcapError, UsageError
from imgcap.files import read_json, write_json
from imgcap.images.decoding import Pixels, open_image, squash
from imgcap.model.encoder import Encoder, EncoderConfig
from imgcap.model.store import ENCODER_FILE

IMAGES, BATCH, ROWS = 13, 2, 4
"""13 images in batches of 2; without the 3 broken ones, 10 rows in files of 4."""
BROKEN = (4, 5, 8)
SIDE = 75


class Crash(BaseException):
    """The end of a process, as far as an exception can be one."""


class FakeEncoder(Encoder):
    """Fast features that depend on every pixel; raises `Crash` in call number `crash_at`."""

    def __init__(self, crash_at: int = -1) -> None:
        self.config = EncoderConfig(pixels=SIDE)
        self.crash_at, self.calls = crash_at, 0

    def __call__(self, pixels: Sequence[Pixels]) -> Tensor:
        self.calls += 1
        if self.calls == self.crash_at:
            raise Crash
        flat = torch.from_numpy(np.stack(pixels)).flatten(1).float()
        return flat[:, :2048] + flat.mean(1, keepdim=True)


class NoEncoder(FakeEncoder):
    def __call__(self, pixels: Sequence[Pixels]) -> Tensor:
        raise AssertionError(f"{len(pixels)} images were encoded")


def rows_in_a_file(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    for module in (features, preparation):
        monkeypatch.setattr(module, "ROWS_PER_FILE", rows)


@pytest.fixture
def small_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "BATCH_SIZE", BATCH)
    rows_in_a_file(monkeypatch, ROWS)


@pytest.fixture(scope="module")
def tiny_encoder_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough of an encoder for a fingerprint."""
    file = tmp_path_factory.mktemp("tiny-encoder") / "encoder.safetensors"
    save_file({"weight": torch.arange(5.0)}, file)
    return file


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with broken images among its own and one without a caption; read only."""
    folder = tmp_path_factory.mktemp("source")
    write_data_set(folder, IMAGES)
    for number in BROKEN:
        (folder / "images" / f"{number:03}.png").write_bytes(b"no image")
    draw("red", 1).save(folder / "images" / "nameless.png")
    return folder


@pytest.fixture(scope="module")
def dataset(source: Path) -> Dataset:
    return read_dataset(source / "images", source / "captions.csv")


Prepare = Callable[..., PreparedFolder]


@pytest.fixture
def run(dataset: Dataset, tiny_encoder_file: Path, small_sizes: None) -> Prepare:
    """`run(out, ...)` prepares the data set with a fake encoder."""

    def run(out: Path, data: Dataset = dataset, encoder: Encoder | None = None, **options: Any) -> PreparedFolder:
        wanted = FeatureOptions(options.pop("mirrored", False), options.pop("dtype", "float32"))
        return prepare(data, tiny_encoder_file, encoder or FakeEncoder(), "fake", out, wanted, **options)

    return run


@pytest.fixture
def whole(run: Prepare, tmp_path: Path) -> Path:
    """The folder of a preparation that nothing interrupted."""
    return run(tmp_path / "whole").root


def content(folder: Path) -> dict[str, bytes]:
    """Every file in `folder`, hidden ones too, and folders as empty files."""
    return {
        path.relative_to(folder).as_posix(): b"" if path.is_dir() else path.read_bytes() for path in folder.rglob("*")
    }


def crash_after(done: int) -> Callable[[int, int], None]:
    def on_progress(now: int, _total: int) -> None:
        if now == done:
            raise Crash

    return on_progress


@contextmanager
def crash_at_line(number: int, codes: set[CodeType]) -> Iterator[None]:
    """Raise `Crash` before the `number`-th line that runs in any of `codes`."""
    count = 0

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal count
        if frame.f_code not in codes:
            return None
        if event == "line":
            count += 1
            if count == number:
                raise Crash
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def test_features_are_what_the_encoder_computes(prepared: PreparedFolder, encoder: Encoder) -> None:
    assert len(prepared.records) == len(prepared.features) == 24
    pixels = [draw(("red", "green", "blue", "white")[i % 4], i) for i in (0, 7, 23)]
    expected = encoder([squash(image, encoder.config.pixels) for image in pixels]).numpy()
    assert [prepared.records[i].path for i in (0, 7, 23)] == ["000.png", "007.png", "023.png"]
    np.testing.assert_allclose(prepared.features[[0, 7, 23]], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_broken_images_are_left_out_and_listed(whole: Path, dataset: Dataset) -> None:
    prepared = PreparedFolder(whole)
    good = [i for i in range(IMAGES) if i not in BROKEN]
    assert [record.path for record in prepared.records] == [f"{i:03}.png" for i in good]
    assert tuple(prepared.records) == tuple(dataset.records[i] for i in good)
    left_out = {item.name: item.reason for item in prepared.left_out()}
    assert list(left_out) == ["nameless.png", *(f"{i:03}.png" for i in BROKEN)]
    assert left_out["nameless.png"] == "has no caption"
    assert all("is not an image that can be read" in left_out[f"{i:03}.png"] for i in BROKEN)
    assert (prepared.metadata.images, prepared.metadata.captions, prepared.metadata.left_out) == (10, 20, 4)
    assert sum(prepared.metadata.splits.values()) == 10
    expected = FakeEncoder()([squash(draw(("red", "green", "blue", "white")[i % 4], i), SIDE) for i in good])
    np.testing.assert_array_equal(prepared.features[list(range(10))], expected.numpy())
    assert [len(np.load(file)) for file in sorted((whole / FEATURES_FOLDER).iterdir())] == [4, 4, 2]
    assert prepared.encoder_file.read_bytes()
    assert prepared.image_root == dataset.root


def test_progress_counts_every_image(run: Prepare, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    run(tmp_path / "out", on_progress=lambda *now: seen.append(now))
    assert seen == [(done, IMAGES) for done in (0, 2, 4, 6, 8, 10, 12, 13)]


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("done", [0, 2, 4, 6, 8, 10, 12, 13])
def test_killed_after_any_batch_and_resumed_gives_the_same_bytes(
    run: Prepare, whole: Path, tmp_path: Path, done: int, torn: bool
) -> None:
    out = tmp_path / "killed"
    with pytest.raises(Crash):
        run(out, on_progress=crash_after(done))
    assert list(out.iterdir()) == [out / PARTIAL_FOLDER]
    if torn:
        with (out / PARTIAL_FOLDER / PROGRESS_FILE).open("ab") as file:
            file.write(b'{"done": 999, "rows": 99')
        files = sorted((out / PARTIAL_FOLDER / FEATURES_FOLDER).iterdir())
        if len(files) < 3:  # the next batch may have begun the next file
            files.append(out / PARTIAL_FOLDER / FEATURES_FOLDER / f"{len(files):05}.npy")
        for path in files[-2:]:
            with path.open("ab") as file:
                file.write(b"torn" * 3000)
    seen: list[int] = []
    run(out, on_progress=lambda now, _total: seen.append(now))
    assert seen[0] == done
    assert content(out) == content(whole)


@pytest.mark.parametrize("call", [1, 2, 3, 4, 5, 6])
def test_killed_while_a_batch_is_encoded_and_resumed_gives_the_same_bytes(
    run: Prepare, whole: Path, tmp_path: Path, call: int
) -> None:
    first, second = FakeEncoder(crash_at=call), FakeEncoder()
    with pytest.raises(Crash):
        run(tmp_path / "killed", encoder=first)
    run(tmp_path / "killed", encoder=second)
    assert content(tmp_path / "killed") == content(whole)
    assert first.calls + second.calls == 7  # the batch of two broken images is none; one batch was encoded twice


def test_mirrored_features_are_those_of_the_mirrored_images(
    run: Prepare, dataset: Dataset, tmp_path: Path, whole: Path
) -> None:
    prepared = run(tmp_path / "mirrored", mirrored=True)
    plain = PreparedFolder(whole)
    rows = list(range(len(plain.records)))
    assert prepared.metadata.mirrored and not plain.metadata.mirrored and plain.mirrored is None
    assert prepared.mirrored is not None
    np.testing.assert_array_equal(prepared.features[rows], plain.features[rows])
    images = [open_image(dataset.root / record.path) for record in prepared.records]
    expected = FakeEncoder()([squash(ImageOps.mirror(image), FakeEncoder().config.pixels) for image in images])
    np.testing.assert_array_equal(prepared.mirrored[rows], expected.numpy())
    assert (prepared.mirrored[rows] != prepared.features[rows]).any()


def test_half_precision_takes_half_the_disk(run: Prepare, dataset: Dataset, tmp_path: Path, whole: Path) -> None:
    half, plain = run(tmp_path / "half", dtype="float16"), PreparedFolder(whole)
    rows = list(range(len(plain.records)))
    assert half.features[rows].dtype == np.float32
    np.testing.assert_array_equal(half.features[rows], plain.features[rows].astype(np.float16).astype(np.float32))
    for file in (whole / FEATURES_FOLDER).iterdir():
        header = 128
        assert 2 * ((half.root / FEATURES_FOLDER / file.name).stat().st_size - header) == file.stat().st_size - header
    with pytest.raises(ImgcapError, match="prepared from other inputs"):
        run(whole, dtype="float16")


def test_features_that_half_precision_cannot_hold_are_one_sentence(
    run: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeEncoder, "__call__", lambda _, pixels: torch.full((len(pixels), 2048), 7e4))
    with pytest.raises(ImgcapError, match="too large for float16"):
        run(tmp_path / "half", dtype="float16")
    assert run(tmp_path / "whole", dtype="float32").features[[0]].max() == 7e4


def test_an_unknown_type_of_features_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="'int8'"):
        FeatureOptions(dtype="int8")


def test_asking_for_mirrored_features_later_needs_overwrite(run: Prepare, whole: Path) -> None:
    with pytest.raises(ImgcapError, match="prepared from other inputs"):
        run(whole, mirrored=True)
    assert run(whole, mirrored=True, overwrite=True).mirrored is not None


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a crash as a file is opened
def test_killed_at_any_line_and_resumed_gives_the_same_bytes(
    run: Prepare, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirrored: bool
) -> None:
    """Every line of what writes, from the first batch's features to the removal of `.partial`."""
    rows_in_a_file(monkeypatch, 2)
    few = replace(dataset, records=dataset.records[2:7])  # good, good; broken, broken; good
    expected = content(run(tmp_path / "whole", few, mirrored=mirrored).root)
    work = preparation._Work
    functions = (
        *(work.__init__, work.add, work._add_rows, work.move_to, work._append),
        *(preparation._finish, preparation._flush),
    )
    codes = {function.__code__ for function in functions}
    number, crashed = 0, True
    while crashed:
        number, crashed = number + 1, False
        out = tmp_path / "killed"
        try:
            with crash_at_line(number, codes):
                run(out, few, mirrored=mirrored)
        except Crash:
            crashed = True
        if crashed:
            run(out, few, mirrored=mirrored)
        assert content(out) == expected, f"killed before line {number}"
        shutil.rmtree(out)
    assert number > 100


def test_killed_twice_and_resumed_loses_no_batch(run: Prepare, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    seen: list[int] = []
    for done in (4, 10):
        with pytest.raises(Crash):
            run(out, on_progress=crash_after(done))
        with (out / PARTIAL_FOLDER / PROGRESS_FILE).open("ab") as file:
            file.write(b'{"done": 999, "rows": 99')
    run(out, on_progress=lambda now, _total: seen.append(now))
    assert seen[0] == 10
    assert content(out) == content(whole)


def prepare_and_die(images: str, encoder_file: str, out: str) -> None:
    """What the subprocess of the next test runs: it ends by SIGKILL in its fourth batch."""
    vars(preparation).update(BATCH_SIZE=BATCH, ROWS_PER_FILE=ROWS)
    vars(features).update(ROWS_PER_FILE=ROWS)

    class Dying(FakeEncoder):
        def __call__(self, pixels: Sequence[Pixels]) -> Tensor:
            if self.calls == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__call__(pixels)

    dataset = read_dataset(Path(images), Path(images).parent / "captions.csv")
    prepare(dataset, Path(encoder_file), Dying(), "fake", Path(out))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_process_killed_from_outside_can_be_resumed(
    run: Prepare, whole: Path, tmp_path: Path, dataset: Dataset, tiny_encoder_file: Path
) -> None:
    out = tmp_path / "killed"
    arguments = [str(path) for path in (dataset.root, tiny_encoder_file, out)]
    code = "import sys, test_features; test_features.prepare_and_die(*sys.argv[1:])"
    killed = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=Path(__file__).parent, timeout=900, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    seen: list[int] = []
    run(out, on_progress=lambda now, _total: seen.append(now))
    assert seen[0] == 8
    assert content(out) == content(whole)


@pytest.mark.parametrize("damage", ["first line torn", "features gone", "features too short"])
def test_progress_that_the_features_do_not_bear_out_is_begun_again(
    run: Prepare, whole: Path, tmp_path: Path, damage: str
) -> None:
    out = tmp_path / "killed"
    with pytest.raises(Crash):
        run(out, on_progress=crash_after(8))
    partial = out / PARTIAL_FOLDER
    if damage == "first line torn":
        (partial / PROGRESS_FILE).write_bytes(b'{"dig')
    elif damage == "features gone":
        (partial / FEATURES_FOLDER / "00000.npy").unlink()
    else:
        os.truncate(partial / FEATURES_FOLDER / "00001.npy", 1000)
    run(out)
    assert content(out) == content(whole)


def test_a_full_disk_is_one_sentence_and_what_is_there_is_kept(
    run: Prepare, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_now: int, _total: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ImgcapError, match="cannot be written: no space left on device"):
        run(tmp_path / "full", on_progress=full)
    assert content(run(tmp_path / "full").root) == content(whole)


def test_an_output_folder_that_cannot_be_is_one_sentence(run: Prepare, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ImgcapError, match="cannot be created"):
        run(tmp_path / "file" / "out")


def test_unchanged_inputs_are_not_encoded_again(run: Prepare, whole: Path) -> None:
    before = content(whole)
    again = run(whole, encoder=NoEncoder())
    assert len(again.records) == 10
    assert content(whole) == before


@pytest.fixture
def other_data(dataset: Dataset) -> Dataset:
    """The same images, one caption changed."""
    first = replace(dataset.records[0], captions=("Quite another wall.",))
    return replace(dataset, records=(first, *dataset.records[1:]))


def test_other_inputs_need_overwrite(run: Prepare, whole: Path, tmp_path: Path, other_data: Dataset) -> None:
    before = content(whole)
    with pytest.raises(ImgcapError, match="prepared from other inputs") as caught:
        run(whole, other_data)
    assert "--overwrite" in caught.value.hint
    assert content(whole) == before
    run(whole, other_data, overwrite=True)
    assert content(whole) == content(run(tmp_path / "fresh", other_data).root) != before


@pytest.mark.parametrize("done", [0, 2, 8, 13])
def test_the_old_folder_survives_until_the_new_one_is_whole(
    run: Prepare, whole: Path, tmp_path: Path, other_data: Dataset, done: int
) -> None:
    before = content(whole)
    with pytest.raises(Crash):
        run(whole, other_data, overwrite=True, on_progress=crash_after(done))
    assert before.items() <= content(whole).items()
    assert PreparedFolder(whole).records[0].captions != other_data.records[0].captions
    run(whole, encoder=NoEncoder())  # the old inputs are still there, and the half-made new ones stay
    seen: list[int] = []
    run(whole, other_data, overwrite=True, on_progress=lambda now, _total: seen.append(now))
    assert seen[0] == done
    assert content(whole) == content(run(tmp_path / "fresh", other_data).root)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a crash as a file is opened
@pytest.mark.parametrize("mirrored", [(False, False), (True, False), (False, True)])
def test_a_folder_is_never_half_old_and_half_new(
    run: Prepare, dataset: Dataset, tmp_path: Path, mirrored: tuple[bool, bool]
) -> None:
    """Killed at any line that puts the new features in the place of the old."""
    old_data, new_data = (replace(dataset, records=dataset.records[i : i + 3]) for i in (0, 9))
    old, out = run(tmp_path / "old", old_data, mirrored=mirrored[0]), tmp_path / "out"
    new = run(tmp_path / "new", new_data, mirrored=mirrored[1])
    wholes = [(tuple(prepared.records), prepared.features[[0, 1, 2]].tobytes()) for prepared in (old, new)]
    number, crashed = 0, True
    found = set()
    while crashed:
        number, crashed = number + 1, False
        shutil.copytree(old.root, out)
        try:
            with crash_at_line(number, {preparation._finish.__code__, preparation._Work.move_to.__code__}):
                run(out, new_data, mirrored=mirrored[1], overwrite=True)
        except Crash:
            crashed = True
        try:
            opened = PreparedFolder(out)
            found.add(wholes.index((tuple(opened.records), opened.features[[0, 1, 2]].tobytes())))
        except ImgcapError as error:
            assert "interrupted" in str(error)
            found.add(-1)
        run(out, new_data, mirrored=mirrored[1], overwrite=True)
        assert content(out) == content(new.root), f"killed before line {number}"
        shutil.rmtree(out)
    assert found == {0, 1, -1}


def test_an_interrupted_preparation_of_other_inputs_needs_overwrite(
    run: Prepare, tmp_path: Path, other_data: Dataset, whole: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(Crash):
        run(out, other_data, on_progress=crash_after(8))
    with pytest.raises(ImgcapError, match="interrupted preparation of other inputs"):
        run(out)
    run(out, overwrite=True)
    assert content(out) == content(whole)


@pytest.mark.parametrize("change", ["image", "time", "split", "left out", "encoder", "order"])
def test_any_changed_input_is_noticed(
    source: Path, tiny_encoder_file: Path, tmp_path: Path, change: str, run: Prepare
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(source, folder)
    data = read_dataset(folder / "images", folder / "captions.csv")
    run(tmp_path / "out", data)
    encoder_file, records = tiny_encoder_file, data.records
    if change == "image":
        draw("white", 3, size=32).save(folder / "images" / "000.png")
    elif change == "time":
        os.utime(folder / "images" / "000.png", ns=(1, 1))
    elif change == "split":
        other = "test" if records[0].split == "train" else "train"
        data = replace(data, records=(replace(records[0], split=other), *records[1:]))
    elif change == "left out":
        data = replace(data, left_out=())
    elif change == "order":
        data = replace(data, records=records[::-1])
    else:
        encoder_file = tmp_path / "other.safetensors"
        save_file({"weight": torch.zeros(5)}, encoder_file)
    with pytest.raises(ImgcapError, match="other inputs"):
        prepare(data, encoder_file, NoEncoder(), "fake", tmp_path / "out")


def test_a_image_that_changes_while_it_is_prepared_is_noticed_afterwards(
    source: Path, tmp_path: Path, run: Prepare
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(source, folder)
    data = read_dataset(folder / "images", folder / "captions.csv")

    def change(done: int, total: int) -> None:
        if done == total:
            draw("white", 3, size=32).save(folder / "images" / "000.png")

    run(tmp_path / "out", data, on_progress=change)
    with pytest.raises(ImgcapError, match="other inputs"):
        run(tmp_path / "out", data)


def test_a_image_that_has_gone_is_left_out(source: Path, tmp_path: Path, run: Prepare) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(source, folder)
    (folder / "images" / "000.png").unlink()
    (folder / "images" / "000.png").symlink_to("nowhere.png")
    data = read_dataset(folder / "images", folder / "captions.csv")
    prepared = run(tmp_path / "out", data)
    assert prepared.records[0].path == "001.png"
    assert any(item.name == "000.png" and "does not exist" in item.reason for item in prepared.left_out())


def test_images_that_are_all_broken_are_an_error(source: Path, tmp_path: Path, run: Prepare) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(source, folder)
    for image in (folder / "images").iterdir():
        image.write_bytes(b"no image")
    data = read_dataset(folder / "images", folder / "captions.csv")
    with pytest.raises(ImgcapError, match="None of the 13 images could be decoded") as caught:
        run(tmp_path / "out", data, encoder=NoEncoder())
    assert "000.png" in caught.value.hint
    with pytest.raises(ImgcapError, match="not a prepared folder"):
        PreparedFolder(tmp_path / "out")
    for number in range(IMAGES):  # once they are mended, the same command works
        draw("red", number).save(folder / "images" / f"{number:03}.png")
    assert len(run(tmp_path / "out", data).records) == IMAGES


@pytest.mark.parametrize("name", [ENCODER_FILE, RECORDS_FILE, LEFT_OUT_FILE, FEATURES_FOLDER + "/mine.txt"])
def test_a_folder_with_other_things_under_our_names_is_left_alone(run: Prepare, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("dear to somebody")
    before = content(out)
    with pytest.raises(ImgcapError, match=f"not a prepared folder, but holds {name.split('/')[0]}"):
        run(out)
    assert content(out) == before
    assert len(run(out, overwrite=True).records) == 10


def test_an_interrupted_folder_says_so(run: Prepare, tmp_path: Path) -> None:
    with pytest.raises(ImgcapError, match="is not a prepared folder") as caught:
        PreparedFolder(tmp_path / "out")
    assert "first" in caught.value.hint
    with pytest.raises(Crash):
        run(tmp_path / "out", on_progress=crash_after(4))
    with pytest.raises(ImgcapError, match="preparation was interrupted") as caught:
        PreparedFolder(tmp_path / "out")
    assert "again to go on" in caught.value.hint


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def edit_metadata(**changes: object) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        data = {**read_json(root / METADATA_FILE), **changes}
        write_json(root / METADATA_FILE, {key: value for key, value in data.items() if value is not None})

    return edit


def save(name: str, array: np.ndarray[Any, Any]) -> Callable[[Path], None]:
    return lambda root: np.save(root / FEATURES_FOLDER / name, array)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "metadata torn": (lambda root: cut(root / METADATA_FILE), "not valid JSON"),
    "metadata a list": (lambda root: write_json(root / METADATA_FILE, [1]), r"prepared\.json is damaged"),
    "metadata without a field": (edit_metadata(images=None), r"prepared\.json is damaged"),
    "metadata with a strange encoder": (edit_metadata(encoder_config={"x": 1}), r"prepared\.json is damaged"),
    "another version": (edit_metadata(format_version=99), "another version of imgcap"),
    "counts wrong": (edit_metadata(images=9), "10 rows of features for 10 records"),
    "records gone": (lambda root: (root / RECORDS_FILE).unlink(), r"records\.jsonl cannot be read"),
    "records torn": (lambda root: cut(root / RECORDS_FILE), r"records\.jsonl, line \d+ is not valid JSON"),
    "record without path": (
        lambda root: (root / RECORDS_FILE).write_text('{"image_id": "a"}\n'),
        "line 1 is not a record",
    ),
    "records not objects": (lambda root: (root / RECORDS_FILE).write_text("5\n"), "line 1 is not a record"),
    "a record gone": (
        lambda root: (root / RECORDS_FILE).write_bytes((root / RECORDS_FILE).read_bytes().split(b"\n", 1)[1]),
        "10 rows of features for 9 records",
    ),
    "features gone": (lambda root: shutil.rmtree(root / FEATURES_FOLDER), "0 rows of features"),
    "last features gone": (lambda root: (root / FEATURES_FOLDER / "00002.npy").unlink(), "8 rows of features"),
    "features torn": (lambda root: cut(root / FEATURES_FOLDER / "00001.npy"), "cannot be read"),
    "features empty": (lambda root: (root / FEATURES_FOLDER / "00001.npy").write_bytes(b""), "cannot be read"),
    "features text": (lambda root: (root / FEATURES_FOLDER / "00001.npy").write_text("numbers"), "cannot be read"),
    "features too short": (save("00000.npy", np.zeros((3, 2048), np.float32)), "too short"),
    "features too narrow": (save("00000.npy", np.zeros((4, 7), np.float32)), "holds no features"),
    "features of another type": (save("00000.npy", np.zeros((4, 2048))), "holds no features"),
    "features of another shape": (save("00000.npy", np.zeros(2048, np.float32)), "holds no features"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_folder_is_one_sentence(whole: Path, name: str) -> None:
    damage, message = DAMAGES[name]
    damage(whole)
    with pytest.raises(ImgcapError, match=message) as caught:
        PreparedFolder(whole)
    assert str(whole) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", ['{"name": "a"}', "[1, 2]", "torn {"])
def test_a_damaged_list_of_what_was_left_out_is_one_sentence(whole: Path, line: str) -> None:
    (whole / LEFT_OUT_FILE).write_text(line)
    with pytest.raises(ImgcapError, match=r"left_out\.jsonl"):
        PreparedFolder(whole).left_out()


@pytest.mark.parametrize("counts", [(4, 4, 3), (4, 4), (2,), (4,)])
@pytest.mark.usefixtures("small_sizes")
def test_mapped_features_equal_the_files_in_a_row(tmp_path: Path, counts: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((count, 2048), np.float32) for count in counts]
    files = [tmp_path / f"{i}.npy" for i in range(len(parts))]
    for file, part in zip(files, parts, strict=True):
        np.save(file, part)
    mapped, matrix = MappedFeatures(files), np.concatenate(parts)
    assert len(mapped) == len(matrix)
    for rows in ([], [0], [len(matrix) - 1], list(range(len(matrix))), rng.integers(0, len(matrix), 50).tolist()):
        found = mapped[rows]
        assert found.dtype == np.float32
        assert found.flags.writeable
        np.testing.assert_array_equal(found, matrix[np.asarray(rows, int)])
    np.testing.assert_array_equal(mapped[np.array([1, 0, 1])], matrix[[1, 0, 1]])
    with pytest.raises(IndexError):
        mapped[[len(matrix)]]


def test_rows_of_a_split_belong_to_it(run: Prepare, dataset: Dataset, tmp_path: Path) -> None:
    splits = ("train", "val", "train", "test")
    records = tuple(replace(record, split=splits[i % 4]) for i, record in enumerate(dataset.records))
    prepared = run(tmp_path / "out", replace(dataset, records=records))
    rows = {split: prepared.rows(split) for split in ("train", "val", "test")}
    assert all(prepared.records[row].split == split for split, found in rows.items() for row in found)
    assert sorted(row for found in rows.values() for row in found) == list(range(10))
    assert {split: len(found) for split, found in rows.items()} | {"none": 0} == prepared.metadata.splits


def test_a_missing_split_names_those_that_there_are(run: Prepare, dataset: Dataset, tmp_path: Path) -> None:
    splits = ["train"] * 9 + ["test", "test", None, None]
    records = tuple(replace(record, split=split) for record, split in zip(dataset.records, splits, strict=True))
    prepared = run(tmp_path / "out", replace(dataset, records=records))
    with pytest.raises(ImgcapError, match="has no images in the split 'val'") as caught:
        prepared.rows("val")
    assert caught.value.hint == "It has: train (6), test (2), none (2)."
    for unknown in ("dev", "none", ""):
        with pytest.raises(UsageError, match="Unknown split"):
            prepared.rows(unknown)


def test_the_metadata_tells_where_the_features_come_from(whole: Path, dataset: Dataset) -> None:
    data = json.loads((whole / METADATA_FILE).read_text())
    assert data["encoder"] == "fake"
    assert data["encoder_config"] == {"pixels": SIDE, "resize": "squash-bicubic", "count_padding": True}
    assert Path(data["image_root"]) == dataset.root.resolve()


def test_records_are_read_by_their_index(run: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = run(tmp_path / "out")
    records = tuple(prepared.records)
    assert prepared.records[-1] == records[-1]
    assert prepared.records[2:5] == records[2:5]
    with pytest.raises(IndexError):
        prepared.records[len(records)]
    (tmp_path / "out" / RECORDS_INDEX_FILE).unlink()
    scanned = PreparedFolder(tmp_path / "out")
    assert tuple(scanned.records) == records
    assert scanned.rows("train").tolist() == prepared.rows("train").tolist()


@pytest.mark.parametrize(
    "damage",
    [
        lambda index: index.write_bytes(index.read_bytes()[:100]),
        lambda index: index.write_text("no index"),
        lambda index: np.save(index, np.arange(3)),
        lambda index: np.save(index, np.load(index)[:-1]),
    ],
    ids=["torn", "text", "of numbers", "of fewer records"],
)
def test_a_damaged_index_of_the_records_is_made_anew(
    run: Prepare, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    prepared = run(tmp_path / "out")
    records, splits = tuple(prepared.records), prepared.records.splits.tolist()
    damage(tmp_path / "out" / RECORDS_INDEX_FILE)
    again = PreparedFolder(tmp_path / "out")
    assert tuple(again.records) == records
    assert again.records.splits.tolist() == splits


def test_records_that_were_changed_under_their_index_are_told_of(run: Prepare, tmp_path: Path) -> None:
    run(tmp_path / "out")
    file = tmp_path / "out" / RECORDS_FILE
    text = file.read_text()
    file.unlink()
    file.write_text(text.replace('"split": "val"', '"split": null').replace('"split": "test"', '"split": "val" '))
    prepared = PreparedFolder(tmp_path / "out")
    with pytest.raises(ImgcapError, match="not its index") as told:
        list(prepared.records)
    assert RECORDS_INDEX_FILE in told.value.hint
