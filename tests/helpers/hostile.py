"""Files from strangers for the tests: a valid file for each reader, and random damage, the same in every run.

`IMGCAP_HOSTILE_CASES=2000` makes a long search of it.
"""

from __future__ import annotations

import json
import math
import os
import struct
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import save_file

from imgcap.captioning.explain import TrainingIndex
from imgcap.captioning.resume import ResumeOptions, resume
from imgcap.captioning.row_files import read_rows
from imgcap.captioning.rows import Origin
from imgcap.dataset.features import FeatureOptions
from imgcap.dataset.loading import read_dataset
from imgcap.dataset.prepared import (
    FEATURES_FOLDER,
    LEFT_OUT_FILE,
    METADATA_FILE,
    PARTIAL_FOLDER,
    RECORDS_FILE,
    PreparedFolder,
    PreparedMetadata,
)
from imgcap.dataset.unfinished import PROGRESS_FILE, UnfinishedFeatures
from imgcap.files import write_json, write_json_lines
from imgcap.model.confidence import Calibration
from imgcap.model.decoder import DecoderConfig, LSTMDecoder
from imgcap.model.encoder import Encoder, EncoderConfig
from imgcap.model.folder import ModelConfig, load_model_folder, save_decoder
from imgcap.model.inception import FEATURE_SIZE
from imgcap.model.search import SearchOptions
from imgcap.model.store import (
    CONFIG_FILE,
    DECODER_FILE,
    ENCODER_FILE,
    INDEX_FILE,
    MANIFEST_FILE,
    METRICS_FILE,
    MODEL_CARD_FILE,
    VOCABULARY_FILE,
    verify,
    write_manifest,
)
from imgcap.pages.gallery import GalleryWriter
from imgcap.scoring.pairs import read_hypotheses, read_pairs
from imgcap.text.vocabulary import SPECIAL_WORDS, Vocabulary
from imgcap.training.curves import learning_curves
from imgcap.training.progress import EpochResult

CASES = int(os.environ.get("IMGCAP_HOSTILE_CASES", "20"))
CPU = torch.device("cpu")
needs_links = pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links and pipes")


TABLE = 'image,caption,split\n0.jpg,A dog runs .,train\n1.jpg,"A cat, asleep",val\n2,A bird,test\n'
COCO = {
    "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(3)],
    "annotations": [{"image_id": i, "caption": "A dog runs ."} for i in range(3)],
}
KARPATHY = {
    "images": [
        {"filename": f"{i}.jpg", "filepath": "x", "split": split, "sentences": [{"raw": "A dog ."}]}
        for i, split in enumerate(("train", "val", "test"))
    ]
}
LINES = [{"image": f"{i}.jpg", "captions": ["A dog .", "Two dogs"], "split": "val"} for i in range(3)]
PAIRS = [{"image_id": i, "caption": "a dog"} for i in range(3)]
ORIGIN = {"model": "walls", "model_hash": "0123", "settings": "beam_size=5"}
ROWS = [
    {"path": f"{i}.jpg", "caption": "a dog", "confidence": 0.5, "alternatives": [], "bytes": 3, "modified": 5, **ORIGIN}
    for i in range(3)
]
ROW_TABLE = 'path,caption,confidence\n0.jpg,\'=a dog,0.5\n1.jpg,"a, cat",\n'
RECORDS = [{"image_id": f"{i}", "path": f"{i}.jpg", "captions": ["a dog"], "split": "train"} for i in range(3)]
METADATA = PreparedMetadata(1, "d" * 64, "images", "default", "f" * 64, EncoderConfig(), 3, 3, {"train": 3}, 1)
PROGRESS = [{"digest": "d"}, {"done": 2, "rows": 1, "failed": [[0, "broken"]]}, {"done": 3, "rows": 2, "failed": []}]


@dataclass(frozen=True)
class Reader:
    """How one file of a folder is read: `content` is valid bytes or text, a JSON value, or a list of JSON Lines."""

    name: str
    content: Any
    read: Callable[[Path], object]
    """Takes the file."""


