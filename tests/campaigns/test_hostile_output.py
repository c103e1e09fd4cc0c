"""Text from strangers, in file names, captions and models: a terminal and a page only ever show it."""

from __future__ import annotations

import json
import os
import re
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.data import EXAMPLES, Run
from imgcap.captioning.captioner import Captioner
from imgcap.captioning.sidecars import Sidecars
from imgcap.cli.console import print_error, print_message, print_result
from imgcap.errors import ExitCode, ImgcapError, printable
from imgcap.images.sidecars import SidecarPaths, common_root
from imgcap.model.store import MODEL_CARD_FILE, MODEL_FILES, write_manifest
from imgcap.pages.gallery import GalleryWriter
from imgcap.pages.interval_plot import Measure
from imgcap.pages.parts import render
from imgcap.pages.score_page import write_score_page
from imgcap.pages.selection import ScoredImage
from imgcap.scoring import score_table
from imgcap.scoring.evaluation import evaluate

STEERING = "\x1b[31m\x1b]0;title\x07\x9b2J\r\b\u202e\u2028\udcff\ud83d"
MARKUP = "</script></title></svg><script>window.broken=1</script><img src=x onerror=window.broken=1>\"'&lt;{{cards}}"
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
everything = settings(max_examples=100, derandomize=True, database=None, deadline=None)
texts = st.text(st.characters(codec=None, categories=None), max_size=40)


# --- the terminal


def test_a_sentence_about_a_long_name_keeps_its_beginning_and_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    error = ImgcapError(f"{'x' * 10**7}.jpg cannot be read: gone.", "Look at " + "y" * 10**7)
    assert str(error).startswith("xxx")
    assert str(error).endswith("x.jpg cannot be read: gone.")
    assert len(str(error)) < 2100
    assert len(error.hint) < 2100
    print_message("z" * 10**7)
    assert len(capsys.readouterr().err) < 2100
    assert str(ImgcapError("a" * 2000)) == "a" * 2000


@everything
@given(texts)
def test_printable_text_is_one_line_without_controls(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    shown.encode()


@pytest.mark.parametrize(
    "show",
    [print_message, print_error, lambda text: print_error("x", text), lambda text: print_result(printable(text))],
)
@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (STEERING, r"\x1b[31m\x1b]0;title\x07\x9b2J\r\x08\u202e\u2028\udcff\ud83d"),
        ("[bold]a[/bold] [link=http://x]b[/link]", "[bold]a[/bold] [link=http://x]b[/link]"),
        (":dog: :warning: \\", ":dog: :warning: \\"),
    ],
    ids=["controls", "markup", "emoji"],
)
def test_a_line_for_a_person_shows_text_as_it_is(
    capsys: pytest.CaptureFixture[str], show: object, text: str, shown: str
) -> None:
    assert callable(show)
    show(f"{text} end")
    printed = capsys.readouterr()
    [*_, line] = (printed.out + printed.err).splitlines()
    assert line.endswith(f"{shown} end")
    assert not CONTROLS.search(line)


def test_markdown_of_scores_steers_no_terminal() -> None:
    found = evaluate(
        ["a dog"], [["a dog", "dog"]], name=STEERING, compared=(STEERING, ["dog"]), made_by=[f"model:{STEERING}"]
    )
    text = score_table.markdown(found, STEERING)
    assert text.count(r"\x1b[31m") >= 3
    assert not CONTROLS.search(text.replace("\n", ""))


def write_model(folder: Path, card: str) -> Path:
    """What the store takes for a model: it looks at names and checksums only."""
    folder.mkdir(parents=True)
    for name in MODEL_FILES:
        (folder / name).write_text(name)
    (folder / MODEL_CARD_FILE).write_text(card, encoding="utf-8")
    write_manifest(folder)
    return folder


CARD = STEERING[:-2].replace("\r", "")  # which would end a line


