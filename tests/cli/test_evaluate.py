"""`imgcap eval` as its users call it: captions from files or a model, and all that can be made of their scores."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.data import Run
from helpers.unusable_files import UNUSABLE, write
from imgcap.dataset.prepared import METADATA_FILE, PreparedFolder
from imgcap.errors import ExitCode
from imgcap.files import read_json, write_json
from imgcap.model.store import CONFIG_FILE, locate, write_manifest
from imgcap.scoring.scores import METRICS

CAPTIONS = {"a.jpg": "a dog runs on the grass", "b.jpg": "a cat cat sleeps on a sofa", "c.jpg": "a dog runs on grass"}
OTHER = {"c.jpg": "two boys swim", "a.jpg": "a dog runs on the lawn", "b.jpg": "a cat sleeps"}
REFERENCES = {
    "b.jpg": ["a cat sleeps on a red sofa", "The cat is asleep."],
    "a.jpg": ["A dog runs on the lawn .", "a brown dog runs"],
    "c.jpg": ["two boys swim in a lake", "boys swim"],
}


@pytest.fixture
def files(tmp_path: Path) -> list[object]:
    hypotheses = write(tmp_path, "captions.jsonl", [{"image_id": i, "caption": c} for i, c in CAPTIONS.items()])
    references = write(tmp_path, "references.jsonl", [{"image_id": i, "captions": c} for i, c in REFERENCES.items()])
    return ["--hypotheses", hypotheses, "--references", references]


def table(printed: str) -> dict[str, list[str]]:
    """Cells of the printed tables by the row's name."""
    rows = (re.split(r" {2,}", line.strip()) for line in printed.splitlines())
    return {name: cells for name, *cells in rows if cells}


def test_each_score_is_printed_with_its_interval_floor_and_ceiling(imgcap: Run, files: list[object]) -> None:
    done = imgcap("eval", *files, "--json")
    assert done.returncode == ExitCode.DONE, done.stderr
    scores = json.loads(done.stdout)
    done = imgcap("eval", *files)
    assert done.returncode == ExitCode.DONE, done.stderr
    printed = table(done.stdout)
    for n, value in enumerate(scores["bleu"]):
        low, high = scores["intervals"][f"bleu_{n + 1}"]
        assert low < value < high
        assert printed[f"BLEU-{n + 1}"] == [
            f"{value:.4f}",
            f"{low:.4f} to {high:.4f}",
            f"{scores['floor']['bleu'][n]:.4f}",
            f"{scores['ceiling']['bleu'][n]:.4f}",
        ]
    assert printed["CIDEr-D"][0] == f"{scores['cider_d']:.4f}"
    assert printed["ROUGE-L"][0] == f"{scores['rouge_l']:.4f}"
    assert printed["distinct captions"][0] == "3"
    assert printed["repeat a word at once"][0] == "33.3%"
    assert "3 images with 2 references." in done.stdout
    assert f"signature: {scores['signature']}" in done.stdout


def test_no_figure_is_cut_in_a_narrow_terminal(
    imgcap_here: Run, files: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = table(imgcap_here("eval", *files).stdout)
    monkeypatch.setattr("imgcap.cli.console.out._width", 40)
    assert table(imgcap_here("eval", *files).stdout)["CIDEr-D"] == wide["CIDEr-D"]


def test_the_printed_table_shows_names_as_they_are(imgcap_here: Run, files: list[object], tmp_path: Path) -> None:
    named = tmp_path / "captions [red]\x1b[2J.jsonl"
    named.write_bytes(Path(str(files[1])).read_bytes())
    printed = imgcap_here("eval", "--hypotheses", named, *files[2:]).stdout
    assert "captions [red]\\x1b[2J.jsonl" in printed


def test_other_captions_are_compared_with_in_plain_words(imgcap_here: Run, files: list[object], tmp_path: Path) -> None:
    other = write(tmp_path, "other.csv", "image_id,caption\n" + "".join(f"{i},{c}\n" for i, c in OTHER.items()))
    done = imgcap_here("eval", *files, "--compare", other)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert "Too few images: " in done.stdout
    assert "but fewer than 6 images can never tell a difference from chance." in done.stdout
    found = json.loads(imgcap_here("eval", *files, "--compare", other, "--json").stdout)["comparison"]
    alone = json.loads(imgcap_here("eval", "--hypotheses", other, *files[2:], "--json").stdout)
    assert found["cider_d"] == alone["cider_d"]  # whose rows stand in another order
    assert found["differences"].keys() == METRICS.keys()


def test_other_captions_must_be_of_the_same_images(imgcap_here: Run, files: list[object], tmp_path: Path) -> None:
    other = write(tmp_path, "other.jsonl", [{"image_id": i, "caption": "x"} for i in ("a.jpg", "b.jpg", "z.jpg")])
    done = imgcap_here("eval", *files, "--compare", other)
    assert done.returncode == ExitCode.FAILED
    assert "z.jpg" in done.stderr


def test_the_scores_of_each_image_are_written_best_or_worst_first(
    imgcap_here: Run, files: list[object], tmp_path: Path
) -> None:
    best, worst = tmp_path / "best.csv", tmp_path / "worst.jsonl"
    assert imgcap_here("eval", *files, "--per-image", best).returncode == ExitCode.DONE
    assert imgcap_here("eval", *files, "--per-image", worst, "--worst-first").returncode == ExitCode.DONE
    with best.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["image_id"] for row in rows][-1] == "c.jpg"
    assert [float(row["cider_d"]) for row in rows] == sorted((float(row["cider_d"]) for row in rows), reverse=True)
    ids = [json.loads(line)["image_id"] for line in worst.read_text().splitlines()]
    assert ids == [row["image_id"] for row in rows][::-1]


