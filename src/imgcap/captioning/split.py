"""Caption a split of a prepared folder, in order to score the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from imgcap.dataset.prepared import PreparedFolder
from imgcap.dataset.splits import TRAIN
from imgcap.distributed import World
from imgcap.files import make_folder, write_json_lines, writing
from imgcap.images.decoding import batched
from imgcap.model.folder import Model, check_encoder, load_model_folder
from imgcap.model.search import SearchOptions
from imgcap.model.store import locate
from imgcap.sharding import Shard, interleave

_BATCH = 128


@dataclass(frozen=True)
class CaptionedRecord:
    """A model's caption of one image of a data set, with the references."""

    image_id: str
    path: str
    caption: str
    log_probability: float
    references: tuple[str, ...]


@dataclass(frozen=True)
class CaptionedSplit:
    """A model's captions of a split, with what it takes to score them."""

    prepared: PreparedFolder
    model: Model
    search: SearchOptions
    records: tuple[CaptionedRecord, ...]

    @property
    def training(self) -> list[tuple[str, ...]]:
        """The captions of each training image."""
        return [record.captions for record in self.prepared.records if record.split == TRAIN]


def caption_split(
    prepared_folder: Path,
    model_name: str,
    split: str,
    choose_options: Callable[[SearchOptions], SearchOptions] = lambda own: own,
    *,
    world: World | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> CaptionedSplit:
    """Caption the images of `split` from their prepared features.

    `choose_options` turns the model's own search options into those to use. The processes of `world` divide the work,
    and each gets all captions. Raises `ImgcapError` if the model needs the features of another encoder, or if the split
    is empty.
    """
    world = world or World()
    prepared = PreparedFolder(prepared_folder)
    model = load_model_folder(locate(model_name), world.device)
    check_encoder(model, prepared.metadata.encoder_fingerprint, prepared.root)
    options = choose_options(model.config.search)
    rows = prepared.rows(split)
    own = list(Shard(world.rank, world.size).items(rows, _BATCH))
    features = (row for part in batched(own, _BATCH) for row in torch.from_numpy(prepared.features[part]))
    captioned = []
    for row, hypotheses in zip(own, model.search(features, options), strict=True):
        record, best = prepared.records[row], hypotheses[0]
        text, log_probability = model.text(best), best.log_probability
        captioned.append(CaptionedRecord(record.image_id, record.path, text, log_probability, record.captions))
        on_progress(len(captioned), len(own))
    return CaptionedSplit(prepared, model, options, tuple(interleave(world.gather(captioned), _BATCH)))


def write_captions(file: Path, captioned: Iterable[CaptionedRecord]) -> None:
    """Write captions as JSON Lines that `imgcap eval --hypotheses` reads. Raises `ImgcapError`."""
    make_folder(file.absolute().parent)
    rows = (
        {"image_id": c.image_id, "path": c.path, "caption": c.caption, "log_probability": round(c.log_probability, 4)}
        for c in captioned
    )
    with writing(file):
        write_json_lines(file, rows)