def json_lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


def as_bytes(reader: Reader) -> bytes:
    content = reader.content
    if isinstance(content, list) and reader.name.endswith(".jsonl"):
        return json_lines(content)
    if isinstance(content, (dict, list)):
        return json.dumps(content, indent=2).encode()
    return content.encode() if isinstance(content, str) else bytes(content)


def data_set(format_name: str | None) -> Callable[[Path], object]:
    return lambda file: read_dataset(file.parent / "images", file, format_name)


def read_as_hypotheses(file: Path) -> object:
    return read_pairs(file, [file.with_name("references.jsonl")])


def read_as_references(file: Path) -> object:
    return read_pairs(file.with_name("hypotheses.jsonl"), [file, file])


def write_page(file: Path) -> None:
    with GalleryWriter(file.with_name("page.html"), "Walls") as gallery:
        for row in read_rows(file):
            gallery.add(row, None)


def resume_run(file: Path) -> None:
    resume(file, Origin(**ORIGIN), ResumeOptions(by_content=True))


def caption_with_model(file: Path) -> None:
    model = load_model_folder(file.parent, CPU)
    found = model.search(torch.ones(1, FEATURE_SIZE), model.config.search)
    assert all(math.isfinite(h.log_probability) and model.text(h) == model.text(h) for [h, *_] in found)


def explain_captions(file: Path) -> None:
    [found] = TrainingIndex.load(file).explain(torch.ones(1, FEATURE_SIZE), ["a dog"])
    assert not math.isnan(found.distance)


def open_prepared(file: Path) -> None:
    root = file.parents[1] if file.suffix == ".npy" else file.parent
    prepared = PreparedFolder(root)
    assert prepared.image_root.name is not None
    assert all(isinstance(caption, str) for record in prepared.records for caption in record.captions)
    prepared.features[prepared.rows("train")]
    prepared.left_out()


def continue_preparation(file: Path) -> None:
    work = UnfinishedFeatures(file.parent, "d", FeatureOptions(), overwrite=False)
    assert work.rows >= 0
    assert work.done >= 0


READERS = {
    **{
        f"{format_name or 'detected'} {name}": Reader(name, content, data_set(format_name))
        for format_name, name, content in [
            ("flickr8k", "a.token", "0.jpg#0\tA dog runs .\n1.jpg#0\tA cat\n2.jpg#1\tx\n"),
            ("csv", "a.csv", TABLE),
            ("coco", "a.json", COCO),
            ("karpathy", "a.json", KARPATHY),
            ("jsonl", "a.jsonl", LINES),
            (None, "a.txt", "0.jpg#0\tA dog runs .\n1.jpg#0\tA cat\n2.jpg#1\tx\n"),
            (None, "a.json", COCO),
        ]
    },
    "sidecars": Reader("images/0.txt", "A dog runs .\nTwo dogs\n", lambda f: read_dataset(f.parent, f.parent)),
    "imagefolder csv": Reader("images/metadata.csv", TABLE, lambda f: read_dataset(f.parent, f.parent)),
    "imagefolder jsonl": Reader("images/metadata.jsonl", LINES, lambda f: read_dataset(f.parent, f.parent)),
    "split list": Reader(
        "train.txt",
        "0.jpg\n1.jpg\n",
        lambda f: read_dataset(f.parent / "images", f.with_name("all.csv"), None, {"val": f}),
    ),
    **{
        f"{how.__name__} {name}": Reader(name, content, how)
        for how in (read_as_hypotheses, read_as_references)
        for name, content in [
            ("a.jsonl", PAIRS),
            ("a.json", {"annotations": PAIRS}),
            ("a.csv", "image_id,caption_0,caption_1\n0,a dog,\n1,,a cat\n2,a bird,\n"),
            ("a.txt", "0\ta dog\n1\ta cat\n2\ta bird\n"),
        ]
    },
    "plain text": Reader("a.txt", "a dog\na cat\na bird\n", lambda f: read_hypotheses(f, dict.fromkeys("123", ()))),
    "rows jsonl": Reader("a.jsonl", ROWS, write_page),
    "rows csv": Reader("a.csv", ROW_TABLE, write_page),
    "resume": Reader("a.jsonl", ROWS, resume_run),
    "manifest": Reader("model/" + MANIFEST_FILE, None, lambda f: verify(f.parent)),
    "config": Reader("model/" + CONFIG_FILE, None, caption_with_model),
    "vocabulary": Reader("model/" + VOCABULARY_FILE, None, caption_with_model),
    "decoder": Reader("model/" + DECODER_FILE, None, caption_with_model),
    "encoder": Reader("model/" + ENCODER_FILE, None, lambda f: Encoder.load(f, CPU)),
    "index": Reader("model/" + INDEX_FILE, None, explain_captions),
    "metrics": Reader("model/" + METRICS_FILE, None, lambda f: learning_curves(f.parent)),
    "prepared metadata": Reader("prepared/" + METADATA_FILE, asdict(METADATA), open_prepared),
    "prepared records": Reader("prepared/" + RECORDS_FILE, RECORDS, open_prepared),
    "prepared left out": Reader(
        "prepared/" + LEFT_OUT_FILE, [{"name": "x.jpg", "reason": "is missing"}], open_prepared
    ),
    "prepared features": Reader(f"prepared/{FEATURES_FOLDER}/00000.npy", None, open_prepared),
    "progress": Reader(f"prepared/{PARTIAL_FOLDER}/{PROGRESS_FILE}", PROGRESS, continue_preparation),
}
"""By what is read. A content of None is what `write_model` and `write_prepared` write."""