def test_markdown_is_a_table_for_a_readme(imgcap_here: Run, files: list[object]) -> None:
    done = imgcap_here("eval", *files, "--markdown")
    assert done.returncode == ExitCode.DONE, done.stderr
    assert "| score | value | 95 % interval | floor | ceiling |\n| --- | ---: |" in done.stdout


def test_floor_and_training_captions_can_be_given(imgcap_here: Run, files: list[object], tmp_path: Path) -> None:
    training = write(tmp_path, "training.txt", "a dog runs on grass\nA cat.\n")
    found = json.loads(imgcap_here("eval", *files, "--training-captions", training, "--json").stdout)
    assert found["floor"]["caption"] == "a dog runs on grass"
    assert found["verbatim"] == pytest.approx(1 / 3)
    found = json.loads(imgcap_here("eval", *files, "--floor", "Two boys", "--json").stdout)
    assert found["floor"]["caption"] == "two boys"
    assert found["verbatim"] is None


def test_the_page_holds_scores_and_images(imgcap_here: Run, files: list[object], tmp_path: Path) -> None:
    from helpers.data import draw

    (tmp_path / "images").mkdir()
    draw("red", 0).save(tmp_path / "images" / "a.jpg")
    page = tmp_path / "new" / "page.html"
    done = imgcap_here("eval", *files, "--html", page, "--images", tmp_path / "images")
    assert done.returncode == ExitCode.DONE, done.stderr
    text = page.read_text(encoding="utf-8")
    assert text.count('src="data:image/webp;base64,') == 1
    assert "a brown dog runs" in text
    assert table(done.stdout)["CIDEr-D"][0] in text


def test_a_model_is_scored_with_its_curves_and_its_name(
    imgcap_here: Run, prepared: PreparedFolder, model_folder: Path, tmp_path: Path
) -> None:
    saved, page = tmp_path / "captions.jsonl", tmp_path / "page.html"
    command = ["eval", prepared.root, "--model", model_folder, "--split", "val", "--json"]
    done = imgcap_here(*command, "--save-captions", saved, "--html", page)
    assert done.returncode == ExitCode.DONE, done.stderr
    found = json.loads(done.stdout)
    assert re.match(r"model:walls@[0-9a-f]{16}\|split:val\|beam:2\|length_penalty:0.7\|", found["signature"])
    assert 0 <= found["verbatim"] <= 1
    assert found["floor"]["verbatim"] == 1
    assert "Training loss" in page.read_text(encoding="utf-8")
    assert "data:image/webp" in page.read_text(encoding="utf-8")
    again = imgcap_here(*command, "--compare", saved)
    assert json.loads(again.stdout)["comparison"]["differences"]["cider_d"] == {
        "value": 0,
        "interval": [0, 0],
        "p": 1,
    }


