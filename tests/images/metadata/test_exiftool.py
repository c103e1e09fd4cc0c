"""Descriptions as exiftool sees them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.described_images import COMBINATIONS, EXTRAS, TEXT, exiftool, is_untouched, needs_exiftool, save
from imgcap.images.metadata.description import read_description, write_description


def tags(folder: Path) -> dict[str, dict[str, Any]]:
    """All metadata and warnings of the files in `folder`, except the tags that writing must change."""
    changing = ("SourceFile", "File:File", "MPF:MPImageStart", "RIFF:WebP_Flags")
    rows = json.loads(exiftool("-j", "-G", "-a", "-validate", "-warning", "-error", "-all", folder))
    return {
        Path(row["SourceFile"]).name: {key: value for key, value in row.items() if not key.startswith(changing)}
        for row in rows
    }


@needs_exiftool
@pytest.mark.parametrize("extra", EXTRAS)
def test_exiftool_reads_the_description_and_finds_nothing_else_changed(tmp_path: Path, extra: str) -> None:
    files = [save(tmp_path, name, **EXTRAS[extra]) for name, other in COMBINATIONS if other == extra]
    before = tags(tmp_path)
    for file in files:
        write_description(file, TEXT)
    after = tags(tmp_path)
    for file in files:
        found = after[file.name]
        assert found.pop("XMP:Description") == TEXT
        assert found.pop("XMP:AltTextAccessibility") == TEXT
        assert len(found.pop("XMP:DescriptionHash")) == 64
        assert found == before[file.name]


@needs_exiftool
@pytest.mark.parametrize("name", ["plain.jpg", "plain.png", "simple.webp"])
def test_what_exiftool_rewrites_is_still_imgcaps_and_what_it_changes_is_not(tmp_path: Path, name: str) -> None:
    file = save(tmp_path, name)
    write_description(file, TEXT)
    exiftool("-overwrite_original", "-XMP-xmp:Rating=3", file)
    assert write_description(file, "A cat.")
    assert read_description(file) == "A cat."
    exiftool("-overwrite_original", "-XMP-dc:Description=mine", file)
    assert is_untouched(file)
    assert write_description(file, TEXT, overwrite=True)
    found = exiftool("-s3", "-XMP-xmp:Rating", "-XMP-dc:Description", "-XMP-iptcCore:AltTextAccessibility", file)
    assert found.splitlines() == ["3", TEXT, TEXT]
