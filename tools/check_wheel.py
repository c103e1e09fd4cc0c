"""Check that a wheel is under 80 MB and contains the default model and nothing that does not belong there.

python tools/check_wheel.py WHEEL
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

MAX_BYTES = 80_000_000
MODEL = "imgcap/model/default/"
MODEL_FILES = (
    "manifest.json",
    "encoder.safetensors",
    "decoder.safetensors",
    "training_index.safetensors",
    "MODEL_CARD.md",
)
REQUIRED = {
    "imgcap/model/calibration.jpg",
    "imgcap/expected.safetensors",
    "imgcap/pages/gallery.html",
    "imgcap/pages/score_page.html",
    "imgcap/pages/page.css",
    *(MODEL + name for name in MODEL_FILES),
}
FORBIDDEN = (".jpg", ".jpeg", ".png", ".pt", ".pth", ".pkl", "token.txt")


def main(wheel: Path) -> None:
    size = wheel.stat().st_size
    names = set(zipfile.ZipFile(wheel).namelist())
    problems = [f"it has no {name}" for name in sorted(REQUIRED - names)]
    problems += [f"it must not contain {name}" for name in sorted(names - REQUIRED) if name.lower().endswith(FORBIDDEN)]
    if size > MAX_BYTES:
        problems.append(f"it is {size:,} bytes, more than {MAX_BYTES:,}")
    if problems:
        raise SystemExit(f"{wheel.name}: " + "; ".join(problems))
    print(f"{wheel.name}: {size:,} bytes, {len(names)} files")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