def test_two_models_are_compared_on_the_same_images(
    imgcap: Run, prepared: PreparedFolder, model_folder: Path, telling_model: Path, tmp_path: Path
) -> None:
    command = ["eval", prepared.root, "--model", model_folder, "--split", "train"]
    assert imgcap(*command, "--model", telling_model, "--save-captions", tmp_path / "o.jsonl").returncode == 0
    from_file = json.loads(imgcap(*command, "--compare", tmp_path / "o.jsonl", "--json").stdout)
    done = imgcap(*command, "--compare-model", telling_model, "--json", "--html", tmp_path / "page.html")
    assert done.returncode == ExitCode.DONE, done.stderr
    found = json.loads(done.stdout)
    assert found["comparison"]["differences"] == from_file["comparison"]["differences"]
    assert found["comparison"]["intervals"]["cider_d"][0] < found["comparison"]["cider_d"]
    assert found["comparison"]["verdict"].startswith(f"{model_folder} is better than {telling_model} by ")
    assert re.search(r"\|compared:telling@[0-9a-f]{16},beam:2,length_penalty:0.7,max_length:24\|", found["signature"])
    assert found["comparison"]["verdict"] in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_given_search_options_hold_for_both_models_and_differences_between_their_own_are_said(
    imgcap_here: Run, prepared: PreparedFolder, model_folder: Path, telling_model: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(telling_model, tmp_path / "other"))
    config = read_json(other / CONFIG_FILE)
    write_json(other / CONFIG_FILE, {**config, "search": {**config["search"], "beam_size": 4}})
    write_manifest(other)
    command = ["eval", prepared.root, "--model", model_folder, "--compare-model", other]
    assert (
        f"Each model searches with its own settings: {model_folder} with beam 2, length penalty 0.7 and at most 24 "
        f"words, {other} with beam 4, length penalty 0.7 and at most 24 words.\n"
    ) in imgcap_here(*command).stdout
    found = json.loads((done := imgcap_here(*command, "--beam-size", 3, "--json")).stdout)
    assert found["signature"].count("beam:3") == 2
    assert "its own settings" not in done.stderr


def test_a_model_with_another_encoder_captions_the_images_themselves(
    imgcap_here: Run, prepared: PreparedFolder, model_folder: Path, telling_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(prepared.root, tmp_path / "prepared")
    metadata = read_json(prepared.root / METADATA_FILE)
    write_json(tmp_path / "prepared" / METADATA_FILE, {**metadata, "encoder_fingerprint": "0" * 64})
    command = ["eval", tmp_path / "prepared", "--model", model_folder, "--compare-model", telling_model]
    done = imgcap_here(*command)
    assert done.returncode == ExitCode.DONE, done.stderr
    for model in (model_folder, telling_model):
        assert (
            f"The features in {tmp_path / 'prepared'} come from another encoder than {model} needs, so its own encoder "
            "encoded the images again.\n"
        ) in done.stdout
    fitting = imgcap_here("eval", prepared.root, *command[2:])
    assert table(done.stdout)["CIDEr-D"] == table(fitting.stdout)["CIDEr-D"]
    gone = tmp_path / "gone"
    write_json(
        tmp_path / "prepared" / METADATA_FILE,
        {**metadata, "encoder_fingerprint": "0" * 64, "image_root": str(gone)},
    )
    done = imgcap_here(*command)
    assert done.returncode == ExitCode.FAILED
    first = next(record for record in prepared.records if record.split == "test")
    assert done.stderr.lstrip() == (
        f"imgcap: The features in {tmp_path / 'prepared'} come from another encoder than the model 'walls' needs, and "
        f"its images cannot be encoded again: {gone / first.path} does not exist.\n"
        f"  Prepare the images with `--encoder {model_folder}` into another folder.\n"
    )


@pytest.mark.parametrize(
    ("option", "name"), [("--html", "mine.html"), ("--per-image", "mine.csv"), ("--save-captions", "mine.jsonl")]
)
def test_files_are_not_replaced_unless_asked(
    imgcap_here: Run, prepared: PreparedFolder, model_folder: Path, tmp_path: Path, option: str, name: str
) -> None:
    file = tmp_path / name
    file.write_text("precious")
    command = ["eval", prepared.root, "--model", model_folder, option, file]
    done = imgcap_here(*command)
    assert done.returncode == ExitCode.FAILED
    assert f"{file} already exists." in done.stderr
    assert file.read_text() == "precious"
    assert imgcap_here(*command, "--overwrite").returncode == ExitCode.DONE
    assert file.read_text() != "precious"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["PREPARED", "FILES"], "Give either a prepared folder or --hypotheses and --references."),
        (["--hypotheses", "x.jsonl"], "--hypotheses and --references need each other."),
        (["--references", "x.jsonl"], "Give either a prepared folder or"),
        (["FILES", "--json", "--markdown"], "--json and --markdown cannot both be printed."),
        (["FILES", "--worst-first"], "--worst-first goes with --per-image"),
        (["FILES", "--images", "."], "--images goes with --html."),
        (["FILES", "--save-captions", "new.jsonl"], "--save-captions goes with a prepared folder and a model."),
        (["FILES", "--per-image", "new.txt"], "new.txt is neither .jsonl nor .csv."),
        (["PREPARED", "--save-captions", "x.jsonl", "--per-image", "x.jsonl"], "x.jsonl cannot hold two things."),
        (["PREPARED", "--save-captions", "x.csv"], "--save-captions writes JSON Lines, but x.csv is not .jsonl."),
        (
            ["PREPARED", "--save-captions", "x.jsonl", "--per-image", "./y/../x.jsonl"],
            "x.jsonl cannot hold two things.",
        ),
        (["PREPARED", "--compare-model", ""], "--compare-model takes the name or the folder of a model."),
        (["FILES", "--html", "x.csv"], "--html writes a web page, but x.csv is not .html."),
        (["FILES", "--min-refs", "0"], "must be at least 1"),
        (["PREPARED", "--html", "x.html", "--images", "."], "--images goes with --hypotheses"),
        (["PREPARED", "--training-captions", "x"], "--training-captions goes with --hypotheses"),
        (["PREPARED", "--some"], "--some goes with --hypotheses"),
        (["FILES", "--compare-model", "default"], "--compare-model goes with a prepared folder."),
        (["PREPARED", "--compare-model", "x", "--compare", "y"], "--compare and --compare-model cannot both be given."),
        (["PREPARED", "--compare-model", "default"], "--compare-model names the model that is scored, 'default'."),
    ],
)
def test_options_that_do_not_go_together_are_usage_errors(
    imgcap_here: Run, files: list[object], prepared: PreparedFolder, arguments: list[str], sentence: str
) -> None:
    given = [part for word in arguments for part in (files if word == "FILES" else [word])]
    done = imgcap_here("eval", *(prepared.root if part == "PREPARED" else part for part in given))
    assert done.returncode == ExitCode.USAGE
    assert sentence in done.stderr


