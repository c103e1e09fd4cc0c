"""Caption a split of a prepared folder, in order to score the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from imgcap.dataset.prepared import PreparedFolder, Rows
from imgcap.dataset.splits import TRAIN
from imgcap.distributed import World
from imgcap.errors import ImgcapError
from imgcap.files import make_folder, write_json_lines, writing
from imgcap.images.decoding import batched
from imgcap.model.encoder import Encoder
from imgcap.model.folder import Model, check_encoder, load_model_folder
from imgcap.model.search import SearchOptions
from imgcap.model.store import locate
from imgcap.sharding import Shard, interleave

_BATCH = 128
_IMAGES_AT_ONCE = 32


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
    name: str
    """The model's name or folder, as the user gave it."""
    model: Model
    search: SearchOptions
    records: tuple[CaptionedRecord, ...]
    encoded: bool = False
    """Whether the images were encoded again, because the prepared features come from another encoder."""

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
    may_encode: bool = False,
    world: World | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> CaptionedSplit:
    """Caption the images of `split` from their prepared features.

    `choose_options` turns the model's own search options into those to use. If the model needs the features of another
    encoder, its own one encodes the images again with `may_encode`. The processes of `world` divide the work, and each
    gets all captions. Raises `ImgcapError` if the model needs other features that it may not or cannot compute, or if
    the split is empty.
    """
    world = world or World()
    prepared = PreparedFolder(prepared_folder)
    model = load_model_folder(locate(model_name), world.device)
    if not may_encode:
        check_encoder(model, prepared.metadata.encoder_fingerprint, prepared.root)
    options = choose_options(model.config.search)
    records = caption_rows(prepared, model, prepared.rows(split), options, world=world, on_progress=on_progress)
    return CaptionedSplit(prepared, model_name, model, options, records, encoded=not _fits(model, prepared))


def caption_rows(
    prepared: PreparedFolder,
    model: Model,
    rows: Rows,
    options: SearchOptions,
    *,
    world: World,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[CaptionedRecord, ...]:
    """Caption the images of `rows`, from their prepared features if these fit the model, else from the images.

    The processes of `world` divide the work, and each gets all captions. Raises `ImgcapError` if an image is needed
    that can no longer be read.
    """
    own = list(Shard(world.rank, world.size).items(rows, _BATCH))
    features = _prepared_features(prepared, own) if _fits(model, prepared) else _encode(prepared, model, own, world)
    captioned = []
    for row, hypotheses in zip(own, model.search(features, options), strict=True):
        record, best = prepared.records[row], hypotheses[0]
        text, log_probability = model.text(best), best.log_probability
        captioned.append(CaptionedRecord(record.image_id, record.path, text, log_probability, record.captions))
        on_progress(len(captioned), len(own))
    return tuple(interleave(world.gather(captioned), _BATCH))


def _fits(model: Model, prepared: PreparedFolder) -> bool:
    return model.config.encoder_fingerprint == prepared.metadata.encoder_fingerprint


def _prepared_features(prepared: PreparedFolder, rows: Sequence[int]) -> Iterator[Tensor]:
    return (vector for part in batched(rows, _BATCH) for vector in torch.from_numpy(prepared.features[part]))


def _encode(prepared: PreparedFolder, model: Model, rows: Sequence[int], world: World) -> Iterator[Tensor]:
    """Features (2048,) of `rows` by the model's own encoder."""
    encoder = Encoder.load(model.encoder_file, world.device)
    try:
        for pixels in batched(prepared.decode(rows, encoder.config.pixels), _IMAGES_AT_ONCE):
            yield from encoder(pixels)
    except ImgcapError as error:
        raise ImgcapError(
            f"The features in {prepared.root} come from another encoder than the model {model.config.name!r} needs, "
            f"and its images cannot be encoded again: {error}",
            f"Prepare the images with `--encoder {model.folder}` into another folder.",
        ) from None


def comparison_remarks(ours: CaptionedSplit, theirs: CaptionedSplit) -> list[str]:
    """Sentences on what differs between two models' ways to their captions, besides the models."""
    remarks = [
        f"The features in {ours.prepared.root} come from another encoder than {captioned.name} needs, so its own "
        "encoder encoded the images again."
        for captioned in (ours, theirs)
        if captioned.encoded
    ]
    settings = [
        f"beam {c.search.beam_size}, length penalty {c.search.length_penalty:g} and at most {c.search.max_length} words"
        for c in (ours, theirs)
    ]
    if settings[0] != settings[1]:
        remarks.append(
            f"Each model searches with its own settings: {ours.name} with {settings[0]}, {theirs.name} with "
            f"{settings[1]}."
        )
    return remarks


def write_captions(file: Path, captioned: Iterable[CaptionedRecord]) -> None:
    """Write captions as JSON Lines that `imgcap eval --hypotheses` reads. Raises `ImgcapError`."""
    make_folder(file.absolute().parent)
    rows = (
        {"image_id": c.image_id, "path": c.path, "caption": c.caption, "log_probability": round(c.log_probability, 4)}
        for c in captioned
    )
    with writing(file):
        write_json_lines(file, rows)
