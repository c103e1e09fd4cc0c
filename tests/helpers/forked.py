"""Commands in processes of their own that start at once: they are forked from a process that has torch loaded.

A new Python needs seconds to load torch, and more for the parts that train. A forked process has its own memory,
signals, output and exit code, like any other. But it does not show how a new Python starts: for that, use `subprocess`.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
"""Windows cannot fork: there, each process is a new Python, in which everything else is the same."""
PRELOADED = [
    "torch._dynamo",
    "torch.distributed.run",
    "torch.nn.parallel",
    "imgcap.captioning.captioner",
    "imgcap.cli",
    "imgcap.dataset.preparation",
    "imgcap.pages.gallery",
    "imgcap.scoring.evaluation",
    "imgcap.training.trainer",
]
Main = Callable[[Sequence[str]], None]
"""A program: takes the arguments of its command line, ends with `SystemExit`."""


class ForkedProcess:
    """A running program, used like a `subprocess.Popen` whose output is text; `stdout` is where it goes instead."""

    def __init__(
        self, main: Main, arguments: Sequence[object], *, stdin: bytes = b"", stdout: Path | None = None
    ) -> None:
        context: Any = multiprocessing.get_context(METHOD)
        context.set_forkserver_preload(PRELOADED)
        folder = Path(tempfile.mkdtemp())
        self._files = [folder / name for name in ("stdout", "stderr")]
        for file in self._files:
            file.touch()
        (folder / "stdin").write_bytes(stdin)
        streams = [folder / "stdin", stdout or self._files[0], self._files[1]]
        start = (main, list(map(str, arguments)), dict(os.environ), Path.cwd(), streams)
        self._process: BaseProcess = context.Process(target=_start, args=start)
        self._process.start()
        assert self._process.pid
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def communicate(self, timeout: float = 900) -> tuple[str, str]:
        """Wait for the end; returns stdout and stderr."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            raise TimeoutError(f"not done after {timeout} seconds")
        out, errors = (file.read_text(encoding="utf-8") for file in self._files)
        shutil.rmtree(self._files[0].parent)
        return out, errors


def run(main: Main, arguments: Sequence[object], stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    process = ForkedProcess(main, arguments, stdin=stdin)
    out, errors = process.communicate()
    assert process.returncode is not None
    return subprocess.CompletedProcess(list(map(str, arguments)), process.returncode, out, errors)


def imgcap(arguments: Sequence[str]) -> None:
    """`imgcap ARGUMENTS`."""
    from imgcap.cli import main

    sys.argv = ["imgcap", *arguments]
    main()


def python(arguments: Sequence[str]) -> None:
    """`python -c CODE`."""
    [code] = arguments
    exec(code, {"__name__": "__main__"})


def torchrun(arguments: Sequence[str]) -> None:
    """`torchrun ARGUMENTS`, which end in `-m imgcap ...`; its processes are forked from it."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler

    subprocess_handler.Popen = _Worker  # type: ignore[assignment,attr-defined]
    run.main(list(arguments))


class _Worker:
    """A process of torchrun, which takes it for a `subprocess.Popen`."""

    def __init__(self, args: Sequence[str], env: Mapping[str, str], **_options: Any) -> None:
        arguments = args[args.index("imgcap") + 1 :]
        self._process = multiprocessing.get_context("fork").Process(target=_work, args=(arguments, env))
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("imgcap", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        assert self.pid
        os.kill(self.pid, number)


def _work(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):  # torchrun handles them
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(environment)
    imgcap(arguments)


def _start(
    main: Main, arguments: Sequence[str], environment: Mapping[str, str], folder: Path, streams: Sequence[Path]
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for descriptor, file in enumerate(streams):
        opened = os.open(file, os.O_RDWR)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdin, sys.stdout, sys.stderr = (
        open(descriptor, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
        for descriptor, mode in ((0, "r"), (1, "w"), (2, "w"))
    )
    main(arguments)
