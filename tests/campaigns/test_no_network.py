"""No command uses the network: each finishes although any process is killed when it first uses a socket."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from helpers.data import NO_NETWORK, Run, write_data_set
from imgcap.cli import app
from imgcap.errors import ExitCode
from imgcap.model.store import MODEL_CARD_FILE, write_manifest

GUARD = NO_NETWORK.split("from imgcap.cli")[0]
TINY = ["--epochs", 1, "--embedding-size", 16, "--hidden-size", 16, "--min-count", 1, "--batch-size", 8]
EACH = """
import json, sys
from imgcap.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["imgcap", *arguments]
    try:
        main()
    except SystemExit as end:
        assert not end.code, arguments
"""
SMALL_BENCH = """
import sys
from imgcap import bench
from imgcap.cli import main
bench.BATCH_SIZES, bench.SECONDS, bench.STARTS, bench.PHOTOGRAPHS, bench.PHOTOGRAPH_SIZE = (1,), 0.01, 1, 1, (160, 120)
sys.argv[0] = "imgcap"
main()
"""


@pytest.fixture(autouse=True)
def guarded(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Python that is started, by the test or by what it starts, sets up the guard before anything else."""
    folder = tmp_path_factory.mktemp("guard")
    (folder / "sitecustomize.py").write_text(GUARD)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def commands() -> Iterator[tuple[str, ...]]:
    """All commands: ("caption",), ("model", "list"), ..."""
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        yield from ((name, inner) for inner in command.commands) if hasattr(command, "commands") else [(name,)]


@pytest.mark.parametrize(
    "use",
    [
        "socket.create_connection(('127.0.0.1', 9), 1)",
        "socket.getaddrinfo('example.org', 80)",
        "socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
        "urllib.request.urlopen('http://127.0.0.1:9', timeout=1)",
        "subprocess.run([sys.executable, '-c', 'import socket; socket.getaddrinfo(\"localhost\", 9)'], check=True)",
    ],
)
def test_the_guard_sees_any_use_of_a_socket(use: str) -> None:
    program = f"import socket, subprocess, sys, urllib.request\n{use}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == (1 if "subprocess" in use else 99)
    assert "used the network" in done.stderr


def test_no_help_page_uses_the_network() -> None:
    calls = [[*command, "--help"] for command in [(), ("model",), *commands()]]
    command = [sys.executable, "-c", EACH, json.dumps(calls)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Usage: ") == len(calls)


@pytest.mark.slow
def test_no_command_uses_the_network(imgcap_fresh: Run, encoder_file: Path, tmp_path: Path) -> None:
    ran = set()

    def run(*arguments: object, exit_codes: tuple[ExitCode, ...] = (ExitCode.DONE,)) -> str:
        ran.add(next(name for name in commands() if name == tuple(map(str, arguments))[: len(name)]))
        done = imgcap_fresh(*arguments)
        assert done.returncode in exit_codes, (arguments, done.stderr)
        return done.stdout

    captions, images = write_data_set(tmp_path), tmp_path / "images"
    prepared, model, rows = tmp_path / "prepared", tmp_path / "walls", tmp_path / "rows.jsonl"
    run("prepare", "--images", images, "--captions", captions, "-o", prepared, "--encoder", encoder_file)
    run("train", prepared, "-o", model, *TINY)
    run("eval", prepared, "--model", model, "--html", tmp_path / "scores.html", "--per-image", tmp_path / "each.csv")
    (model / MODEL_CARD_FILE).write_text("# Walls\n")
    write_manifest(model)
    run("model", "import", model)
    assert "walls" in run("model", "list").split()
    run("model", "path", "walls")
    run("model", "show", "walls")
    run("model", "verify", "walls")
    extras = ("--explain", "--words", "--html", tmp_path / "gallery.html", "--sidecar", ".txt", "--write-metadata")
    run("caption", images, "--model", "walls", "-o", rows, *extras)
    assert len(list(map(json.loads, rows.read_text().splitlines()))) == 24
    run("caption", images / "missing.jpg", "--model", "walls", exit_codes=(ExitCode.FAILED,))
    run("caption", images, "--model", "walls", "-o", tmp_path / "shards.jsonl", "--shard", "1/1")
    run("merge", tmp_path / "shards.jsonl", exit_codes=(ExitCode.FAILED,))  # a single shard is the whole
    run("apply", rows, "--sidecar", ".txt", "--overwrite")
    run("doctor", "--model", "walls", exit_codes=(ExitCode.DONE, ExitCode.FAILED))  # whatever it finds here
    run("model", "remove", "walls")
    run("model", "clean")
    assert set(commands()) - ran == {("bench",)}  # the next test's


@pytest.mark.slow
def test_bench_and_the_commands_that_it_starts_use_no_network(model_folder: Path) -> None:
    command = [sys.executable, "-c", SMALL_BENCH, "bench", "--model", str(model_folder), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.DONE, done.stderr
    assert json.loads(done.stdout)["figures"]
