"""Files from strangers: whatever stands in them, a reader gives a result or one sentence, and stays in its folder.

Valid files are damaged at random, always in the same way. `IMGCAP_HOSTILE_CASES=2000` makes a long search of it.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import struct
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers.data import TINY_TRAINING
from imgcap.captioning.explain import TrainingIndex
from imgcap.captioning.resume import ResumeOptions, resume
from imgcap.captioning.row_files import read_rows
from imgcap.captioning.rows import Origin
from imgcap.dataset.preparation import PROGRESS_FILE, FeatureOptions, _Work
from imgcap.dataset.prepared import (
    FEATURES_FOLDER,
    LEFT_OUT_FILE,
    METADATA_FILE,
    PARTIAL_FOLDER,
    RECORDS_FILE,
    PreparedFolder,
    PreparedMetadata,
)
from imgcap.dataset.readers import FORMATS, read_dataset
from imgcap.errors import ImgcapError
from imgcap.files import read_json, write_json, write_json_lines
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
    import_model,
    verify,
    write_manifest,
)
from imgcap.pages.gallery import GalleryWriter
from imgcap.scoring.caption_files import read_captions
from imgcap.scoring.pairs import read_hypotheses, read_pairs
from imgcap.text.vocabulary import SPECIAL_WORDS, Vocabulary
from imgcap.training.trainer import STATE_FILE, EpochResult, Trainer, learning_curves, train

CASES = int(os.environ.get("IMGCAP_HOSTILE_CASES", "20"))
CPU = torch.device("cpu")
needs_links = pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links and pipes")


# --- valid files, and their readers


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


def parallel(file: Path) -> object:
    return read_pairs(file, [file.with_name("references.jsonl")])


def as_references(file: Path) -> object:
    return read_pairs(file.with_name("hypotheses.jsonl"), [file, file])


def page_of_rows(file: Path) -> None:
    with GalleryWriter(file.with_name("page.html"), "Walls") as gallery:
        for row in read_rows(file):
            gallery.add(row, None)


def gone_on(file: Path) -> None:
    resume(file, Origin(**ORIGIN), ResumeOptions(by_content=True))


def captions_of_a_model(file: Path) -> None:
    model = load_model_folder(file.parent, CPU)
    found = model.search(torch.ones(1, FEATURE_SIZE), model.config.search)
    assert all(math.isfinite(h.log_probability) and model.text(h) == model.text(h) for [h, *_] in found)


def explained(file: Path) -> None:
    [found] = TrainingIndex.load(file).explain(torch.ones(1, FEATURE_SIZE), ["a dog"])
    assert not math.isnan(found.distance)


def opened(file: Path) -> None:
    root = file.parents[1] if file.suffix == ".npy" else file.parent
    prepared = PreparedFolder(root)
    assert prepared.image_root.name is not None
    assert all(isinstance(caption, str) for record in prepared.records for caption in record.captions)
    prepared.features[prepared.rows("train")]
    prepared.left_out()


def worked_on(file: Path) -> None:
    work = _Work(file.parent, "d", FeatureOptions(), overwrite=False)
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
        for how in (parallel, as_references, read_captions)
        for name, content in [
            ("a.jsonl", PAIRS),
            ("a.json", {"annotations": PAIRS}),
            ("a.csv", "image_id,caption_0,caption_1\n0,a dog,\n1,,a cat\n2,a bird,\n"),
            ("a.txt", "0\ta dog\n1\ta cat\n2\ta bird\n"),
        ]
    },
    "plain text": Reader("a.txt", "a dog\na cat\na bird\n", lambda f: read_hypotheses(f, dict.fromkeys("123", ()))),
    "rows jsonl": Reader("a.jsonl", ROWS, page_of_rows),
    "rows csv": Reader("a.csv", ROW_TABLE, page_of_rows),
    "resume": Reader("a.jsonl", ROWS, gone_on),
    "manifest": Reader("model/" + MANIFEST_FILE, None, lambda f: verify(f.parent)),
    "config": Reader("model/" + CONFIG_FILE, None, captions_of_a_model),
    "vocabulary": Reader("model/" + VOCABULARY_FILE, None, captions_of_a_model),
    "decoder": Reader("model/" + DECODER_FILE, None, captions_of_a_model),
    "encoder": Reader("model/" + ENCODER_FILE, None, lambda f: Encoder.load(f, CPU)),
    "index": Reader("model/" + INDEX_FILE, None, explained),
    "metrics": Reader("model/" + METRICS_FILE, None, lambda f: learning_curves(f.parent)),
    "prepared metadata": Reader("prepared/" + METADATA_FILE, asdict(METADATA), opened),
    "prepared records": Reader("prepared/" + RECORDS_FILE, RECORDS, opened),
    "prepared left out": Reader("prepared/" + LEFT_OUT_FILE, [{"name": "x.jpg", "reason": "is missing"}], opened),
    "prepared features": Reader(f"prepared/{FEATURES_FOLDER}/00000.npy", None, opened),
    "progress": Reader(f"prepared/{PARTIAL_FOLDER}/{PROGRESS_FILE}", PROGRESS, worked_on),
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


# --- how they are damaged


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


# The readers.


@pytest.mark.parametrize("name", READERS)
def test_a_hostile_file_is_a_result_or_one_sentence(home: Path, name: str) -> None:
    reader = READERS[name]
    file = home / reader.name
    before = file.read_bytes() if file.exists() else None
    valid = as_bytes(reader) if reader.content is not None else file.read_bytes()

    @settings(max_examples=CASES, derandomize=True, database=None, deadline=None, suppress_health_check=HealthCheck)
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
        ("read_captions a.txt", f"{LONG}\tx\n"),
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


# --- names of images


def named(format_name: str, name: str) -> tuple[str, str]:
    """File name and content of a data set that gives a caption to the image `name`, and one to 0.jpg."""
    both = (name, "0.jpg")
    match format_name:
        case "flickr8k":
            return "a.txt", "".join(f"{each}#0\ta dog\n" for each in both)
        case "csv":
            return "a.csv", "image,caption\n" + "".join(f"{each},a dog\n" for each in both)
        case "coco":
            images = [{"id": i, "file_name": each} for i, each in enumerate(both)]
            return "a.json", json.dumps({**COCO, "images": [*images, {"id": 2, "file_name": "x.jpg"}]})
        case "karpathy":
            images = [{"filepath": str(Path(each).parent), "filename": Path(each).name} for each in both]
            return "a.json", json.dumps({"images": [{**image, "sentences": [{"raw": "a dog"}]} for image in images]})
        case "jsonl":
            return "a.jsonl", json_lines([{"image": each, "caption": "a dog"} for each in both]).decode()
    return "metadata.jsonl", json_lines([{"file_name": each, "text": "a dog"} for each in both]).decode()


@pytest.mark.parametrize("format_name", sorted(FORMATS.keys() - {"sidecars"}))
@pytest.mark.parametrize("name", ["../outside.jpg", "../../outside.jpg", "ABSOLUTE", "images/../../outside.jpg"])
def test_no_name_leads_out_of_the_image_folder(tmp_path: Path, format_name: str, name: str) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "0.jpg").touch()
    (tmp_path / "outside.jpg").touch()
    file, content = named(format_name, name.replace("ABSOLUTE", str(tmp_path / "outside.jpg")))
    captions = images if format_name == "imagefolder" else tmp_path / file
    (images / file if format_name == "imagefolder" else captions).write_text(content)
    dataset = read_dataset(images, captions, format_name)
    assert {record.path for record in dataset.records} == {"0.jpg"}
    assert any("outside.jpg" in left.name and "no image" in left.reason for left in dataset.left_out)


@pytest.mark.parametrize("format_name", sorted(FORMATS.keys() - {"sidecars"}))
@pytest.mark.parametrize(
    "name", ["x\0.jpg", "x" * 5000 + ".jpg", "\x1b[31m.jpg", "=cmd.jpg"], ids=lambda n: ascii(n[:6])
)
def test_a_name_that_no_file_can_have_finds_none(tmp_path: Path, format_name: str, name: str) -> None:
    (tmp_path / "0.jpg").touch()
    file, content = named(format_name, name)
    (tmp_path / file).write_text(content)
    captions = tmp_path if format_name == "imagefolder" else tmp_path / file
    try:
        dataset = read_dataset(tmp_path, captions, format_name)
    except ImgcapError as error:
        assert "holds a NUL character" in str(error)
    else:
        assert {record.path for record in dataset.records} == {"0.jpg"}


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="needs names that are not UTF-8")
def test_a_image_whose_name_is_not_utf8_gets_a_split(tmp_path: Path) -> None:
    for name in (b"\xff.jpg", b"a.jpg", b"b.jpg"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).touch()
    write_json_lines(tmp_path / "a.jsonl", [{"image": name, "caption": "x"} for name in ("\udcff", "a", "b")])
    records = read_dataset(tmp_path, tmp_path / "a.jsonl").records
    assert [record.path for record in records] == ["\udcff.jpg", "a.jpg", "b.jpg"]
    assert {record.split for record in records} == {"train", "val", "test"}


@needs_links
def test_a_data_set_does_not_follow_links_to_folders(tmp_path: Path) -> None:
    images, outside = tmp_path / "images", tmp_path / "outside"
    for folder, name in ((images, "0.jpg"), (outside, "1.jpg")):
        folder.mkdir()
        (folder / name).touch()
    (images / "link").symlink_to(outside)
    (tmp_path / "a.csv").write_text("image,caption\n0.jpg,x\nlink/1.jpg,x\n1.jpg,x\n")
    dataset = read_dataset(images, tmp_path / "a.csv")
    assert [record.path for record in dataset.records] == ["0.jpg"]
    assert {left.name for left in dataset.left_out} == {"link/1.jpg", "1.jpg"}


# --- rows and prepared folders


def test_a_table_of_rows_whose_header_is_no_csv_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"path,caption,{'x' * 140_000}\na.jpg,a dog,x\n")
    with pytest.raises(ImgcapError, match="is not valid CSV: field larger than field limit"):
        list(read_rows(tmp_path / "a.csv"))


def test_a_row_that_is_nested_too_deeply_for_a_page_is_one_sentence(tmp_path: Path) -> None:
    with (
        pytest.raises(ImgcapError, match=r"a\.jpg is nested too deeply"),
        GalleryWriter(tmp_path / "a.html", "") as page,
    ):
        page.add({"path": "a.jpg", "words": [DEEP] if sys.getrecursionlimit() < 1500 else DEEP}, None)


@pytest.mark.parametrize(
    "changes",
    [
        *({"image_id": 5}, {"path": None}, {"captions": "a dog"}, {"captions": {"a": 1}}, {"captions": [1]}),
        *({"captions": ["a dog", None]}, {"split": "dev"}, {"split": []}, {"split": 1}),
    ],
    ids=str,
)
def test_a_record_of_other_types_is_one_sentence(tmp_path: Path, changes: dict[str, object]) -> None:
    root = write_prepared(tmp_path / "prepared")
    write_json_lines(root / RECORDS_FILE, [RECORDS[0], {**RECORDS[1], **changes}, RECORDS[2]])
    with pytest.raises(ImgcapError, match=r"records\.jsonl, line 2 is not a record"):
        PreparedFolder(root)


@pytest.mark.parametrize("changes", [{"image_root": 5}, {"splits": []}, {"splits": {"val": "many"}}], ids=str)
def test_metadata_of_other_types_are_one_sentence(tmp_path: Path, changes: dict[str, object]) -> None:
    root = write_prepared(tmp_path / "prepared")
    write_json(root / METADATA_FILE, {**asdict(METADATA), **changes})
    with pytest.raises(ImgcapError, match=r"prepared\.json is damaged"):
        PreparedFolder(root)


@pytest.mark.parametrize(
    "shape", ["(3, 2048", "(-1, 2048)", f"({10**30}, 2048)", "(2**62, 2048)", "(True, 2048)", "(3L,"]
)
def test_a_header_of_features_that_makes_no_sense_is_one_sentence(tmp_path: Path, shape: str) -> None:
    root = write_prepared(tmp_path / "prepared")
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    content = b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + bytes(3 * FEATURE_SIZE * 4)
    (root / FEATURES_FOLDER / "00000.npy").write_bytes(content)
    with pytest.raises(ImgcapError, match=r"features in .* cannot be read|rows of features") as caught:
        PreparedFolder(root)
    assert "\n" not in str(caught.value)


def test_features_in_an_archive_are_not_unpacked(tmp_path: Path) -> None:
    root = write_prepared(tmp_path / "prepared")
    with (root / FEATURES_FOLDER / "00000.npy").open("wb") as file:
        np.savez_compressed(file, features=np.zeros((3, FEATURE_SIZE), np.float32))
    with pytest.raises(ImgcapError, match="cannot be read"):
        PreparedFolder(root)


@pytest.mark.parametrize(
    "line",
    ["5", "[]", '{"done": 1}', '{"done": -1, "rows": 0, "failed": []}', '{"done": 1, "rows": 1, "failed": [[1]]}'],
)
def test_progress_that_tells_nothing_is_begun_again(tmp_path: Path, line: str) -> None:
    file = write_prepared(tmp_path / "prepared") / PARTIAL_FOLDER / PROGRESS_FILE
    file.write_text(f'{{"digest": "d"}}\n{line}\n')
    work = _Work(file.parent, "d", FeatureOptions(), overwrite=False)
    assert (work.done, work.rows, work.failed) == (0, 0, {})
    assert file.read_text() == '{"digest": "d"}\n'


# --- the state of a training


class ResumedError(Exception):
    """A state was taken up."""


def resumed(*_: object) -> None:
    raise ResumedError


def test_a_hostile_training_state_is_taken_up_or_one_sentence(
    prepared: PreparedFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, file = replace(TINY_TRAINING, epochs=1), tmp_path / STATE_FILE
    monkeypatch.setattr(Trainer, "save_model", resumed)
    with pytest.raises(ResumedError):
        train(prepared, options, tmp_path)
    monkeypatch.setattr(Trainer, "run_epoch", resumed)
    whole = file.read_bytes()

    @settings(max_examples=CASES, derandomize=True, database=None, deadline=None, suppress_health_check=HealthCheck)
    @given(hostile(Reader(STATE_FILE, None, resumed), whole))
    def attack(content: bytes) -> None:
        file.write_bytes(content)
        with pytest.raises((ResumedError, ImgcapError)) as caught:
            train(prepared, options, tmp_path, resume=True)
        assert isinstance(caught.value, ResumedError) or str(caught.value).strip()

    attack()
    file.write_bytes(whole)
    with pytest.raises(ResumedError):
        train(prepared, options, tmp_path, resume=True)


# --- model folders


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def edit_config(folder: Path, part: str, **changes: object) -> None:
    data = read_json(folder / CONFIG_FILE)
    data[part] |= changes
    write_json(folder / CONFIG_FILE, data)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        ("search", {"beam_size": 2.0}, "config.json is damaged. The beam size, .* whole numbers"),
        ("search", {"max_length": 4.5}, "config.json is damaged. .* whole numbers"),
        ("search", {"num_captions": 1.5}, "config.json is damaged. .* whole numbers"),
        ("search", {"min_length": 1.5}, "config.json is damaged. .* whole numbers"),
        ("search", {"beam_size": 10**9}, "config.json is damaged. The beam size must be between 1 and 1000"),
        ("search", {"seed": DEEP}, "settings of the model .* are damaged|The seed must be"),
        ("decoder", {"embedding_size": 10**30}, "does not fit its settings"),
        ("decoder", {"hidden_size": 10**30}, "does not fit its settings"),
        ("confidence", {"weights": [10**400, 1, 1]}, "config.json is damaged. There is no calibration"),
        ("confidence", {"images": math.nan}, "config.json is damaged. There is no calibration"),
    ],
)
def test_settings_beyond_reason_are_one_sentence(model: Path, part: str, changes: dict[str, Any], message: str) -> None:
    edit_config(model, part, **changes)
    with pytest.raises(ImgcapError, match=message):
        load_model_folder(model, CPU)


@pytest.mark.parametrize(
    ("name", "tensor", "read", "message"),
    [
        (DECODER_FILE, "output.bias", lambda file: load_model_folder(file.parent, CPU), "does not fit its settings"),
        (ENCODER_FILE, "Conv2d_1a_3x3.conv.weight", lambda file: Encoder.load(file, CPU), "missing or misshapen"),
        (INDEX_FILE, "codes", TrainingIndex.load, "is not an index of training images"),
    ],
    ids=["decoder", "encoder", "index"],
)
def test_sizes_are_checked_before_weights_take_memory(
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    tensor: str,
    read: Callable[[Path], object],
    message: str,
) -> None:
    size = 10**9  # of a tensor that is a hole in its file, which takes no place on the disk
    with safe_open(model / name, framework="pt") as opened:
        metadata = opened.metadata()
    save_file({key: each for key, each in load_file(model / name).items() if key != tensor}, model / name, metadata)
    whole = (model / name).read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    parts, rest = json.loads(whole[8:end]), whole[end:]
    offsets = [len(rest), len(rest) + size]
    header = as_json({**parts, tensor: {"dtype": "F16", "shape": [size // 2], "data_offsets": offsets}})
    with (model / name).open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header + rest)
        file.truncate(8 + len(header) + offsets[1])
    for touch in ("float", "to", "isfinite", "aminmax"):
        monkeypatch.setattr(Tensor, touch, lambda *_, **__: pytest.fail("weights were read before they were checked"))
    with pytest.raises(ImgcapError, match=message):
        read(model / name)


def test_weights_beyond_single_precision_are_one_sentence(model: Path) -> None:
    weights = {name: tensor.double() * 1e300 for name, tensor in load_file(model / DECODER_FILE).items()}
    save_file(weights, model / DECODER_FILE)
    with pytest.raises(ImgcapError, match="holds weights that are not numbers"):
        load_model_folder(model, CPU)


@pytest.mark.parametrize("options", [SearchOptions(), SearchOptions(sample=True), SearchOptions(beam_size=1)], ids=str)
def test_weights_whose_probabilities_are_not_numbers_are_one_sentence(tmp_path: Path, options: SearchOptions) -> None:
    loaded = load_model_folder(write_model(tmp_path / "model", weights=1e38), CPU)
    with pytest.raises(ImgcapError, match="computes no probabilities"):
        list(loaded.search(torch.ones(1, FEATURE_SIZE), options))


def test_features_that_are_not_numbers_are_one_sentence(model: Path) -> None:
    loaded = load_model_folder(model, CPU)
    with pytest.raises(ImgcapError, match="computes no probabilities"):
        list(loaded.search(torch.full((1, FEATURE_SIZE), math.nan), SearchOptions()))


def test_an_encoder_whose_header_is_nested_too_deeply_is_one_sentence(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(1)}, tmp_path / "e.safetensors", {"imgcap": "[" * 100_000})
    with pytest.raises(ImgcapError, match="does not describe an encoder"):
        Encoder.load(tmp_path / "e.safetensors", CPU)


def test_an_encoder_with_more_than_a_network_is_one_sentence(tmp_path: Path, encoder_file: Path) -> None:
    weights = {**load_file(encoder_file), "attention.weight": torch.zeros(1)}
    save_file(weights, tmp_path / "e.safetensors")
    with pytest.raises(ImgcapError, match=r"Inception V3: it has no attention\.weight"):
        Encoder.load(tmp_path / "e.safetensors", CPU)


@pytest.mark.parametrize(
    "changes",
    [
        {"std": torch.zeros(FEATURE_SIZE)},
        {"std": -torch.ones(FEATURE_SIZE)},
        {"variances": torch.zeros(2)},
        {"variances": torch.tensor([1.0, -1.0])},
        vars(make_index(0)),
        vars(make_index(129)),
    ],
    ids=["std 0", "std below 0", "variance 0", "variance below 0", "no components", "too many components"],
)
def test_an_index_that_gives_no_distances_is_one_sentence(tmp_path: Path, changes: dict[str, Any]) -> None:
    replace(make_index(), **changes).save(tmp_path / INDEX_FILE)
    with pytest.raises(ImgcapError, match="is not an index of training images"):
        TrainingIndex.load(tmp_path / INDEX_FILE)


def test_an_index_whose_names_are_nested_too_deeply_is_one_sentence(tmp_path: Path) -> None:
    tensors = {name: value for name, value in vars(make_index()).items() if isinstance(value, Tensor)}
    save_file(tensors, tmp_path / INDEX_FILE, {"names": "[" * 100_000})
    with pytest.raises(ImgcapError, match="is not an index of training images"):
        TrainingIndex.load(tmp_path / INDEX_FILE)


@pytest.mark.parametrize(
    "changes", [{"loss": 10**400}, {"epoch": math.inf}, {"val_cider_d": math.inf}], ids=lambda c: str(c)[:20]
)
def test_a_record_of_training_that_cannot_be_drawn_is_one_sentence(model: Path, changes: dict[str, object]) -> None:
    first = json.loads((model / METRICS_FILE).read_text().splitlines()[0])
    (model / METRICS_FILE).write_bytes(json_lines([first, {**first, **changes}]))
    with pytest.raises(ImgcapError, match=r"metrics\.jsonl is damaged"):
        learning_curves(model)


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.marker), "w")


@pytest.mark.parametrize("name", [DECODER_FILE, ENCODER_FILE, INDEX_FILE, CONFIG_FILE, VOCABULARY_FILE])
@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_no_code_in_a_model_folder_runs(tmp_path: Path, model: Path, name: str, how: str) -> None:
    payload = Payload(tmp_path / "ran")
    if how == "torch":
        torch.save({"output.bias": payload}, model / name)
    else:
        (model / name).write_bytes(pickle.dumps(payload))
    write_manifest(model)
    verify(model)
    for read in (
        lambda: load_model_folder(model, CPU),
        lambda: Encoder.load(model / ENCODER_FILE, CPU),
        lambda: TrainingIndex.load(model / INDEX_FILE),
    ):
        try:
            read()
        except ImgcapError:
            continue
    assert not (tmp_path / "ran").exists()


@needs_links
@pytest.mark.parametrize(
    "name", [CONFIG_FILE, VOCABULARY_FILE, DECODER_FILE, ENCODER_FILE, INDEX_FILE, MODEL_CARD_FILE, MANIFEST_FILE]
)
def test_a_link_out_of_a_model_folder_is_not_followed(tmp_path: Path, model: Path, cache: Path, name: str) -> None:
    (model / name).rename(tmp_path / "outside")
    (model / name).symlink_to("../outside")
    for use in (verify, import_model):
        with pytest.raises(ImgcapError, match=rf"{name} is a link out of the model's folder") as caught:
            use(model)
        assert "copy" in caught.value.hint
    assert list(cache.iterdir()) == []


@needs_links
def test_a_link_to_a_model_folder_and_links_inside_it_are_followed(tmp_path: Path, model: Path) -> None:
    (model / CONFIG_FILE).rename(model / "settings.json")
    (model / CONFIG_FILE).symlink_to("settings.json")
    (tmp_path / "link").symlink_to(model)
    verify(tmp_path / "link")
    assert load_model_folder(tmp_path / "link", CPU).config.name == "walls"


@needs_links
def test_a_pipe_in_a_model_folder_is_not_waited_for(model: Path) -> None:
    os.mkfifo(model / "pipe")
    files = read_json(model / MANIFEST_FILE)["files"]
    write_json(model / MANIFEST_FILE, {"files": {**files, "pipe": {"bytes": 0, "sha256": "0" * 64}}})
    with pytest.raises(ImgcapError, match="pipe is not as its manifest says"):
        verify(model)
