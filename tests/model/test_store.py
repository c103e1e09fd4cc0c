"""The model store: unpack the shipped model, import and remove others, and do without a cache."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.model_folders import ALL_FILES, content, damages, flip_a_bit, truncate, write_model
from imgcap.errors import ImgcapError, UsageError
from imgcap.files import read_json, sha256
from imgcap.model import store
from imgcap.model.store import (
    CONFIG_FILE,
    DECODER_FILE,
    ENCODER_FILE,
    MANIFEST_FILE,
    METRICS_FILE,
    available_models,
    cache_folder,
    import_model,
    locate,
    other_versions,
    remove_model,
    remove_other_versions,
    verify,
)


def test_the_environment_sets_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == cache
    monkeypatch.delenv("IMGCAP_CACHE_DIR")
    assert cache_folder().name == "imgcap"
    monkeypatch.setenv("IMGCAP_CACHE_DIR", "")
    assert cache_folder().name == "imgcap"


def test_the_default_model_is_unpacked_once(shipped: Path, cache: Path) -> None:
    folder = locate("default")
    assert cache in folder.parents
    assert content(folder) == content(shipped)
    verify(folder)
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    assert locate("default") == folder
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == before


@damages
@pytest.mark.parametrize("name", sorted(ALL_FILES))
def test_a_damaged_copy_of_the_default_model_is_repaired(
    shipped: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(locate("default") / name)
    assert content(locate("default")) == content(shipped)


@damages
def test_a_damaged_package_is_one_sentence(shipped: Path, damage: Callable[[Path], None]) -> None:
    damage(shipped / DECODER_FILE)
    with pytest.raises(ImgcapError, match=r"default model is damaged \(decoder\.safetensors\)") as caught:
        locate("default")
    assert caught.value.hint == "Install imgcap-cli again."


def test_a_damaged_package_does_not_matter_once_the_model_is_unpacked(shipped: Path) -> None:
    whole = content(locate("default"))
    flip_a_bit(shipped / DECODER_FILE)
    assert content(locate("default")) == whole


def test_a_package_without_default_model_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imgcap.model.store._packaged_default", lambda: tmp_path / "nothing")
    for use in (locate, remove_model):
        with pytest.raises(ImgcapError, match="has no default model"):
            use("default")


def test_two_versions_with_different_models_share_a_cache(
    shipped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = locate("default")
    newer = write_model(tmp_path / "newer", "another")
    monkeypatch.setattr("imgcap.model.store._packaged_default", lambda: newer)
    new = locate("default")
    assert new != old
    assert (content(old), content(new)) == (content(shipped), content(newer))
    assert other_versions() == [old]
    (old.parent / "notes").mkdir()
    assert remove_other_versions() == [old]
    assert sorted(path.name for path in old.parent.iterdir()) == [new.name, "notes"]
    assert remove_other_versions() == []
    monkeypatch.setattr("imgcap.model.store._packaged_default", lambda: shipped)
    assert content(locate("default")) == content(shipped)


def test_without_a_cache_or_a_default_model_there_are_no_other_versions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert other_versions() == []
    monkeypatch.setattr("imgcap.model.store._packaged_default", lambda: tmp_path / "nothing")
    assert other_versions() == []


LOCATE_TOGETHER = """
import sys, time
from pathlib import Path
from imgcap.model import store as model_store
model_store._packaged_default = lambda: Path(sys.argv[1])
Path(sys.argv[2], sys.argv[3]).touch()
while not Path(sys.argv[2], "go").exists():
    time.sleep(0.001)