def test_a_model_where_captions_belong_is_told_where_it_goes_before_anything_is_captioned(
    imgcap_here: Run, files: list[object], prepared: PreparedFolder, model_folder: Path, tmp_path: Path
) -> None:
    def refused(*arguments: object) -> tuple[int, str]:
        done = imgcap_here("eval", *arguments)
        assert done.stdout == ""
        return done.returncode, done.stderr

    scored: list[object] = [prepared.root, "--model", model_folder]
    for model in ("default", str(model_folder)):
        sentence = (
            f"imgcap: --compare takes a file of captions, but {model} is a model.\n  Give --compare-model {model}"
        )
        assert refused(*scored, "--compare", model) == (ExitCode.USAGE, f"{sentence}.\n")
        other = f"{sentence}, with a prepared folder instead of --hypotheses.\n"
        assert refused(*files, "--compare", model) == (ExitCode.USAGE, other)
    assert refused("--hypotheses", "default", *files[2:]) == (
        ExitCode.USAGE,
        "imgcap: --hypotheses takes a file of captions, but default is a model.\n"
        "  Give a prepared folder and --model default.\n",
    )
    assert refused(*scored, "--compare-model", files[1]) == (
        ExitCode.USAGE,
        f"imgcap: --compare-model takes a model, but {files[1]} is a file.\n"
        f"  If it holds captions, give --compare {files[1]}.\n",
    )
    (tmp_path / "link").symlink_to(model_folder)
    assert refused(*scored, "--compare-model", tmp_path / "link") == (
        ExitCode.USAGE,
        f"imgcap: --compare-model names the model that is scored, '{model_folder}'.\n  Name another model.\n",
    )
    assert refused(prepared.root, "--compare-model", locate("default")) == (
        ExitCode.USAGE,
        "imgcap: --compare-model names the model that is scored, 'default'.\n  Name another model.\n",
    )
    missing = tmp_path / "missing.csv"
    error = f"imgcap: {missing} does not exist.\n  Give a file of captions.\n"
    assert refused(*scored, "--compare", missing) == (ExitCode.FAILED, error)


