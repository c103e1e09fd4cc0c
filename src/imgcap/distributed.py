"""The processes that `torchrun` starts, and what they exchange. Without it, a run is a world of one process."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from imgcap.device import pick_device
from imgcap.errors import ImgcapError, UsageError

T = TypeVar("T")

_CONNECTING = timedelta(minutes=5)
"""How long processes wait for each other to start and to connect."""
_PATIENCE = timedelta(days=1)
"""How long processes wait for each other: shares of a long run end far apart, and a lost process is seen at once."""


@dataclass(frozen=True)
class World:
    """This process among those of the run; what it exchanges, all of them have to exchange in the same order."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=pick_device)
    restarted: bool = False
    """Whether torchrun started the processes again after one had failed."""

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and speaks for all."""
        return self.rank == 0

    @property
    def is_launched(self) -> bool:
        """Whether torchrun has started the run: it starts everything again where a process fails."""
        return dist.is_torchelastic_launched()

    def gather(self, value: T) -> list[T]:
        """The value of every process, by rank."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def sum(self, value: float) -> float:
        """The sum of the values of all processes."""
        if self.size == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return total.item()

    def parallel(self, module: nn.Module) -> nn.Module:
        """`module` with gradients that are the mean over all processes; it itself in a world of one."""
        if self.size == 1:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, devices, gradient_as_bucket_view=True)

    @staticmethod
    @contextmanager
    def gradients(modules: Iterable[nn.Module], exchanged: bool) -> Iterator[None]:
        """Gradients of parallel `modules` from within the block are exchanged at its end, or added to the next ones."""
        with ExitStack() as stack:
            for module in modules:
                if not exchanged and isinstance(module, DistributedDataParallel):
                    stack.enter_context(module.no_sync())
            yield


def agree_on_attempt(store: Store, rank: int, size: int) -> int:
    """How many times the processes of this run have been started, which process 0 counts and tells the others.

    torchrun keeps one store over its restarts, in which the addresses that lost processes have left would be taken for
    those of the processes here, and nothing that it tells them is the same on all machines and another after a restart.
    So each of the others asks under a number of its own, and process 0 answers, the lost ones as well, until all of
    this attempt have heard. Raises `RuntimeError` if one is not heard of within `_CONNECTING`.
    """
    if rank:
        question = store.add("imgcap/questions", 1)
        attempt = int(store.get(f"imgcap/answer/{question}"))
        store.set(f"imgcap/{attempt}/heard/{rank}", "")
        return attempt
    attempt, answered = int(store.add("imgcap/attempts", 1)), 0
    heard = [f"imgcap/{attempt}/heard/{other}" for other in range(1, size)]
    end = time.monotonic() + _CONNECTING.total_seconds()
    while heard and not store.check(heard):
        if time.monotonic() > end:
            raise dist.DistStoreError(f"Of {size} processes some have not started.")
        asked = store.add("imgcap/questions", 0)
        for question in range(answered, asked):
            store.set(f"imgcap/answer/{question + 1}", str(attempt))
        answered = asked
        time.sleep(0.01)
    return attempt


@contextmanager
def joined(device: str | None = None) -> Iterator[World]:
    """Join the other processes that torchrun has started, if it did: over NCCL on GPUs, one each, else over Gloo.

    Raises `UsageError` for a device that is not available or that processes cannot share, `ImgcapError` if another
    process is lost within the block.
    """
    if not dist.is_torchelastic_launched():
        yield World(device=pick_device(device))
        return
    rank, size, local_rank = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    own = pick_device(device)
    if own.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise UsageError(
                f"There are {torch.cuda.device_count()} GPUs for more processes than that.",
                "Lower --nproc-per-node, or add --device cpu.",
            )
        own = torch.device("cuda", local_rank)
        torch.cuda.set_device(own)
    elif own.type != "cpu":
        raise UsageError(f"Several processes cannot train on {own}.", "Add --device cpu.")
    try:
        store, *_ = next(rendezvous("env://", timeout=_CONNECTING))
        attempt = agree_on_attempt(store, rank, size)
        store = PrefixStore(f"imgcap/{attempt}", store)
        backend = "nccl" if own.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_CONNECTING)
        dist.distributed_c10d._set_pg_timeout(_PATIENCE)  # the only way to have another one afterwards
        yield World(rank, size, own, restarted=attempt > 1)
    except RuntimeError as error:
        # Gloo's errors have no class of their own.
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise ImgcapError(
            "Another process of this run has ended.",
            "See what it said; `train` goes on with --resume, others as they are.",
        ) from None
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