folder = model_store.locate("default")
model_store.verify(folder)
print(folder)
"""


@pytest.mark.parametrize("state", ["empty", "damaged"])
def test_eight_processes_at_once_all_get_the_whole_model(
    model_folder: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setattr("imgcap.model.store._packaged_default", lambda: model_folder)
    if state == "damaged":
        for name in (ENCODER_FILE, CONFIG_FILE, MANIFEST_FILE):
            truncate(locate("default") / name)
    signals = tmp_path / "signals"
    signals.mkdir()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LOCATE_TOGETHER, str(model_folder), str(signals), str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(8)
    ]
    deadline = time.monotonic() + 60
    while len(list(signals.iterdir())) < len(processes) and time.monotonic() < deadline:
        time.sleep(0.01)
    (signals / "go").touch()
    ends = [(*process.communicate(timeout=900), process.returncode) for process in processes]
    assert {(out.strip(), err, code) for out, err, code in ends} == {(str(locate("default")), "", 0)}
    wanted = {*read_json(model_folder / MANIFEST_FILE)["files"], MANIFEST_FILE}
    found = [path for path in cache.rglob("*") if path.is_file()]
    assert {path.relative_to(locate("default")).as_posix() for path in found} == wanted
    assert all(sha256(path) == sha256(model_folder / path.name) for path in found)


def make_cache_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("IMGCAP_CACHE_DIR", str(tmp_path / "file"))
    return f"The cache {tmp_path / 'file'} cannot be used: not a directory."


def remove_home(_tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """As for a user without HOME and without an entry in the passwd file."""

    def fail(*_args: object, **_options: object) -> str:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv("IMGCAP_CACHE_DIR")
    monkeypatch.setattr("platformdirs.user_cache_dir", fail)
    return "There is no home folder, so there is no cache for models."


def keep_tilde(_tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same with an older version of platformdirs."""
    monkeypatch.delenv("IMGCAP_CACHE_DIR")
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_args, **_options: "~/.cache/imgcap")
    return "There is no home folder, so there is no cache for models."