def test_images_with_too_few_references_are_named(
    imgcap_here: Run, files: list[object], prepared: PreparedFolder, model_folder: Path
) -> None:
    for source in (files, [prepared.root, "--model", model_folder]):
        assert imgcap_here("eval", *source, "--min-refs", 2).returncode == ExitCode.DONE
        done = imgcap_here("eval", *source, "--min-refs", 3)
        assert done.returncode == ExitCode.FAILED
        assert "Fewer than 3 references in" in done.stderr


def test_rows_of_a_folder_are_scored_by_file_name_and_some_of_them_on_demand(
    imgcap_here: Run, files: list[object], tmp_path: Path
) -> None:
    rows = [{"path": f"photos/{name}", "caption": caption} for name, caption in CAPTIONS.items()]
    own, few = write(tmp_path, "own.jsonl", rows), write(tmp_path, "few.jsonl", rows[:2])
    whole = json.loads(imgcap_here("eval", *files, "--json").stdout)
    done = imgcap_here("eval", "--hypotheses", own, *files[2:], "--compare", files[1], "--json")
    assert done.returncode == ExitCode.DONE, done.stderr
    found = json.loads(done.stdout)
    assert found["cider_d"] == whole["cider_d"] == found["comparison"]["cider_d"]
    assert imgcap_here("eval", "--hypotheses", few, *files[2:]).returncode == ExitCode.FAILED
    done = imgcap_here("eval", "--hypotheses", few, *files[2:], "--some")
    assert done.returncode == ExitCode.DONE, done.stderr
    assert "2 images with 2 references.\n" in done.stdout
    assert "Scored 2 of 3 images with references.\n" in done.stdout
    done = imgcap_here("eval", "--hypotheses", few, *files[2:], "--some", "--json")
    assert json.loads(done.stdout)["images"] == 2
    assert done.stderr == "Scored 2 of 3 images with references.\n"


def test_columns_can_be_named(imgcap_here: Run, files: list[object], tmp_path: Path) -> None:
    rows = [f"{name},{captions[0]},{captions[1]}" for name, captions in REFERENCES.items()]
    named = write(tmp_path, "named.csv", "\n".join(["foto,human 1,human 2", *rows]))
    command = ["eval", *files[:2], "--references", named]
    assert imgcap_here(*command).returncode == ExitCode.FAILED
    done = imgcap_here(*command, "--image-column", "Foto", "--caption-column", "human")
    assert done.stdout.splitlines()[-1] == imgcap_here("eval", *files).stdout.splitlines()[-1]
    done = imgcap_here("eval", *files, "--image-column", "foto")
    assert done.returncode == ExitCode.USAGE
    assert "No file has a column 'foto'." in done.stderr


def test_files_are_written_whatever_happens_to_the_terminal(files: list[object], tmp_path: Path) -> None:
    """A terminal that cannot show a character, and a reader that leaves."""
    write(tmp_path, "日本.jsonl", Path(str(files[1])).read_bytes())
    command = f"{sys.executable} -m imgcap eval --hypotheses 日本.jsonl --references references.jsonl --floor 日本"
    for number, sink in enumerate(("| cat", "| true", ">&-")):
        outputs = f"--html {number}.html --per-image {number}.csv"
        done = subprocess.run(
            ["bash", "-c", f"{command} {outputs} {sink}"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONIOENCODING": "cp1252"},
            capture_output=True,
            check=False,
        )
        assert (tmp_path / f"{number}.html").is_file(), done.stderr
        assert (tmp_path / f"{number}.csv").is_file()
        assert b"Traceback" not in done.stderr
        if number == 0:
            assert b"\\u65e5\\u672c.jsonl" in done.stdout
            assert b"CIDEr-D" in done.stdout


@pytest.mark.parametrize(("name", "content", "sentence"), UNUSABLE[::10])  # tests/scoring/test_pairs.py has all
def test_files_that_cannot_be_used_are_one_sentence_and_a_failure(
    imgcap_here: Run, files: list[object], tmp_path: Path, name: str, content: object, sentence: str
) -> None:
    broken = write(tmp_path, f"broken-{name}", content)
    done = imgcap_here("eval", "--hypotheses", broken, *files[2:])
    assert done.returncode in (ExitCode.FAILED, ExitCode.USAGE)
    assert done.stdout == ""
    assert done.stderr.startswith("imgcap: ")
    assert str(broken) in done.stderr
    assert "Traceback" not in done.stderr
