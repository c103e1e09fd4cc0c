"""The documentation's examples run, and its links and options exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from imgcap.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def python_blocks() -> list[str]:
    return [block for page in PAGES for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)]


@pytest.mark.parametrize("block", python_blocks())
def test_a_python_example_runs_and_prints(block: str) -> None:
    done = subprocess.run([sys.executable, "-c", block], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_documentation_have_the_options_that_it_gives_them(page: Path) -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for line in re.sub(r"\\\n\s*", "", page.read_text()).splitlines():
        called = re.match(r"(?:    |\$ )imgcap (\w+)(.*)", line)
        if called:
            known = {option for parameter in commands[called[1]].params for option in parameter.opts}
            assert set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", called[2])) <= known, line


@pytest.mark.parametrize(("name", "page"), [("caption", "captioning"), ("apply", "captioning"), ("eval", "scoring")])
def test_every_option_is_documented(name: str, page: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text()
    for parameter in get_command(app).commands[name].params:  # type: ignore[attr-defined]
        options = [option for option in (*parameter.opts, *parameter.secondary_opts) if option.startswith("--")]
        assert not options or any(f"`{option}" in text or f" {option}" in text for option in options), options
