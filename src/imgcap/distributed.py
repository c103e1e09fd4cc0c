"""The processes of `torchrun` and the values they exchange. Without torchrun, a run is a world of one process."""

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
"""Timeout for all processes to start and connect."""
_PATIENCE = timedelta(days=1)
"""Timeout of an exchange: shards of a long run end far apart, and a lost process is noticed at once anyway."""


@dataclass(frozen=True)
class World:
    """This process among those of the run. All processes must make the same exchanges in the same order."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=pick_device)
    restarted: bool = False
    """Whether torchrun restarted the processes after one had failed."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files and messages of the run."""
        return self.rank == 0

    @property
    def is_launched(self) -> bool:
        """Whether torchrun started the run; it restarts all processes if one fails."""
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
        """`module`, wrapped so that its gradients are averaged over all processes; unchanged in a world of one."""
        if self.size == 1:
            return module
        devices = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(module, devices, gradient_as_bucket_view=True)

    @staticmethod
    @contextmanager
    def gradients(modules: Iterable[nn.Module], exchanged: bool) -> Iterator[None]:
        """Average the gradients of parallel `modules` when they are computed in the block.

        Unless `exchanged`, each process adds them up instead, for a later block to exchange.
        """
        with ExitStack() as stack:
            for module in modules:
                if not exchanged and isinstance(module, DistributedDataParallel):
                    stack.enter_context(module.no_sync())
            yield


def agree_on_attempt(store: Store, rank: int, size: int) -> int:
    """The number of this start of the processes, from 1; process 0 counts it and tells the others.

    torchrun keeps its store across restarts. The addresses that lost processes left there would be mistaken for those
    of the new ones, and torchrun gives the processes no number that is equal on all machines and changes with each
    restart. So each of the others asks a numbered question, and process 0 answers all questions, also those of lost
    processes, until everyone in this start has confirmed. Raises `RuntimeError` if a process does not confirm within
    `_CONNECTING`.
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
            raise dist.DistStoreError(f"Some of the {size} processes have not started.")
        asked = store.add("imgcap/questions", 0)
        for question in range(answered, asked):
            store.set(f"imgcap/answer/{question + 1}", str(attempt))
        answered = asked
        time.sleep(0.01)
    return attempt


@contextmanager
def joined(device: str | None = None) -> Iterator[World]:
    """Join the other processes of torchrun, if there are any: over NCCL with a GPU each, else over Gloo.

    Raises `UsageError` for a device that is not available or that processes cannot share, and `ImgcapError` if another
    process is lost in the block.
    """
    if not dist.is_torchelastic_launched():
        yield World(device=pick_device(device))
        return
    rank, size, local_rank = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    own = pick_device(device)
    if own.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise UsageError(
                f"There are more processes than GPUs, of which there are {torch.cuda.device_count()}.",
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
        dist.distributed_c10d._set_pg_timeout(_PATIENCE)  # the only way to change the timeout afterwards
        yield World(rank, size, own, restarted=attempt > 1)
    except RuntimeError as error:
        # Errors of Gloo have no class of their own.
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise ImgcapError(
            "Another process of this run has ended.",
            "See its message. Run the command again to resume, `train` with --resume.",
        ) from None
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
