"""Images in tar archives behind URLs: in memory, and on an S3 server on this machine."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.data import Run, write_data_set
from helpers.tars import write_shards, write_tar
from imgcap.dataset.prepared import PreparedFolder
from imgcap.errors import ExitCode
from imgcap.images import archived, archives, remote
from imgcap.images.archived import ArchivedFile
from imgcap.images.archives import images_in
from imgcap.images.errors import ImageError
from imgcap.images.locations import archive_locations

fsspec = pytest.importorskip("fsspec", reason="needs fsspec")


@pytest.fixture(scope="module")
def walls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 images, and the same in three shards."""
    folder = tmp_path_factory.mktemp("walls")
    write_shards(folder / "shards", folder / "images", write_data_set(folder))
    return folder


@pytest.fixture
def memory(walls: Path) -> Iterator[str]:
    """The URL of a folder with the shards."""
    system = fsspec.filesystem("memory")
    for shard in (walls / "shards").iterdir():
        system.pipe(f"/walls/{shard.name}", shard.read_bytes())
    yield "memory://walls"
    system.rm("/walls", recursive=True)


@pytest.fixture
def bucket(walls: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a bucket with the shards, on a server that runs in this process."""
    pytest.importorskip("s3fs", reason="needs s3fs")
    server = pytest.importorskip("moto.server", reason="needs moto[server]").ThreadedMotoServer(port=0, verbose=False)
    import s3fs

    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    system = s3fs.S3FileSystem(skip_instance_cache=True)
    system.mkdir("walls")
    for shard in (walls / "shards").iterdir():
        system.pipe(f"walls/{shard.name}", shard.read_bytes())
    yield "s3://walls"
    system.rm("walls", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture(params=["memory", "bucket"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


@pytest.fixture(autouse=True)
def nothing_open() -> Iterator[None]:
    yield
    archived.opened.cache_clear()
    archives._table.cache_clear()


def captions(file: Path) -> list[tuple[str, str]]:
    parsed = map(json.loads, file.read_text().splitlines())
    return [(row["path"].rpartition("/")[2], row["caption"]) for row in parsed]


def test_captions_are_those_of_the_folder(
    imgcap_here: Run, walls: Path, url: str, telling_model: Path, tmp_path: Path
) -> None:
    options = ["--model", telling_model, "--batch-size", 4]
    imgcap_here("caption", walls / "images", *options, "-o", tmp_path / "folder.jsonl")
    shards = f"{url}/{{00..02}}.tar"
    done = imgcap_here("caption", shards, *options, "-o", tmp_path / "rows.jsonl")
    assert done.returncode == ExitCode.DONE, done.stderr
    assert captions(tmp_path / "rows.jsonl") == captions(tmp_path / "folder.jsonl")
    whole = (tmp_path / "rows.jsonl").read_bytes()
    assert json.loads(whole.splitlines()[-1])["path"] == f"{url}/02.tar/023.png"

    (tmp_path / "rows.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:5]))
    done = imgcap_here("caption", shards, *options, "-o", tmp_path / "rows.jsonl", "--resume")
    assert "5 images are done" in done.stderr
    assert (tmp_path / "rows.jsonl").read_bytes() == whole
    for shard in ("1/2", "2/2"):
        imgcap_here("caption", shards, *options, "-o", tmp_path / "parts.jsonl", "--shard", shard)
    imgcap_here("merge", tmp_path / "parts.jsonl")
    assert (tmp_path / "parts.jsonl").read_bytes() == whole


def test_prepared_features_are_those_of_the_folder(
    imgcap_here: Run, walls: Path, url: str, encoder_file: Path, tmp_path: Path
) -> None:
    prepare = ["prepare", "--encoder", encoder_file, "--images"]
    imgcap_here(*prepare, walls / "images", "--captions", walls / "captions.csv", "-o", tmp_path / "folder")
    done = imgcap_here(*prepare, f"{url}/{{00..02}}.tar", "-o", tmp_path / "remote")
    assert done.returncode == ExitCode.DONE, done.stderr
    folder, remote = PreparedFolder(tmp_path / "folder"), PreparedFolder(tmp_path / "remote")
    everything = list(range(24))
    assert remote.features[everything].tobytes() == folder.features[everything].tobytes()
    assert [record.split for record in remote.records] == [record.split for record in folder.records]
    assert (remote.metadata.image_root, remote.records[23].path) == (url, "02.tar/023.png")
    source = remote.source("02.tar/023.png")
    assert isinstance(source, ArchivedFile)
    assert source.read() == (walls / "images" / "023.png").read_bytes()
    assert imgcap_here(*prepare, f"{url}/{{00..02}}.tar", "-o", tmp_path / "remote").returncode == ExitCode.DONE


@pytest.mark.slow
def test_fine_tuning_from_a_bucket_is_that_from_the_folder(
    imgcap_here: Run, walls: Path, bucket: str, encoder_file: Path, tmp_path: Path
) -> None:
    prepare = ["prepare", "--encoder", encoder_file, "--images"]
    imgcap_here(*prepare, walls / "images", "--captions", walls / "captions.csv", "-o", tmp_path / "folder")
    imgcap_here(*prepare, f"{bucket}/{{00..02}}.tar", "-o", tmp_path / "remote")
    train = ["--fine-tune-encoder", "--epochs", 1, "--embedding-size", 16, "--hidden-size", 16, "--min-count", 1]
    for name in ("folder", "remote"):
        done = imgcap_here("train", tmp_path / name, "-o", tmp_path / f"{name}-model" / "model", *train)
        assert done.returncode == ExitCode.DONE, done.stderr
    one, other = (tmp_path / f"{name}-model" / "model" / "encoder.safetensors" for name in ("folder", "remote"))
    assert one.read_bytes() == other.read_bytes()


def test_an_archive_that_was_replaced_is_noticed(imgcap_here: Run, url: str, encoder_file: Path, walls: Path) -> None:
    out = walls / url.partition(":")[0]
    prepare = ["prepare", "--encoder", encoder_file, "--images", f"{url}/00.tar", "-o", out]
    assert imgcap_here(*prepare).returncode == ExitCode.DONE
    system, path = fsspec.url_to_fs(url)
    shard = bytearray((walls / "shards" / "00.tar").read_bytes())
    shard[600] ^= 1  # in the first image
    system.pipe(f"{path}/00.tar", bytes(shard))
    done = imgcap_here(*prepare)
    assert done.returncode == ExitCode.FAILED
    assert "prepared from other inputs" in done.stderr


def test_an_archive_that_is_read_in_order_comes_over_the_network_once(
    bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import s3fs

    monkeypatch.setattr(remote, "_BLOCK", 1 << 12)
    members = [(f"{i:03}.png", bytes([i]) * 900) for i in range(200)]
    shard = write_tar(tmp_path / "large.tar", members)
    s3fs.S3FileSystem().pipe("walls/large.tar", shard.read_bytes())
    fetched: list[tuple[int, int]] = []
    fetch = s3fs.core.S3File._fetch_range

    def counting(self: Any, start: int, end: int) -> Any:
        fetched.append((start, end))
        return fetch(self, start, end)

    monkeypatch.setattr(s3fs.core.S3File, "_fetch_range", counting)
    images = images_in(f"{bucket}/large.tar")
    waiting = []
    for image in images:  # each is read when 20 more are listed, as by the threads that decode
        assert isinstance(image, ArchivedFile)
        waiting.append(image)
        if len(waiting) > 20:
            done = waiting.pop(0)
            assert done.read() == bytes([int(done.member[:3])]) * 900
    assert sum(end - start for start, end in fetched) <= shard.stat().st_size + 2 * remote._BLOCK


def test_what_is_not_there_is_one_sentence(url: str) -> None:
    [error] = images_in(f"{url}/gone.tar")
    assert isinstance(error, ImageError)
    assert error.kind == "missing"
    assert str(error) == f"The archive {url}/gone.tar does not exist."


@pytest.mark.parametrize(
    ("status", "kind", "sentence"),
    [
        (404, "missing", "The archive https://host/a.tar does not exist."),
        (500, "unreadable", "The archive https://host/a.tar cannot be read: the server is unwell."),
        (None, "unreadable", "The archive https://host/a.tar cannot be read: the server is unwell."),
    ],
)
def test_only_an_archive_that_the_server_does_not_know_is_missing(
    monkeypatch: pytest.MonkeyPatch, status: int | None, kind: str, sentence: str
) -> None:
    def fail(url: str) -> object:
        cause = RuntimeError("the server is unwell")
        if status:
            cause.status = status  # type: ignore[attr-defined]
        raise FileNotFoundError(url) from cause  # as fsspec's file system for HTTP does

    monkeypatch.setattr(archived, "stamp", fail)
    [error] = images_in("https://host/a.tar")
    assert isinstance(error, ImageError)
    assert (error.kind, str(error)) == (kind, sentence)


def test_a_server_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_url: str) -> object:
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(archived, "stamp", refuse)
    [error] = images_in("s3://bucket/a.tar")
    assert isinstance(error, ImageError)
    assert error.kind == "unreadable"
    assert str(error) == "The archive s3://bucket/a.tar cannot be read: nobody answers."


def missing_module(name: str) -> Callable[[str], object]:
    """Fails as fsspec does when a package is not installed."""

    def fail(_path: str) -> object:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    return fail


@pytest.mark.parametrize(
    ("url", "module", "package"),
    [
        ("https://host/a.tar", "aiohttp", "aiohttp"),
        ("https://host/a.tar", "requests", "requests"),
        ("gs://bucket/a.tar", "gcsfs", "gcsfs"),
        ("hf://datasets/me/set/a.tar", "huggingface_hub", "huggingface_hub"),
        ("abfs://container/a.tar", "adlfs", "adlfs"),
        ("sftp://host/a.tar", "paramiko", "paramiko"),
        ("smb://host/share/a.tar", "smbclient", "smbprotocol"),
        ("lakefs://repo/a.tar", "lakefs_spec.spec", "lakefs-spec"),
    ],
)
def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, url: str, module: str, package: str) -> None:
    registry = importlib.import_module("fsspec.registry")
    monkeypatch.setattr(registry, "_registry", {})
    monkeypatch.setattr(registry, "registry", {})
    monkeypatch.setattr(registry, "_import_class", missing_module(module))
    [error] = images_in(url)
    assert isinstance(error, ImageError)
    assert (str(error), error.hint) == (f"{url} needs a package that is missing: {package}.", f"pip install {package}")
    assert (error.kind, error.path) == ("unsupported", url)


def test_a_url_that_cannot_be_read_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    [error] = images_in("abacus://a.tar")
    assert str(error).startswith("abacus://a.tar is not a URL that can be read: ")
    [error] = images_in("https://host/a.jpg?size=9")
    assert (
        str(error)
        == "https://host/a.jpg?size=9 is the URL of an image; imgcap reads URLs of .tar and .parquet files only."
    )
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    [error] = images_in("s3://bucket/a.tar")
    assert isinstance(error, ImageError)
    assert (str(error), error.hint) == ("s3://bucket/a.tar needs fsspec, which is missing.", "pip install fsspec")


def test_one_bad_url_is_one_row(imgcap_here: Run, memory: str, telling_model: Path, tmp_path: Path) -> None:
    urls = ["nowhere://a.tar", f"{memory}/00.tar"]
    done = imgcap_here("caption", *urls, "--model", telling_model, "-o", tmp_path / "rows.jsonl")
    assert done.returncode == ExitCode.SOME_FAILED, done.stderr
    parsed = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(parsed) == 11
    assert (parsed[0]["path"], parsed[0]["error_kind"]) == ("nowhere://a.tar", "unsupported")


def test_patterns_match_urls(memory: str) -> None:
    expected = [f"{memory}/0{i}.tar" for i in range(3)]
    assert archive_locations(f"{memory}/*.tar") == expected
    assert archive_locations(f"{memory}/0[12].tar") == expected[1:]
    assert archive_locations(f"{memory}/") == expected
    assert archive_locations(f"{memory}/00.tar::{memory}/{{01..02}}.tar") == expected
    assert archive_locations(f"{memory}/x*.tar") == [f"{memory}/x*.tar"]
    [error] = images_in(f"{memory}/x*.tar")
    assert str(error) == f"No archive matches {memory}/x*.tar."
