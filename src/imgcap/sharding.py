"""Shards: parts of a run that machines can do independently, by a rule that needs no communication."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from imgcap.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Shard `number` of `count`, counted from 0: every `count`-th batch, starting with batch `number`.

    Raises `UsageError` if there is no such shard.
    """

    number: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.count:
            raise UsageError(f"There is no shard {self}.", f"The shards of {self.count} are 1/{self.count} and so on.")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read a shard that is counted from 1: "1/4" to "4/4". Raises `UsageError`."""
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        if not match or not int(match[2]):
            raise UsageError(f"{text!r} is not a shard.", "Give its number and the number of shards, such as 2/4.")
        return cls(int(match[1]) - 1, int(match[2]))

    def __str__(self) -> str:
        return f"{self.number + 1}/{self.count}"

    @property
    def file_name(self) -> str:
        """File-name form: `2-of-4`."""
        return f"{self.number + 1}-of-{self.count}"

    def part(self, number: int, count: int) -> Shard:
        """Shard `number` of `count` of this shard."""
        return Shard(self.number + self.count * number, self.count * count)

    def of(self, batches: Sequence[T]) -> Sequence[T]:
        """The batches that belong to this shard."""
        return batches[self.number :: self.count]

    def items(self, items: Iterable[T], batch_size: int) -> Iterator[T]:
        """The items whose batches of `batch_size` belong to this shard."""
        iterator, number = iter(items), 0
        while batch := list(islice(iterator, batch_size)):
            if number % self.count == self.number:
                yield from batch
            number += 1


def interleave(shards: Sequence[Sequence[T]], batch_size: int) -> list[T]:
    """The items of all shards in their original order: the inverse of `Shard.items`."""
    iterators = [iter(shard) for shard in shards]
    items: list[T] = []
    for number in range(-(-sum(map(len, shards)) // batch_size)):
        items += islice(iterators[number % len(shards)], batch_size)
    return items


WHOLE = Shard()
"""The only shard of a run that is not sharded."""