def write_model(folder: Path, weights: float = 1.0) -> Path:
    """A model of six words that was never trained, and an encoder of one tensor."""
    folder.mkdir()
    torch.manual_seed(0)
    decoder = LSTMDecoder(DecoderConfig(10, 4, 4))
    vocabulary = Vocabulary((*SPECIAL_WORDS, *"abcdef"))
    search = SearchOptions(beam_size=2, max_length=4, ban=("f",))
    calibration = Calibration((1.0, 2.0, 3.0), 60, 0.5, 0.02)
    config = ModelConfig("walls", "f" * 64, decoder.config, search, {"epochs": 2}, calibration)
    save_decoder(folder, {name: weights * t for name, t in decoder.state_dict().items()}, vocabulary, config)
    header = {"imgcap": json.dumps(asdict(EncoderConfig(pixels=75)))}
    save_file({"Conv2d_1a_3x3.conv.weight": torch.zeros(32, 3, 3, 3)}, folder / ENCODER_FILE, header)
    make_index().save(folder / INDEX_FILE)
    (folder / MODEL_CARD_FILE).write_text("# Walls\n")
    log = [EpochResult(epoch, 2.0, 0.001, 0.5, (0.4, 0.3, 0.2, 0.1), 9.0) for epoch in (1, 2)]
    write_json_lines(folder / METRICS_FILE, map(asdict, log))
    write_manifest(folder)
    return folder


def make_index(components: int = 2) -> TrainingIndex:
    return TrainingIndex(
        names=("a.jpg", "b.jpg"),
        codes=torch.ones(2, components, dtype=torch.int8),
        mean=torch.zeros(FEATURE_SIZE),
        std=torch.ones(FEATURE_SIZE),
        projection=torch.ones(FEATURE_SIZE, components, dtype=torch.float16),
        variances=torch.ones(components),
        caption_hashes=torch.tensor([1, 2]),
        percentiles=torch.linspace(0, 5, 101),
    )


def write_prepared(folder: Path) -> Path:
    (folder / FEATURES_FOLDER).mkdir(parents=True)
    (folder / PARTIAL_FOLDER / FEATURES_FOLDER).mkdir(parents=True)
    for features in (folder / FEATURES_FOLDER, folder / PARTIAL_FOLDER / FEATURES_FOLDER):
        np.save(features / "00000.npy", np.zeros((3, FEATURE_SIZE), np.float32))
    write_json(folder / METADATA_FILE, asdict(METADATA))
    write_json_lines(folder / RECORDS_FILE, RECORDS)
    write_json_lines(folder / LEFT_OUT_FILE, [])
    return folder


