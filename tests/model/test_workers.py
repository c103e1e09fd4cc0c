"""Threads that compute side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from imgcap.model.workers import workers


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Restore the number of threads after each test."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("count", "threads_each"), [(1, 1), (2, 1), (3, 2)])
def test_workers_have_their_own_number_of_threads_and_other_threads_keep_theirs(count: int, threads_each: int) -> None:
    torch.set_num_threads(3)
    pool = workers(count, threads_each)
    assert pool is workers(count, threads_each)
    assert pool
    together = Barrier(count)

    def number(_: int) -> int:
        together.wait(timeout=60)  # each worker takes one
        return torch.get_num_threads()

    assert list(pool.map(number, range(count))) == [threads_each] * count
    assert torch.get_num_threads() == 3
    with ThreadPoolExecutor(1) as others:
        assert others.submit(torch.get_num_threads).result() == 3
    torch.set_num_threads(4)
    assert list(pool.map(number, range(count))) == [threads_each] * count


def test_there_are_no_workers_if_all_threads_share_one_number(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = [7]
    monkeypatch.setattr(torch, "get_num_threads", lambda: shared[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda number: shared.__setitem__(0, number))
    assert workers(2, 5) is None
    assert shared == [7]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork processes")
def test_a_forked_process_has_workers_of_its_own() -> None:
    pool = workers(2, 1)
    assert pool
    process = os.fork()
    if not process:
        own = workers(2, 1)
        os._exit(0 if own and own is not pool and own.submit(int, "5").result(timeout=60) == 5 else 1)
    assert os.waitpid(process, 0)[1] == 0
