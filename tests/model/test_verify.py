"""Checksums of model folders: every damage is noticed, and manifests are checked."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.model_folders import ALL_FILES, damages, flip_a_bit
from imgcap.errors import ImgcapError
from imgcap.files import read_json, sha256, write_json
from imgcap.model.store import (
    CONFIG_FILE,
    ENCODER_FILE,
    MANIFEST_FILE,
    MODEL_FILES,
    VOCABULARY_FILE,
    import_model,
    locate,
    verify,
)


@damages
@pytest.mark.parametrize("name", sorted(ALL_FILES - {MANIFEST_FILE}))
def test_verify_names_the_damaged_file(source: Path, cache: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(source / name)
    for use in (verify, import_model, lambda folder: locate(str(folder))):
        with pytest.raises(ImgcapError) as caught:
            use(source)
        assert name in str(caught.value)
        assert not any(other in str(caught.value) for other in ALL_FILES - {name, MANIFEST_FILE})
    assert not (cache / "models").exists()


def test_verify_names_every_damaged_file(source: Path) -> None:
    for name in (CONFIG_FILE, VOCABULARY_FILE):
        flip_a_bit(source / name)
    with pytest.raises(ImgcapError, match=r"damaged: config\.json, vocabulary\.json does not match its manifest"):
        verify(source)


def test_an_imported_model_that_is_damaged_later_is_noticed(source: Path) -> None:
    flip_a_bit(import_model(source) / ENCODER_FILE)
    with pytest.raises(ImgcapError, match=r"damaged: encoder\.safetensors"):
        locate("walls")


def test_the_error_for_another_folder_names_the_missing_files(tmp_path: Path, source: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImgcapError, match=r"no config\.json, vocabulary\.json, encoder\.safetensors, decoder"):
        locate(str(tmp_path / "empty"))
    with pytest.raises(ImgcapError, match="does not exist"):
        import_model(tmp_path / "nothing")
    (source / MANIFEST_FILE).unlink()
    with pytest.raises(ImgcapError, match=r"has no manifest\.json") as caught:
        import_model(source)
    assert "training" in caught.value.hint


def manifest_naming(name: str) -> dict[str, object]:
    secret = {"bytes": 6, "sha256": "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"}  # "secret"
    return {"files": {**{each: {} for each in MODEL_FILES}, name: secret}}


@pytest.mark.parametrize(
    "manifest",
    [
        *(
            manifest_naming(name)
            for name in ("../secret", "/etc/passwd", "sub/file", "..", ".", "", ".hidden", "a\0b", "..\\secret")
        ),
        {"files": dict.fromkeys(MODEL_FILES, "checksum")},
        {"files": {CONFIG_FILE: {}}},
        {"files": [*MODEL_FILES]},
        {"models": {}},
        [],
        None,
        "text",
    ],
    ids=lambda manifest: ascii(manifest)[-100:],
)
def test_an_invalid_manifest_is_refused(tmp_path: Path, source: Path, cache: Path, manifest: object) -> None:
    (tmp_path / "secret").write_text("secret")
    write_json(source / MANIFEST_FILE, manifest)
    for use in (verify, import_model):
        with pytest.raises(ImgcapError, match="is not the manifest of a model"):
            use(source)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("wanted", [{}, {"bytes": None}, {"bytes": "1", "sha256": []}], ids=str)
def test_files_without_checksums_in_the_manifest_count_as_damaged(source: Path, wanted: dict[str, object]) -> None:
    files = {**read_json(source / MANIFEST_FILE)["files"], CONFIG_FILE: wanted}
    write_json(source / MANIFEST_FILE, {"files": files})
    with pytest.raises(ImgcapError, match=r"damaged: config\.json"):
        verify(source)


def test_a_truncated_manifest_is_one_sentence(source: Path) -> None:
    os.truncate(source / MANIFEST_FILE, 40)
    with pytest.raises(ImgcapError, match="is not valid JSON"):
        verify(source)


def test_the_manifest_is_readable_json_with_sizes_and_checksums(source: Path) -> None:
    manifest = json.loads((source / MANIFEST_FILE).read_text())
    assert manifest["files"].keys() == ALL_FILES - {MANIFEST_FILE}
    for name, entry in manifest["files"].items():
        assert entry == {"bytes": (source / name).stat().st_size, "sha256": sha256(source / name)}
