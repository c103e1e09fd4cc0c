"""What a captioning run reports while it runs."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imgcap.captioning.batch import Tally
    from imgcap.captioning.resume import DoneRows
    from imgcap.captioning.rows import Row
    from imgcap.captioning.shards import ShardedRun
    from imgcap.distributed import World


class RunListener:
    """Follows a run. The methods do nothing; override those of interest."""

    def joined(self, world: World) -> None:
        """This process has joined the others of the run."""

    def precision_chosen(self, precision: str, why: str) -> None:
        """The option `auto` stands for `precision`, because of `why`."""

    def ready(self, advice: str) -> None:
        """The model is loaded and the options are valid; `advice` says how to continue an interrupted run."""

    def resuming_shards(self, sharded: ShardedRun) -> None:
        """The shards of an earlier run are continued."""

    def resuming(self, file: Path, done: DoneRows) -> None:
        """The rows of an earlier run are continued."""

    def captioning(self) -> AbstractContextManager[object]:
        """Entered while the images of a file or a shard are captioned."""
        return nullcontext()

    def listed(self, images: Iterable[object]) -> None:
        """`images` may be consumed, in another thread, to count the images of this file or shard."""

    def captioned(self, rows: list[Row], tally: Tally) -> None:
        """A batch is written; `tally` counts this file or shard so far."""

    def is_stopping(self) -> bool:
        """Whether to stop after the current batch."""
        return False