def test_the_card_of_a_model_steers_no_terminal(imgcap_here: Run, tmp_path: Path) -> None:
    model = write_model(tmp_path / "walls", f"# Walls\n\n{CARD}\tdogs\n")
    done = imgcap_here("model", "show", model)
    assert done.returncode == ExitCode.DONE
    first, empty, line = done.stdout.splitlines()
    assert (first, empty) == ("# Walls", "")
    assert line.startswith(r"\x1b[31m\x1b]0;title\x07\x9b2J\x08\u202e\u2028")
    assert line.endswith("dogs")
    assert not CONTROLS.search(line)


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="needs names that are not UTF-8")
def test_a_model_folder_may_have_any_name(imgcap_fresh: Run, tmp_path: Path) -> None:
    model = write_model(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\x1b[31m\xff")), "")
    done = imgcap_fresh("model", "verify", model)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert done.stdout.count(r"\x1b[31m\udcff") == 2
    assert "\x1b" not in done.stdout


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="needs names that are not UTF-8")
def test_the_path_of_a_model_is_printed_byte_for_byte(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    from imgcap.cli.models import path

    model = write_model(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")), "")
    path(str(model))
    assert capfdbinary.readouterr().out == os.fsencode(model) + b"\n"


# --- pages


_BARS = re.compile('<section aria-labelledby="distributions-title">.*?</section>', re.DOTALL)


class Tags(HTMLParser):
    """The tags of a page with the names of their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))


def gallery(file: Path, text: str) -> str:
    row = {"path": text, "caption": text, "words": [[text, 0.5]], "nearest": [[text, 0.5]], "warning": text}
    with GalleryWriter(file, text) as page:
        page.add({**row, "alternatives": [{"caption": text, "confidence": 0.1}], "model": text}, None)
        page.add({"path": text, "error": text}, None)
    return file.read_text(encoding="utf-8")


def score_page(file: Path, text: str) -> str:
    write_score_page(
        file,
        title=text,
        measures=[Measure(text, 0.5, 0.4, 0.6, 0.1, 0.9, 0.3)],
        facts=[(text, text)],
        images=[ScoredImage(text, text, (text, "a dog"), 1.0, 0.5, 0.5, None, text)],
        verdict=text,
        notes=[text],
    )
    return file.read_text(encoding="utf-8")


@pytest.mark.parametrize("write", [gallery, score_page])
@pytest.mark.parametrize(
    "text",
    [MARKUP, MARKUP + STEERING, "<!--", "--><b>", "]]><b>", "' onload='x", '" style="x" y="', "{{theme}}{{title}}"],
)
def test_no_text_adds_a_tag_or_an_attribute(tmp_path: Path, write: object, text: str) -> None:
    assert callable(write)
    page, tame = write(tmp_path / "hostile.html", text), write(tmp_path / "tame.html", "word")
    # Captions of other words have other bars, and other words underlined.
    tags, wanted = ([tag for tag in Tags(_BARS.sub("", each)).found if tag[0] != "u"] for each in (page, tame))
    assert tags == wanted
    assert page.count("<!--") == tame.count("<!--")
    assert not CONTROLS.search(page.replace("\n", ""))


@everything
@given(texts)
def test_text_in_html_comes_back(text: str) -> None:
    page = render("gallery.html", title=text, style="", script="", model="default")
    safe = page.split("<title>")[1].split("</title>")[0]
    assert not re.search("[<>\"'\x00-\x1f]", safe)
    assert unescape(safe) == CONTROLS.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


# --- names that lead elsewhere


@pytest.mark.parametrize(
    "name", ["../../x.jpg", "../x.jpg", "a/../../x.jpg", "a/b/../../../x.jpg", "./x.jpg", "ABSOLUTE"]
)
def test_a_sidecar_stays_in_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    here, out = tmp_path / "one" / "two", tmp_path / "out"
    (here / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(here)
    image = Path(name.replace("ABSOLUTE", str(tmp_path / "x.jpg")))
    sidecars = Sidecars(SidecarPaths(folder=out, root=common_root([image, Path("y.jpg")])))
    assert sidecars.write(image, "a dog")
    [written] = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written.resolve().is_relative_to(out.resolve())
    with pytest.raises(ImgcapError, match="has no place under"):
        Sidecars(SidecarPaths(folder=out, root=here / "a")).write(image, "a dog")


LONG, NUL, HALF = "x" * 300 + ".jpg", "x\0.jpg", "\ud800.jpg"


@pytest.mark.parametrize("to", [["--sidecar", ".txt"], ["--sidecar-dir", "OUT"], ["--write-metadata"]], ids=" ".join)
def test_apply_reports_names_that_no_image_can_have(
    imgcap_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = [LONG, NUL, HALF, "../../nowhere.jpg", "/nowhere.jpg", "", ".", "\x1b[31m.jpg"]
    lines = [json.dumps({"path": name, "caption": "a dog"}) + "\n" for name in names]
    (tmp_path / "rows.jsonl").write_text("".join(lines))
    done = imgcap_here("apply", "rows.jsonl", *(part.replace("OUT", str(tmp_path / "out")) for part in to))
    assert done.returncode == ExitCode.FAILED
    assert done.stderr.count("does not exist") == len(names)
    assert not CONTROLS.search(done.stderr.replace("\n", ""))
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize(
    "options",
    [[], ["--sidecar", ".txt", "--skip-existing"], ["--sidecar-dir", "out"], ["--html", "a.html"]],
    ids=" ".join,
)
def test_caption_reports_names_that_are_too_long(
    imgcap_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_folder: Path, options: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = imgcap_here("caption", LONG, "--model", model_folder, *options)
    assert done.returncode == ExitCode.FAILED
    assert "xxx.jpg cannot be read: file name too long." in done.stderr


@pytest.mark.parametrize(
    ("output", "code"),
    [
        (["-o", LONG + ".jsonl"], ExitCode.FAILED),
        (["-o", LONG + ".json", "--overwrite"], ExitCode.FAILED),
        (["-o", LONG + ".jsonl", "--resume"], ExitCode.FAILED),
        (["-o", "file/a.csv"], ExitCode.FAILED),
        (["-o", "folder", "--overwrite"], ExitCode.USAGE),
        (["-o", "folder", "-f", "json", "--overwrite"], ExitCode.USAGE),
        (["--html", LONG + ".html"], ExitCode.FAILED),
        (["--html", "file/a.html"], ExitCode.FAILED),
        (["--html", "folder", "--overwrite"], ExitCode.USAGE),
        (["--html", "folder.html", "--overwrite"], ExitCode.FAILED),
        (["--sidecar-dir", LONG], ExitCode.FAILED),
        (["--sidecar-dir", "file"], ExitCode.FAILED),
        (["--sidecar", "." + LONG], ExitCode.USAGE),
    ],
    ids=lambda value: " ".join(value).replace(LONG, "LONG") if isinstance(value, list) else "",
)
def test_an_output_that_cannot_be_written_is_reported_before_any_image_is_read(
    imgcap_here: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model_folder: Path,
    output: list[str],
    code: ExitCode,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Captioner, "batches", lambda *_, **__: pytest.fail("images were read"))
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder.html").mkdir()
    done = imgcap_here("caption", EXAMPLES / "cat.jpg", "--model", model_folder, *output)
    assert done.returncode == code
    assert done.stderr.startswith("imgcap: ")
    assert done.stderr.count("imgcap: ") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "folder.html"]


@pytest.mark.parametrize(
    "command",
    [
        ["prepare", "--images", LONG, "--captions", "a.csv", "-o", "p"],
        ["prepare", "--images", ".", "--captions", LONG, "-o", "p"],
        ["train", LONG, "-o", "m"],
        ["eval", LONG],
        *(["eval", "--hypotheses", "a.jsonl", "--references", "a.jsonl", to, LONG] for to in ("--html", "--per-image")),
        ["eval", "--hypotheses", "a.jsonl", "--references", "a.jsonl", "--html", "a.jsonl/a.html"],
        ["apply", LONG, "--sidecar", ".txt"],
    ],
    ids=lambda command: " ".join(command).replace(LONG, "LONG"),
)
def test_a_path_that_no_file_can_have_is_one_sentence(
    imgcap_here: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"image_id": "a", "caption": "a dog"}\n')
    done = imgcap_here(*command)
    assert done.returncode in (ExitCode.FAILED, ExitCode.USAGE)
    assert done.stdout == ""
    assert done.stderr.count("imgcap: ") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_images_of_a_page_of_scores_come_from_their_folder(imgcap_here: Run, tmp_path: Path) -> None:
    from helpers.data import draw

    (tmp_path / "images").mkdir()
    draw("red", 1).save(tmp_path / "images" / "in.png")
    draw("red", 1).save(tmp_path / "out.png")
    names = ["../out.png", str(tmp_path / "out.png"), "images/../../out.png", NUL, LONG, "in.png"]
    for file, text in (("a.jsonl", "a dog"), ("b.jsonl", "a dog runs")):
        lines = [json.dumps({"image_id": name, "caption": text}) + "\n" for name in names]
        (tmp_path / file).write_text("".join(lines))
    files = ["--hypotheses", tmp_path / "a.jsonl", "--references", tmp_path / "b.jsonl"]
    page = tmp_path / "page.html"
    done = imgcap_here("eval", *files, "--images", tmp_path / "images", "--html", page)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert page.read_text().count('<img src="data:image/webp') == 1
