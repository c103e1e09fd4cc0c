"""Check that a wheel has its name, is under 80 MB, and contains the package and nothing that does not belong there.

python tools/check_wheel.py WHEEL
"""

from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src"
VERSION = dict(re.findall(r'^(\w+) = "(.+)"$', (SOURCE / "imgcap" / "_version.py").read_text(), re.MULTILINE))
"""`DISTRIBUTION` and `__version__`, read without importing the package, which need not be installed."""
MAX_BYTES = 80_000_000
IMAGES = {"imgcap/model/calibration.jpg"}
"""The only images in the package."""
FORBIDDEN = (".jpg", ".jpeg", ".png", ".pt", ".pth", ".pkl", "token.txt")


def package_files() -> set[str]:
    """Names of all files of the package, as in the wheel."""
    files = (file for file in (SOURCE / "imgcap").rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return {file.relative_to(SOURCE).as_posix() for file in files}


def main(wheel: Path) -> None:
    size = wheel.stat().st_size
    names = set(zipfile.ZipFile(wheel).namelist())
    problems = [f"it has no {name}" for name in sorted(package_files() - names)]
    problems += [f"it must not contain {name}" for name in sorted(names - IMAGES) if name.lower().endswith(FORBIDDEN)]
    name = "{DISTRIBUTION} {__version__}".format_map(VERSION)
    if not wheel.name.startswith(name.replace("-", "_").replace(" ", "-") + "-"):
        problems.append(f"it is not {name}")
    if size > MAX_BYTES:
        problems.append(f"it is {size:,} bytes, more than {MAX_BYTES:,}")
    if problems:
        raise SystemExit(f"{wheel.name}: " + "; ".join(problems))
    print(f"{wheel.name}: {size:,} bytes, {len(names)} files")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
