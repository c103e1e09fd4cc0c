"""The installed command and its output."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

COLOURS = ("red", "green", "blue", "white")
COMMAND = Path(sys.executable).with_name("imgcap")


def read_json_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def captions(stdout: str) -> dict[str, str]:
    """Caption by path, from lines of text."""
    return dict(line.split("\t") for line in stdout.splitlines())
