"""What a user does at the terminal, through the installed command."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.data import Run, draw, write_data_set
from helpers.forked import ForkedProcess
from helpers.forked import imgcap as imgcap_main
from imgcap._version import __version__
from imgcap.cli import main
from imgcap.dataset.prepared import PreparedFolder
from imgcap.errors import ExitCode
from imgcap.model import store as model_store

TINY = ["--epochs", 2, "--embedding-size", 16, "--hidden-size", 16, "--min-count", 1, "--batch-size", 8]


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The command in this process: fast, for what needs no process of its own. Returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["imgcap", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


def test_the_whole_loop_prepare_train_eval_caption(imgcap: Run, encoder_file: Path, tmp_path: Path) -> None:
    captions = write_data_set(tmp_path)
    images, prepared, model = tmp_path / "images", tmp_path / "prepared", tmp_path / "model"

    done = imgcap("prepare", "--images", images, "--captions", captions, "-o", prepared, "--encoder", encoder_file)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert done.stdout == ""
    assert "24 images" in done.stderr

    done = imgcap("train", prepared, "-o", model, *TINY)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert "epoch 2 of 2 is kept, val CIDEr-D" in done.stderr

    saved = tmp_path / "captions.jsonl"
    done = imgcap("eval", prepared, "--model", model, "--split", "test", "--save-captions", saved, "--json")
    assert done.returncode == ExitCode.DONE, done.stderr
    scores = json.loads(done.stdout)
    assert len(scores["bleu"]) == 4
    assert "tok:" in scores["signature"]

    references = tmp_path / "references.jsonl"
    records = [r for r in PreparedFolder(prepared).records if r.split == "test"]
    references.write_text("".join(json.dumps({"image_id": r.image_id, "captions": r.captions}) + "\n" for r in records))
    done = imgcap("eval", "--hypotheses", saved, "--references", references, "--json")
    assert done.returncode == ExitCode.DONE, done.stderr
    again = json.loads(done.stdout)
    assert [again[name] for name in ("bleu", "cider_d", "rouge_l")] == [
        scores[name] for name in ("bleu", "cider_d", "rouge_l")
    ]
    assert again["signature"] in scores["signature"]

    done = imgcap("caption", images / "000.png", "--model", model)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert "\t" not in done.stdout

    done = imgcap("caption", images, "--model", model)
    assert done.returncode == ExitCode.DONE, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert [path for path, _ in lines] == [str(images / f"{i:03}.png") for i in range(24)]
    assert "Captioned 24 of 24 images" in done.stderr

    before = time.monotonic()
    done = imgcap("caption", images, "--model", model, "-o", tmp_path / "rows.jsonl")
    waited = time.monotonic() - before
    summary = re.fullmatch(
        r"Captioned 24 of 24 images in ([\d.]+) s, ([\d.]+) a second\.", done.stderr.splitlines()[-1]
    )
    assert summary
    seconds, rate = map(float, summary.groups())
    least, most = seconds - 0.05, seconds + 0.05  # both figures are rounded to a tenth
    assert most > waited / 3 and least <= waited  # it includes loading the model, but not starting Python
    assert 24 / most - 0.05 <= rate <= 24 / least + 0.05


def test_a_broken_file_does_not_stop_the_others(imgcap: Run, model_folder: Path, tmp_path: Path) -> None:
    draw("red", 0).save(tmp_path / "good.png")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    done = imgcap("caption", tmp_path, "--model", model_folder, "--format", "jsonl")
    assert done.returncode == ExitCode.SOME_FAILED
    broken, good = map(json.loads, done.stdout.splitlines())
    assert broken["path"].endswith("broken.jpg")
    assert "not an image" in broken["error"]
    assert good["caption"]
    assert good["log_probability"] < 0
    assert "broken.jpg" in done.stderr
    assert "Traceback" not in done.stderr


def test_sigkill_during_prepare_and_again_gives_the_same_bytes(imgcap: Run, encoder_file: Path, tmp_path: Path) -> None:
    captions = write_data_set(tmp_path, 100)
    base = ["prepare", "--images", tmp_path / "images", "--captions", captions, "--encoder", encoder_file, "-o"]
    process = ForkedProcess(imgcap_main, [*base, tmp_path / "killed"])
    progress = tmp_path / "killed" / ".partial" / "progress.jsonl"
    while not (progress.exists() and progress.read_bytes().count(b"\n") > 1) and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert not (tmp_path / "killed" / "prepared.json").exists()
    assert imgcap(*base, tmp_path / "killed").returncode == ExitCode.DONE
    assert imgcap(*base, tmp_path / "whole").returncode == ExitCode.DONE
    for name in ("features/00000.npy", "records.jsonl", "prepared.json", "left_out.jsonl", "encoder.safetensors"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_sigint_during_train_says_how_to_continue(imgcap: Run, prepared: PreparedFolder, tmp_path: Path) -> None:
    endless = ["--epochs", 20000, "--patience", 20000]
    process = ForkedProcess(imgcap_main, ["train", prepared.root, "-o", tmp_path / "model", *TINY, *endless])
    state = tmp_path / "model" / "training-state.safetensors"
    while not state.exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == ExitCode.INTERRUPTED
    assert "--resume" in errors
    assert "Traceback" not in errors
    assert imgcap("model", "verify", tmp_path / "model").returncode == ExitCode.DONE


def test_help_and_usage_errors_import_no_torch() -> None:
    script = (
        "import sys\nfrom imgcap.cli import main\n"
        "for arguments in (['--help'], ['--version'], ['train', '--help'], ['caption'], ['train', '--epochs', 'x'],"
        " ['prepare', '--images', 'x'], ['model', 'list'], ['nonsense'], ['eval']):\n"
        "    sys.argv = ['imgcap', *arguments]\n"
        "    try:\n        main()\n    except SystemExit:\n        pass\n"
        "print(sorted({'torch', 'torchvision', 'numpy', 'PIL', 'jinja2', 'sacrebleu'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_version_and_module_entry_point() -> None:
    done = subprocess.run([sys.executable, "-m", "imgcap", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"imgcap {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "sentence"),
    [
        (["caption", "missing.jpg", "--model", "MODEL"], ExitCode.FAILED, "missing.jpg does not exist"),
        (["caption", "missing.jpg", "--model", "nobody"], ExitCode.FAILED, "no model 'nobody'"),
        (["caption"], ExitCode.USAGE, "Give an image, a folder, or - for stdin"),
        (["caption", "EMPTY", "--model", "MODEL"], ExitCode.FAILED, "holds no images"),
        (["caption", "x.jpg", "--model", "MODEL", "--beam-size", "0"], ExitCode.USAGE, "beam size"),
        (["caption", "x.jpg", "--model", "MODEL", "--device", "abacus"], ExitCode.USAGE, "'abacus' is not available"),
        (["eval"], ExitCode.USAGE, "either a prepared folder or --hypotheses"),
        (["eval", "EMPTY", "--model", "MODEL"], ExitCode.FAILED, "is not a prepared folder"),
        (["eval", "PREPARED", "--model", "MODEL", "--split", "dev2"], ExitCode.USAGE, "Unknown split 'dev2'"),
        (["eval", "--hypotheses", "x.jsonl"], ExitCode.USAGE, "need each other"),
        (["train", "EMPTY", "-o", "OUT"], ExitCode.FAILED, "is not a prepared folder"),
        (["train", "PREPARED", "-o", "OUT", "--dropout", "2"], ExitCode.USAGE, "dropout"),
        (["prepare", "--images", "EMPTY", "--captions", "nothing.csv", "-o", "OUT"], ExitCode.FAILED, "nothing.csv"),
        (
            ["prepare", "--images", "EMPTY", "--captions", "EMPTY", "-o", "OUT", "--split", "val"],
            ExitCode.USAGE,
            "is not SPLIT=FILE",
        ),
        (["model", "import", "EMPTY"], ExitCode.FAILED, "is not a model folder"),
        (["model", "remove", "nobody"], ExitCode.FAILED, "no model 'nobody'"),
        (["model", "verify", "EMPTY"], ExitCode.FAILED, "is not a model folder"),
    ],
)
def test_errors_are_one_sentence_and_the_right_exit_code(
    arguments: list[str],
    exit_code: ExitCode,
    sentence: str,
    model_folder: Path,
    prepared: PreparedFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"MODEL": model_folder, "PREPARED": prepared.root, "EMPTY": tmp_path / "empty", "OUT": tmp_path / "out"}
    assert call(monkeypatch, *(places.get(a, a) for a in arguments)) == exit_code
    printed = capsys.readouterr()
    assert sentence in " ".join(printed.err.split())
    assert "Traceback" not in printed.err
    assert printed.out == ""


def test_a_model_is_imported_listed_used_and_removed(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def output(*arguments: object) -> str:
        assert call(monkeypatch, *arguments) == ExitCode.DONE
        return capsys.readouterr().out

    draw("red", 0).save(tmp_path / "red.png")
    output("model", "import", model_folder, "--name", "walls")
    assert output("model", "list").split() == ["default", "walls"]
    assert output("model", "path", "walls").strip() == str(model_store.cache_folder() / "models" / "walls")
    assert output("model", "verify", "walls").startswith("walls\tok")
    by_name = output("caption", tmp_path / "red.png", "--model", "walls")
    assert by_name == output("caption", tmp_path / "red.png", "--model", model_folder)
    output("model", "remove", "walls")
    assert output("model", "list").split() == ["default"]


def test_file_names_cannot_steer_the_terminal(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw("red", 0).save(tmp_path / "a\x1b[31m\n\tb.png")
    draw("red", 0).save(tmp_path / "[bold]c.png")
    assert call(monkeypatch, "caption", tmp_path, "--model", model_folder) == ExitCode.DONE
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert not any("\x1b" in line for line in lines)
    assert "[bold]c.png\t" in lines[0]
    assert "a\\x1b[31m\\n\\tb.png\t" in lines[1]