# How files are damaged.

DEEP: Any = 0
for _ in range(600):
    DEEP = [DEEP]
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 2, 1.5, 10**30, -(10**400), math.nan, math.inf, "", "a", "\0", "\ud800", "\x1b[31m"),
    *("../../x", "/etc/passwd", "NaN", "train", "x" * 3000, [], {}, [[]], [1, "a"], {"a": 1}, [None], DEEP),
]
CHUNKS = [
    *(
        b"\0",
        b"\xff",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        b"\r",
        b"\n",
        b"\r\n",
        b"\t",
        b'"',
        b"'",
        b",",
        b"{",
        b"}",
        b"[",
        b"]",
    ),
    *(b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"[" * 3000, b'{"a":' * 1500, b'"\\ud800"', b"null", b"-1"),
    *(b"x" * 140_000, b"\x80\x02c", b"PK\x03\x04", struct.pack("<Q", 2**62), "\u2028\u202e\x85".encode()),
]


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """`whole` after a few blows."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        # The beginning, where headers are, is hit as often as all the rest.
        place = draw(st.integers(0, len(data)) | st.integers(0, min(300, len(data))))
        length = draw(st.integers(1, 40))
        match draw(st.sampled_from(["flip", "cut", "double", "insert", "end", "swap"])):
            case "flip" if place < len(data):
                data[place] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[place : place + length]
            case "double":
                data[place:place] = data[max(0, place - length) : place]
            case "insert":
                data[place:place] = draw(st.sampled_from(CHUNKS))
            case "end":
                del data[place:]
            case "swap":
                data[place : place + length] = draw(st.binary(max_size=length))
    return bytes(data)


@st.composite
def edited(draw: st.DrawFn, value: Any) -> Any:
    """A JSON value with one of its parts replaced, removed or doubled."""
    if isinstance(value, (dict, list)) and value and draw(st.integers(0, 5)):
        keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = draw(st.sampled_from(keys))
        copy = value.copy()
        if draw(st.integers(0, 7)):
            copy[key] = draw(edited(value[key]))
        else:
            del copy[key]
        if isinstance(copy, dict) and not draw(st.integers(0, 9)):
            copy[draw(st.sampled_from(["colour", "", "error", "caption_2", "id"]))] = draw(st.sampled_from(VALUES))
        return copy
    return draw(st.sampled_from(VALUES))


def hostile(reader: Reader, whole: bytes) -> st.SearchStrategy[bytes]:
    broken = damaged(whole) | st.binary(max_size=300)
    if reader.name.endswith(".json"):
        return broken | edited(json.loads(whole)).map(as_json)
    if reader.name.endswith(".jsonl"):
        return broken | edited([json.loads(line) for line in whole.splitlines()]).map(
            lambda rows: json_lines(rows if isinstance(rows, list) else [rows])
        )
    if reader.name.endswith(".safetensors"):
        size = int.from_bytes(whole[:8], "little")
        header, tensors = whole[8 : 8 + size], whole[8 + size :]

        def joined(changed: bytes) -> bytes:
            return len(changed).to_bytes(8, "little") + changed + tensors

        parts = json.loads(header)
        metadata = parts.get("__metadata__", {})
        hostile_files = broken | damaged(header).map(joined) | edited(parts).map(lambda value: joined(as_json(value)))
        for key in [key for key, text in metadata.items() if text.startswith(("{", "["))]:  # JSON inside of JSON

            def inside(value: Any, key: str = key) -> bytes:
                return joined(as_json({**parts, "__metadata__": {**metadata, key: json.dumps(value)}}))

            hostile_files |= edited(json.loads(metadata[key])).map(inside)
        return hostile_files
    return broken
