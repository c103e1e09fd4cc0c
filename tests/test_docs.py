"""The documentation is true: its examples run and print what it says, its links and options exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer import Typer
from typer.core import TyperGroup
from typer.main import get_command

import imgcap as package
from helpers import forked
from helpers.data import Run
from imgcap.cli import app

ROOT = Path(__file__).parents[1]
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = [*GUIDES, *(ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md"))]
MODULES = sorted(file.relative_to(ROOT / "src" / "imgcap") for file in (ROOT / "src" / "imgcap").rglob("*.py"))


def commands(of: Typer = app) -> dict[str, set[str]]:
    """All commands with their options: {"caption": {"--model", "-m", ...}, "model list": {...}, ...}."""
    group = get_command(of)
    assert isinstance(group, TyperGroup)
    found: dict[str, set[str]] = {}
    for name, command in group.commands.items():
        inner = command.commands if isinstance(command, TyperGroup) else {"": command}
        for inner_name, one in inner.items():
            options = (option for parameter in one.params for option in (*parameter.opts, *parameter.secondary_opts))
            found[f"{name} {inner_name}".strip()] = {option for option in options if option.startswith("-")}
    return found


COMMANDS = commands()


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def calls(text: str) -> Iterator[tuple[str, str]]:
    """Every call of the command in a page, with its arguments: ("model list", "--json"), ..."""
    names = "|".join(sorted(COMMANDS, key=len, reverse=True))
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        for call in re.finditer(rf"(?:^    |^\$ |`|&& |-m )imgcap ({names})\b([^`#|]*)", line):
            yield call[1], call[2]


def sessions(page: Path) -> Iterator[tuple[str, str]]:
    """Commands of a page with the output that it shows for them; those that show none are left out."""
    for block in blocks(page, "console"):
        for session in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = session.partition("\n")
            if output.strip():
                yield command, output


def without_times(text: str) -> str:
    return re.sub(r"\d[\d,.]* (?=s\b|a second|per second|MB|images/s)", "N ", text)


PYTHON_BLOCKS = [block for page in GUIDES for block in blocks(page, "python")]


@pytest.mark.parametrize("block", PYTHON_BLOCKS)
def test_a_python_example_runs_and_prints_what_its_comments_say(block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    done = forked.run(forked.python, [block])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    promised = re.findall(r"^print\(.*\)  # (.*)$", block, re.MULTILINE)
    assert [line for line in promised if line not in done.stdout.splitlines()] == []


@pytest.mark.parametrize(("command", "output"), list(sessions(ROOT / "README.md")))
def test_a_command_prints_the_output_that_the_readme_shows(
    imgcap_fresh: Run, monkeypatch: pytest.MonkeyPatch, command: str, output: str
) -> None:
    monkeypatch.chdir(ROOT)
    name, *arguments = command.split()
    assert name == "imgcap"
    done = imgcap_fresh(*arguments)
    assert done.returncode == 0, done.stderr
    assert without_times(done.stdout + done.stderr) == without_times(output)


def test_the_readme_shows_output() -> None:
    assert [command for command, _ in sessions(ROOT / "README.md")] == ["imgcap caption examples/"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_and_headings_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:|mailto:)([^)]+)\)", page.read_text(encoding="utf-8")):
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in slugs, link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_of_the_project_that_a_page_names_exist(page: Path) -> None:
    folders = "|".join(folder.name for folder in ROOT.iterdir() if folder.is_dir())
    named = re.findall(rf"`(?:python )?((?:{folders})/[\w./-]+)[^`]*`", page.read_text(encoding="utf-8"))
    assert [name for name in named if "NAME" not in name and not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_commands_in_the_documentation_have_the_options_that_it_gives_them(page: Path) -> None:
    for name, arguments in calls(page.read_text(encoding="utf-8")):
        used = set(re.findall(r"(?<=\s)--?[a-z][a-z0-9-]*", arguments))
        assert used <= COMMANDS[name], (name, arguments)


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.name)
def test_every_option_that_the_documentation_names_exists(page: Path) -> None:
    """Options in the text, such as `--min-confidence 0.5`, belong to one of our commands."""
    known = set().union(*COMMANDS.values(), OTHER_OPTIONS)
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    named = re.findall(r"`(--[a-z][a-z0-9-]*)", text)
    assert [option for option in named if option not in known] == []


PROGRAMS = [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "tools").glob("*.py")]
OTHER_OPTIONS = {
    *("--help", "--version", "--max-restarts", "--nproc-per-node"),  # of `imgcap` itself and of torchrun
    *(option for file in PROGRAMS for option in re.findall(r'"(--[a-z-]+)"', file.read_text(encoding="utf-8"))),
}


@pytest.mark.parametrize(("name", "page"), [("caption", "captioning"), ("apply", "captioning"), ("eval", "scoring")])
def test_every_option_is_documented(name: str, page: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    for parameter in group.commands[name].params:
        options = [option for option in (*parameter.opts, *parameter.secondary_opts) if option.startswith("--")]
        assert not options or any(f"`{option}" in text or f" {option}" in text for option in options), options


def test_the_map_names_every_module_and_no_other() -> None:
    """A row of docs/architecture.md names a module by its path in its package: `decoding`, `metadata/xmp`."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set()
    for part in re.split(r"^### `", text, flags=re.MULTILINE)[1:]:
        folder = part.partition("`")[0]
        for cell in re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) \|", part.split("\n## ")[0], re.MULTILINE):
            named |= {f"{folder}{name}".removeprefix("imgcap/") for name in re.findall(r"`([^`]+)`", cell)}
    written = {file.with_suffix("").as_posix() for file in MODULES if file.name != "__init__.py"}
    assert named == written


def test_the_names_of_the_package_are_documented() -> None:
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    assert [name for name in package.__all__ if not name.startswith("_") and name not in text] == []
