from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgcap.errors import UsageError
from imgcap.sharding import WHOLE, Shard

COUNTS = st.integers(1, 7)


@given(st.integers(0, 60), COUNTS, COUNTS, st.integers(1, 9))
def test_every_item_is_in_one_part_of_one_shard(items: int, shards: int, parts: int, batch_size: int) -> None:
    own = [Shard(i, shards).part(j, parts) for i in range(shards) for j in range(parts)]
    found = [list(shard.items(range(items), batch_size)) for shard in own]
    assert sorted(item for several in found for item in several) == list(range(items))
    batches = [range(i, min(i + batch_size, items)) for i in range(0, items, batch_size)]
    for shard, several in zip(own, found, strict=True):
        assert several == [item for batch in shard.of(batches) for item in batch]


@given(st.integers(0, 60), COUNTS, COUNTS)
def test_the_parts_of_a_shard_are_the_shard(items: int, shards: int, parts: int) -> None:
    shard = Shard(shards - 1, shards)
    together = [item for j in range(parts) for item in shard.part(j, parts).of(range(items))]
    assert sorted(together) == list(shard.of(range(items)))


def test_shards_are_counted_from_one_in_text() -> None:
    shard = Shard.parse("2/4")
    assert shard == Shard(1, 4)
    assert str(shard) == "2/4"
    assert shard.file_name == "2-of-4"
    assert Shard.parse("1/1") == WHOLE


@pytest.mark.parametrize("text", ["", "0/4", "5/4", "1/0", "-1/4", "1", "a/b", "1/4/2", "٢/٤", "1 /4"])
def test_an_invalid_shard_is_one_sentence(text: str) -> None:
    with pytest.raises(UsageError, match="shard"):
        Shard.parse(text)