@pytest.mark.parametrize("take_cache_away", [make_cache_a_file, remove_home, keep_tilde])
def test_without_a_cache_the_shipped_model_is_used_from_the_package(
    shipped: Path,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    take_cache_away: Callable[[Path, pytest.MonkeyPatch], str],
) -> None:
    problem = take_cache_away(tmp_path, monkeypatch)
    store._warn_once.cache_clear()
    assert locate("default") == locate("default") == shipped
    assert caplog.messages == [f"{problem} The default model is used from the package."]
    assert available_models() == ["default"]
    with pytest.raises(ImgcapError, match="There is no model 'walls'"):
        locate("walls")
    assert locate(str(source)) == source  # a folder needs no cache
    with pytest.raises(ImgcapError) as caught:
        import_model(source)
    if take_cache_away is make_cache_a_file:
        assert str(caught.value) == f"The folder {tmp_path / 'file'}/models cannot be created: not a directory."
    else:
        assert str(caught.value) == problem
        assert caught.value.hint == "Set IMGCAP_CACHE_DIR to a folder that can be written."
    for remove in ("walls", "default"):
        with pytest.raises(ImgcapError):
            remove_model(remove)
    truncate(shipped / DECODER_FILE)
    with pytest.raises(ImgcapError, match=r"damaged: decoder\.safetensors"):
        locate("default")


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_cache_that_cannot_be_written_holds_no_partial_files(
    shipped: Path, source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fail(_source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as failing:
        failing.setattr("imgcap.model.store.shutil.copyfile", fail)
        assert locate("default") == shipped
        with pytest.raises(ImgcapError, match=f"could not be copied .*{os.strerror(code).lower()}"):
            import_model(source)
    assert content(cache) == {}
    assert list((cache / "models").iterdir()) == []
    assert content(locate("default")) == content(shipped)
    assert content(import_model(source)) == content(source)


@pytest.mark.usefixtures("shipped")
def test_a_read_only_cache_that_holds_the_model_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = locate("default")

    def fail(*_args: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("imgcap.model.store.shutil.copyfile", fail)
    assert locate("default") == folder


def test_import_list_locate_and_remove(source: Path, cache: Path) -> None:
    assert available_models() == ["default"]
    target = import_model(source)
    assert target == cache / "models" / "walls"
    import_model(source, "Barns-2.1_b")
    assert available_models() == ["default", "Barns-2.1_b", "walls"]
    assert locate("walls") == target
    assert content(target) == content(source)
    assert remove_model("walls") == target
    assert available_models() == ["default", "Barns-2.1_b"]
    assert [path.name for path in (cache / "models").iterdir()] == ["Barns-2.1_b"]
    for use in (locate, remove_model):
        with pytest.raises(ImgcapError, match="There is no model 'walls'"):
            use("walls")
    assert content(source)


def test_removing_the_default_model_removes_its_copy_only(shipped: Path) -> None:
    folder = locate("default")
    assert remove_model("default") == folder
    assert not folder.exists()
    with pytest.raises(ImgcapError, match="no model 'default' in the cache"):
        remove_model("default")
    assert content(locate("default")) == content(shipped)


def test_an_imported_model_is_found_before_a_folder_of_that_name(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert locate("walls") == Path("walls")
    assert locate("walls").resolve() == source
    target = import_model(Path("walls"))
    assert locate("walls") == target
    assert locate("./walls").resolve() == source


def test_a_taken_name_is_refused(source: Path, tmp_path: Path) -> None:
    import_model(source)
    before = content(locate("walls"))
    with pytest.raises(ImgcapError, match="The model 'walls' already exists") as caught:
        import_model(write_model(tmp_path / "other", "other"), "walls")
    assert "remove walls" in caught.value.hint
    assert content(locate("walls")) == before


BAD_NAMES = [
    "../x",
    "..",
    ".",
    ".hidden",
    "a/b",
    "/etc",
    "",
    " ",
    "a b",
    "-x",
    "name\n",
    "ä",
    "a\0b",
    "x" * 65,
    "x" * 5000,
]


@pytest.mark.parametrize("name", [*BAD_NAMES, "default"], ids=ascii)
def test_a_bad_name_is_refused(source: Path, cache: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a model's name"):
        import_model(source, name)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("name", BAD_NAMES, ids=ascii)
def test_a_bad_name_removes_nothing(source: Path, cache: Path, name: str) -> None:
    import_model(source)
    (cache / "x").mkdir()
    before = content(cache)
    with pytest.raises(ImgcapError, match="There is no model"):
        remove_model(name)
    assert content(cache) == before
    assert (cache / "x").is_dir()


@pytest.mark.parametrize("name", ["wals", "no/such/folder", "a\0b", "x" * 300, "x" * 5000, ""], ids=ascii)
def test_an_unknown_model_lists_the_known(source: Path, name: str) -> None:
    import_model(source, "barns")
    with pytest.raises(ImgcapError, match="There is no model") as caught:
        locate(name)
    assert "default, barns" in caught.value.hint


def test_a_file_is_not_a_model(source: Path) -> None:
    with pytest.raises(ImgcapError) as caught:
        locate(str(source / "config.json"))
    assert str(caught.value) == f"{source / 'config.json'} is a file, but a model is a folder."


def test_an_import_copies_what_the_manifest_names_and_nothing_else(source: Path) -> None:
    (source / "training-state.safetensors").write_text("a gigabyte")
    target = import_model(source)
    assert {path.name for path in target.iterdir()} == ALL_FILES


def test_an_import_that_fails_leaves_nothing(source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = []

    def damaging_copy(copied: Path, target: Path) -> None:
        copies.append(target)
        target.write_bytes(Path(copied).read_bytes()[: 10 if len(copies) == 3 else None])

    monkeypatch.setattr("imgcap.model.store.shutil.copyfile", damaging_copy)
    with pytest.raises(ImgcapError, match="damaged"):
        import_model(source)
    assert list((cache / "models").iterdir()) == []
    assert available_models() == ["default"]


def test_incomplete_and_foreign_entries_of_the_cache_are_not_listed(source: Path, cache: Path) -> None:
    target = import_model(source)
    shutil.copytree(target, cache / "models" / ".walls.0123456789ab")
    shutil.copytree(target, cache / "models" / "with space")
    (cache / "models" / "no-manifest").mkdir()
    (cache / "models" / "file.txt").write_text("text")
    assert available_models() == ["default", "walls"]


def test_an_imported_model_keeps_the_record_of_its_training(model_folder: Path) -> None:
    assert (import_model(model_folder, "walls") / METRICS_FILE).read_bytes() == (
        model_folder / METRICS_FILE
    ).read_bytes()


@pytest.mark.parametrize(("start", "name"), [(None, None), ("none", None), ("default", "default"), ("a/b", "a/b")])
def test_the_start_model_is_known(start: str | None, name: str | None) -> None:
    assert store.start_model({"options": {"start_from": start}}) == name
    assert store.start_model({}) is None
