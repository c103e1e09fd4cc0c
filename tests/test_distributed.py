"""Commands in several processes that torchrun starts: the same results as in one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

from helpers.data import Run, write_data_set
from helpers.forked import ForkedProcess, torchrun
from imgcap import distributed
from imgcap.dataset.prepared import PreparedFolder
from imgcap.distributed import World, agree_on_attempt, joined
from imgcap.errors import ExitCode, UsageError
from imgcap.files import read_json_lines
from imgcap.model.store import DECODER_FILE, ENCODER_FILE, METRICS_FILE

OPTIONS = [
    *(
        "train",
        "--embedding-size",
        16,
        "--hidden-size",
        16,
        "--min-count",
        1,
        "--learning-rate",
        0.01,
        "--beam-size",
        2,
        "--patience",
        8,
    ),
    *("--device", "cpu", "--dropout", 0),  # each process draws on its own what to drop
]


def start(processes: int, *arguments: object, restarts: int = 0, launcher: Sequence[object] = ()) -> ForkedProcess:
    """Start `imgcap` in `processes` processes by torchrun; `launcher` has more options of torchrun."""
    options = ["--nproc-per-node", processes, "--max-restarts", restarts, "--monitor-interval", 0.2, *launcher]
    return ForkedProcess(torchrun, [*options, "-m", "imgcap", *arguments])


def run(processes: int, *arguments: object) -> str:
    """Run `imgcap` in `processes` processes; returns stderr."""
    process = start(processes, *arguments)
    errors = process.communicate()[1]
    assert process.returncode == ExitCode.DONE, errors
    return errors


def workers(process: ForkedProcess) -> list[int]:
    """Ids of the processes that torchrun has started, by rank."""
    return sorted(map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()))


def assert_same_training(found: Path, expected: Path) -> None:
    # Where a gradient is almost zero, its last bits decide the step of AdamW.
    for file, tolerance in ((DECODER_FILE, 1e-5), (ENCODER_FILE, 5e-5)):
        torch.testing.assert_close(load_file(found / file), load_file(expected / file), rtol=1e-4, atol=tolerance)
    ours, theirs = ([row for _, row in read_json_lines(folder / METRICS_FILE)] for folder in (found, expected))
    assert [row["epoch"] for row in ours] == [row["epoch"] for row in theirs]
    for name in ("loss", "learning_rate", "val_cider_d"):
        assert [row[name] for row in ours] == pytest.approx([row[name] for row in theirs], rel=1e-4)


def test_a_world_of_one_exchanges_with_itself() -> None:
    world, module = World(), torch.nn.Linear(1, 1)
    assert world.is_first
    assert world.gather("a") == ["a"]
    assert world.sum(1.5) == 1.5
    assert world.parallel(module) is module


def test_a_device_that_is_not_there_is_one_sentence() -> None:
    with pytest.raises(UsageError, match="abacus"), joined("abacus"):
        raise AssertionError


def test_processes_agree_on_an_attempt_whatever_earlier_ones_have_left() -> None:
    store = dist.HashStore()  # type: ignore[attr-defined]
    with ThreadPoolExecutor(3) as pool:
        for attempt in (1, 2, 3):
            store.add("imgcap/questions", attempt)  # of processes that were lost before they got an answer
            agreed = [pool.submit(agree_on_attempt, store, rank, 3) for rank in (2, 0, 1)]
            assert [each.result(timeout=30) for each in agreed] == [attempt] * 3


def test_waiting_for_a_process_that_does_not_start_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_CONNECTING", timedelta(seconds=0.1))
    with pytest.raises(dist.DistStoreError):
        agree_on_attempt(dist.HashStore(), 0, 2)  # type: ignore[attr-defined]


def test_training_is_the_same_in_one_two_and_four_processes(
    imgcap_here: Run, prepared: PreparedFolder, tmp_path: Path
) -> None:
    options = [*OPTIONS, prepared.root, "--epochs", 3, "--batch-size", 13, "--word-dropout", 0.2, "--average", 0.9]
    assert imgcap_here(*options, "-o", tmp_path / "one").returncode == ExitCode.DONE
    assert imgcap_here(*options, "-o", tmp_path / "parts", "--accumulation", 3).returncode == ExitCode.DONE
    run(2, *options, "-o", tmp_path / "two", "--accumulation", 2)
    # The last batch of an epoch has fewer captions than there are processes.
    captions = sum(len(prepared.records[row].captions) for row in prepared.rows("train"))
    assert captions % 13 == 1
    output = run(4, *options, "-o", tmp_path / "four")
    assert output.count("of 3 is kept, val CIDEr-D") == 1
    assert output.count("report.html: ") == 1
    for name in ("parts", "two", "four"):
        assert_same_training(tmp_path / name, tmp_path / "one")
        assert imgcap_here("model", "verify", tmp_path / name).returncode == ExitCode.DONE


@pytest.mark.slow
@pytest.mark.parametrize("more", [[], ["--self-critical"]])
def test_fine_tuning_the_encoder_in_two_processes(
    imgcap_here: Run, prepared: PreparedFolder, model_folder: Path, tmp_path: Path, more: list[str]
) -> None:
    options = [*OPTIONS, prepared.root, "--fine-tune-encoder", "--epochs", 1, "--start-from", model_folder, *more]
    options += ["--batch-size", 8, "--encoder-learning-rate", 1e-4]
    run(2, *options, "-o", tmp_path / "two")
    assert imgcap_here("model", "verify", tmp_path / "two").returncode == ExitCode.DONE
    if not more:  # each process draws its own samples
        assert imgcap_here(*options, "-o", tmp_path / "one").returncode == ExitCode.DONE
        assert_same_training(tmp_path / "two", tmp_path / "one")


def test_a_killed_process_costs_one_epoch_and_another_number_of_processes_can_resume(
    imgcap_here: Run, prepared: PreparedFolder, tmp_path: Path
) -> None:
    options = [*OPTIONS, prepared.root, "--epochs", 40, "--patience", 40]
    assert imgcap_here(*options, "-o", tmp_path / "one").returncode == ExitCode.DONE

    process = start(2, *options, "-o", tmp_path / "restarted", restarts=1)
    while not (tmp_path / "restarted" / "training-state.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(workers(process)[1], signal.SIGKILL)
    errors = process.communicate()[1]
    assert process.returncode == ExitCode.DONE, errors
    assert_same_training(tmp_path / "restarted", tmp_path / "one")

    slow = ["--monitor-interval", 5]  # torchrun leaves the other process the time to report the error
    process = start(2, *options, "-o", tmp_path / "resumed", launcher=slow)
    while not (tmp_path / "resumed" / "training-state.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(workers(process)[1], signal.SIGKILL)
    errors = process.communicate()[1]
    assert process.returncode == ExitCode.FAILED
    assert "Another process of this run has ended" in errors
    done = imgcap_here(*options, "-o", tmp_path / "resumed", "--resume")
    assert done.returncode == ExitCode.DONE, done.stderr
    assert_same_training(tmp_path / "resumed", tmp_path / "one")


def test_a_process_killed_on_one_of_two_machines_restarts_both(
    imgcap_here: Run, prepared: PreparedFolder, tmp_path: Path
) -> None:
    options = [*OPTIONS, prepared.root, "--epochs", 40, "--patience", 40]
    assert imgcap_here(*options, "-o", tmp_path / "one").returncode == ExitCode.DONE
    with socket.socket() as free:
        free.bind(("localhost", 0))
        endpoint = f"localhost:{free.getsockname()[1]}"
    launcher = ["--nnodes", 2, "--rdzv-backend", "c10d", "--rdzv-endpoint", endpoint, "--rdzv-id", "test"]
    machines = [start(1, *options, "-o", tmp_path / "two", restarts=3, launcher=launcher) for _ in range(2)]
    while not (tmp_path / "two" / "training-state.safetensors").exists():
        assert [machine.poll() for machine in machines] == [None, None]
        time.sleep(0.01)
    os.kill(workers(machines[1])[0], signal.SIGKILL)
    errors = [machine.communicate()[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [ExitCode.DONE] * 2, errors
    assert_same_training(tmp_path / "two", tmp_path / "one")


def contents(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_prepare_caption_and_eval_are_the_same_in_one_two_and_three_processes(
    imgcap_here: Run, encoder_file: Path, telling_model: Path, tmp_path: Path
) -> None:
    captions = write_data_set(tmp_path, 100)
    (tmp_path / "images" / "033.png").write_bytes(b"damaged")
    prepare = ["prepare", "--images", tmp_path / "images", "--captions", captions, "--encoder", encoder_file, "-o"]
    assert imgcap_here(*prepare, tmp_path / "one").returncode == ExitCode.SOME_FAILED

    # A process is killed in the middle, and the others with it; run again, they finish.
    process = start(2, *prepare, tmp_path / "two")
    progress = tmp_path / "two" / ".shards" / "2-of-2" / "progress.jsonl"
    while not (progress.exists() and progress.read_bytes().count(b"\n") > 1):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(workers(process)[1], signal.SIGKILL)
    process.communicate()
    assert process.returncode == ExitCode.FAILED
    assert not (tmp_path / "two" / "prepared.json").exists()
    run(3, *prepare, tmp_path / "two")
    assert contents(tmp_path / "two") == contents(tmp_path / "one")

    caption = ["caption", tmp_path / "images", "--model", telling_model, "--batch-size", 4, "-o"]
    assert imgcap_here(*caption, tmp_path / "one.jsonl").returncode == ExitCode.SOME_FAILED
    expected = (tmp_path / "one.jsonl").read_bytes()
    assert b"033.png" in expected
    process = start(2, *caption, tmp_path / "killed" / "rows.jsonl")
    rows = tmp_path / "killed" / "rows.2-of-2.jsonl"
    while not (rows.exists() and rows.stat().st_size):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(workers(process)[0], signal.SIGKILL)
    process.communicate()
    assert process.returncode == ExitCode.FAILED

    # Any number of processes finish the two shards, and so does the command without torchrun.
    for processes in (1, 3):
        shutil.copytree(tmp_path / "killed", tmp_path / str(processes))
        errors = run(processes, *caption, tmp_path / str(processes) / "rows.jsonl")
        assert "Continuing the 2 shards" in errors
        assert errors.count("Captioned") == 1
    shutil.copytree(tmp_path / "killed", tmp_path / "plain")
    imgcap_here(*caption, tmp_path / "plain" / "rows.jsonl")
    for folder in ("1", "3", "plain"):
        assert contents(tmp_path / folder) == {Path("rows.jsonl"): expected}


def test_an_evaluation_with_a_killed_process_leaves_no_partial_files(
    imgcap_here: Run, prepared: PreparedFolder, telling_model: Path, tmp_path: Path
) -> None:
    def score(folder: str) -> list[object]:
        options = ["--model", telling_model, "--split", "train", "--overwrite"]
        outputs = [
            "--save-captions",
            tmp_path / folder / "captions.jsonl",
            "--per-image",
            tmp_path / folder / "each.csv",
        ]
        return ["eval", prepared.root, *options, *outputs]

    one = imgcap_here(*score("one"))
    assert one.returncode == ExitCode.DONE, one.stderr
    process = start(2, *score("two"))
    while not (len(workers(process)) == 2 and has_opened(workers(process)[1], prepared.root)):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(workers(process)[1], signal.SIGKILL)
    process.communicate()
    assert process.returncode == ExitCode.FAILED
    assert contents(tmp_path / "two") == {}
    run(2, *score("two"))
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def has_opened(process: int, folder: Path) -> bool:
    """Whether a process has mapped files of `folder`."""
    return str(folder) in Path(f"/proc/{process}/maps").read_text()
