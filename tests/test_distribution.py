"""The name for pip is `imgcap-cli`; no message and no page names a distribution that is not ours or not needed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from imgcap._version import DISTRIBUTION

ROOT = Path(__file__).parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PATTERNS = ["*.md", "*.toml", ".*.yaml", "noxfile.py", "docs/*.md", "examples/*.md", ".ci/*", ".github/**/*.yml"]
FILES = [
    *(file for pattern in PATTERNS for file in sorted(ROOT.glob(pattern))),
    *(
        file
        for name in ("src", "tools", "benchmarks")
        for file in sorted((ROOT / name).rglob("*"))
        if file.suffix in (".py", ".html", ".js")
    ),
]
DECLARED = {canonicalize_name(name) for name in re.findall(r'"([A-Za-z][\w-]*)(?:\[[\w,]+\])?[<>=]', PROJECT)}
OPTIONAL = {"aiohttp", "adlfs", "gcsfs", "huggingface-hub", "requests"}
OPTIONAL |= {"pip-audit", "scikit-image", "transformers", "zizmor"}
"""Distributions of other projects that a page or message may name without their being declared."""
INSTALL = re.compile(r"\b(?:pip|pip3|pipx|uv pip|uv tool|uv)\s+(?:install|add|inject)\b([^`\n]*)")


def named_distributions(text: str) -> list[str]:
    """Distributions that a page or message tells to install, without options, paths and placeholders."""
    found: list[str] = []
    for arguments in INSTALL.findall(text):
        for word in re.split(r"\s+", re.split(r'[;|&)]|",|\.\s|\.$', arguments)[0]):
            name = re.match(r"[A-Za-z][\w.-]*", word.strip("'\",\\"))
            if name and "/" not in word and "{" not in word:
                found.append(canonicalize_name(name[0]))
    return found


def test_the_project_has_its_name_and_its_extras_refer_to_it() -> None:
    assert DISTRIBUTION == "imgcap-cli"
    assert f'\nname = "{DISTRIBUTION}"' in PROJECT
    assert '\nimgcap = "imgcap.__main__:main"\n' in PROJECT
    assert "numpy" in DECLARED


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_no_file_names_the_distribution_of_another_project(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert not re.search(r"\bimgcap\[", text), "extras are those of imgcap-cli"
    assert "pypi.org/project/imgcap/" not in text
    named = set(named_distributions(text))
    assert "imgcap" not in named
    assert named <= DECLARED | OPTIONAL | {DISTRIBUTION}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("pip install 'imgcap[heif]'", ["imgcap"]),
        ("Run: `pip install --upgrade imgcap` again", ["imgcap"]),
        ("uv tool install imgcap", ["imgcap"]),
        ("pip install -e '.[dev]'", []),
        ("pip install 'transformers>=4.50'", ["transformers"]),
        ("f'pip install {package}'", []),
        ('raise Error("pip install gcsfs", "unsupported")', ["gcsfs"]),
        ("with `pip install pillow-heif`. Then", ["pillow-heif"]),
    ],
)
def test_the_search_finds_what_is_installed(text: str, names: list[str]) -> None:
    assert named_distributions(text) == names
