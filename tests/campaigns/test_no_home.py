"""A user without a home folder, a passwd entry or a cache that can be written, as in many containers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import imgcap

DEFAULT_MODEL = Path(imgcap.__file__).parent / "model" / "default"
CAT = Path(__file__).parents[2] / "examples" / "cat.jpg"
STRANGER = ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"]
USED = "The default model is used from the package.\n"


@pytest.fixture(scope="module")
def stranger() -> list[str]:
    """How to start a process as a user without a passwd entry."""
    if sys.platform == "win32" or os.geteuid() or not shutil.which(STRANGER[0]):
        pytest.skip("needs root and setpriv")
    start = [*STRANGER, sys.executable, "-c", f"open({str(CAT)!r}); import imgcap.model.store"]
    if subprocess.run(start, env={}, check=False, capture_output=True).returncode:
        pytest.skip("needs a checkout and an interpreter that every user can read")
    return STRANGER


def run(stranger: list[str], environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*stranger, sys.executable, "-m", "imgcap", *map(str, arguments)]
    environment = {"PATH": os.defpath, "COLUMNS": "200", **environment}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd="/")


@pytest.fixture
def caches() -> Iterator[dict[str, dict[str, str]]]:
    """The environment of each way to have no cache."""
    with TemporaryDirectory() as folder:  # other users cannot enter those of pytest
        Path(folder).chmod(0o755)
        yield make_caches(Path(folder))


def make_caches(folder: Path) -> dict[str, dict[str, str]]:
    for name, mode in (("read-only", 0o755), ("unreadable", 0o700), ("unreadable/home", 0o755)):
        (folder / name).mkdir()
        (folder / name).chmod(mode)
    return {
        "no home": {},
        "empty": {"HOME": ""},
        "relative": {"HOME": "home"},
        "missing": {"HOME": "/nonexistent"},
        "read-only": {"IMGCAP_CACHE_DIR": str(folder / "read-only")},
        "unreadable": {"IMGCAP_CACHE_DIR": str(folder / "unreadable")},
        "inside an unreadable one": {"HOME": str(folder / "unreadable" / "home")},
        "device": {"IMGCAP_CACHE_DIR": "/dev/null/cache"},
    }


@pytest.mark.parametrize(
    "kind",
    ["no home", "empty", "relative", "missing", "read-only", "unreadable", "inside an unreadable one", "device"],
)
def test_the_default_model_is_used_from_the_package_and_one_sentence_says_so(
    stranger: list[str], caches: dict[str, dict[str, str]], kind: str
) -> None:
    done = run(stranger, caches[kind], "model", "path")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{DEFAULT_MODEL}\n"
    assert done.stderr.endswith(USED)
    assert done.stderr.count("\n") == 1
    assert run(stranger, caches[kind], "model", "list").stdout == "default\n"
    missing = run(stranger, caches[kind], "model", "path", "walls")
    assert missing.stderr.startswith("imgcap: There is no model 'walls'.")
    assert missing.returncode == 1


def test_shell_completion_without_a_home_folder_is_one_sentence(stranger: list[str]) -> None:
    done = run(stranger, {}, "--install-completion", "bash")
    assert done.stderr.startswith("imgcap: There is no home folder, so shell completion cannot be installed.\n")
    assert "Traceback" not in done.stderr
    assert done.returncode == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["no home", "unreadable"])
def test_captions_are_written_and_the_doctor_ends_with_findings(
    stranger: list[str], caches: dict[str, dict[str, str]], kind: str
) -> None:
    captioned = run(stranger, caches[kind], "caption", CAT)
    assert captioned.returncode == 0, captioned.stderr
    assert captioned.stdout.strip()
    assert captioned.stderr.endswith(USED)
    examined = run(stranger, caches[kind], "doctor")
    assert "Traceback" not in examined.stdout + examined.stderr
    assert [line.split()[0] for line in examined.stdout.splitlines() if "  wrong  " in line] == ["cache"]
    assert "Set IMGCAP_CACHE_DIR to a folder that can be written." in examined.stdout
    assert examined.stdout.splitlines()[-1].startswith("captions")
