"""Shards: shares of a run that machines do on their own, by a rule that needs no word between them."""

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
    """Share `number`, from 0 on, of `count`: of all batches, in their order, every `count`-th from `number` on."""

    number: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.count:
            raise UsageError(f"There is no shard {self}.", f"The shards of {self.count} are 1/{self.count} and so on.")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that people write as "1/4" to "4/4". Raises `UsageError`."""
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        if not match or not int(match[2]):
            raise UsageError(f"{text!r} is not a shard.", "Give its number and how many there are, such as 2/4.")
        return cls(int(match[1]) - 1, int(match[2]))

    def __str__(self) -> str:
        return f"{self.number + 1}/{self.count}"

    @property
    def file_name(self) -> str:
        """What names of files have for "/"."""
        return f"{self.number + 1}-of-{self.count}"

    def part(self, number: int, count: int) -> Shard:
        """Share `number` of `count` of this shard."""
        return Shard(self.number + self.count * number, self.count * count)

    def of(self, batches: Sequence[T]) -> Sequence[T]:
        """The batches that are this shard's."""
        return batches[self.number :: self.count]

    def items(self, items: Iterable[T], batch_size: int) -> Iterator[T]:
        """The items in those batches of `batch_size` that are this shard's."""
        iterator, number = iter(items), 0
        while batch := list(islice(iterator, batch_size)):
            if number % self.count == self.number:
                yield from batch
            number += 1


def together(parts: Sequence[Sequence[T]], batch_size: int) -> list[T]:
    """The items of all shards, in their order, in that of the whole: what `Shard.items` has taken apart."""
    iterators = [iter(part) for part in parts]
    items: list[T] = []
    for number in range(-(-sum(map(len, parts)) // batch_size)):
        items += islice(iterators[number % len(parts)], batch_size)
    return items


WHOLE = Shard()
"""All of a run."""
