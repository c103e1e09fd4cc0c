"""Files from strangers: whatever they hold, a reader returns a result or raises one sentence."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from helpers.data import TINY_TRAINING
from helpers.hostile import CASES, PAIRS, READERS, Reader, as_bytes, hostile, write_model, write_prepared
from imgcap.dataset.prepared import (
    FEATURES_FOLDER,
    PARTIAL_FOLDER,
    PreparedFolder,
)
from imgcap.errors import ImgcapError
from imgcap.files import write_json_lines
from imgcap.training.checkpoint import CHECKPOINT_FILE
from imgcap.training.trainer import Trainer, train


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that readers need beside the file they read."""
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "images").mkdir()
    for i in range(3):
        (folder / "images" / f"{i}.jpg").touch()
    (folder / "all.csv").write_text("image,caption\n0.jpg,x\n1.jpg,y\n")
    for name in ("references.jsonl", "hypotheses.jsonl"):
        write_json_lines(folder / name, PAIRS)
    write_model(folder / "model")
    write_prepared(folder / "prepared")
    return folder


@pytest.mark.parametrize("name", READERS)
def test_a_hostile_file_is_a_result_or_one_sentence(home: Path, name: str) -> None:
    reader = READERS[name]
    file = home / reader.name
    before = file.read_bytes() if file.exists() else None
    valid = as_bytes(reader) if reader.content is not None else file.read_bytes()

    @settings(
        max_examples=CASES, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(hostile(reader, valid))
    def attack(content: bytes) -> None:
        file.write_bytes(content)
        try:
            reader.read(file)
        except ImgcapError as error:
            assert str(error).strip()

    try:
        file.write_bytes(valid)
        if name != "encoder":  # one tensor is no network
            reader.read(file)
        attack()
    finally:
        file.unlink()
        if before is not None:
            file.write_bytes(before)
        shutil.rmtree(home / "prepared" / PARTIAL_FOLDER)
        (home / "prepared" / PARTIAL_FOLDER / FEATURES_FOLDER).mkdir(parents=True)


LONG = "a" * 10_000_000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("flickr8k a.token", f"0.jpg#0\t{LONG}\n"),
        ("csv a.csv", f"image,caption\n0.jpg,{LONG}\n"),
        ("jsonl a.jsonl", f'{{"image": "{LONG}", "caption": "x"}}\n'),
        ("coco a.json", json.dumps({"images": [{"id": LONG, "file_name": "0.jpg"}], "annotations": []})),
        ("read_as_hypotheses a.txt", f"{LONG}\tx\n"),
        ("rows csv", f"path,{LONG}\n"),
        ("rows jsonl", f'{{"path": "{LONG}"}}\n'),
        ("resume", f'{{"path": "{LONG}"'),
    ],
)
def test_a_line_of_ten_megabytes_is_a_result_or_one_sentence(home: Path, name: str, content: str) -> None:
    file = home / READERS[name].name
    file.write_text(content)
    try:
        READERS[name].read(file)
    except ImgcapError as error:
        assert 0 < len(str(error).strip()) < 2100
    finally:
        file.unlink()


class ResumedError(Exception):
    """A state was resumed."""


def resumed(*_: object) -> None:
    raise ResumedError


def test_a_hostile_training_state_is_resumed_or_one_sentence(
    prepared: PreparedFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, file = replace(TINY_TRAINING, epochs=1), tmp_path / CHECKPOINT_FILE
    monkeypatch.setattr(Trainer, "save_model", resumed)
    with pytest.raises(ResumedError):
        train(prepared, options, tmp_path)
    monkeypatch.setattr(Trainer, "run_epoch", resumed)
    whole = file.read_bytes()

    @settings(
        max_examples=CASES, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(hostile(Reader(CHECKPOINT_FILE, None, resumed), whole))
    def attack(content: bytes) -> None:
        file.write_bytes(content)
        with pytest.raises((ResumedError, ImgcapError)) as caught:
            train(prepared, options, tmp_path, resume=True)
        assert isinstance(caught.value, ResumedError) or str(caught.value).strip()

    attack()
    file.write_bytes(whole)
    with pytest.raises(ResumedError):
        train(prepared, options, tmp_path, resume=True)
