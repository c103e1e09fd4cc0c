"""Threads that compute side by side, each with its own share of torch's threads."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Barrier

import torch


def workers(count: int, threads_each: int) -> ThreadPoolExecutor | None:
    """`count` threads in which torch's operators use `threads_each` threads; None if this torch cannot do that.

    The threads are kept for the next call. torch's number of threads is unchanged in all other threads.
    """
    return _workers(count, threads_each, os.getpid())  # a forked process does not have its parent's threads


@lru_cache(maxsize=2)
def _workers(count: int, threads_each: int, _process: int) -> ThreadPoolExecutor | None:
    before, started = torch.get_num_threads(), Barrier(count + 1)
    pool = ThreadPoolExecutor(count, "imgcap-encoder")

    def first_number() -> int:
        number = torch.get_num_threads()  # from the first time on, a thread has a number of its own
        started.wait()
        return number

    torch.set_num_threads(threads_each)
    try:
        numbers = [pool.submit(first_number) for _ in range(count)]
        started.wait()
    finally:
        torch.set_num_threads(before)
    if any(number.result() != threads_each for number in numbers) or torch.get_num_threads() != before:
        return None
    # With some builds all threads share one number: look again after it was restored.
    shares = [pool.submit(torch.get_num_threads) for _ in range(count)]
    return pool if all(share.result() == threads_each for share in shares) else None
