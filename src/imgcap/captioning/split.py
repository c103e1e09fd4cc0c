"""Caption a split of a prepared folder, in order to score the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import tee
from pathlib import Path, PurePath

import torch
from torch import Tensor

from imgcap.captioning.explain import TrainingIndex
from imgcap.dataset.prepared import PreparedFolder, Rows
from imgcap.dataset.records import Record
from imgcap.dataset.splits import TRAIN
from imgcap.distributed import World
from imgcap.errors import ImgcapError
from imgcap.files import make_folder, write_json_lines, writing
from imgcap.images.archived import ArchivedFile
from imgcap.images.decoding import batched
from imgcap.images.errors import ImageError
from imgcap.model.encoder import Encoder
from imgcap.model.folder import Model, load_model_folder
from imgcap.model.search import SearchOptions
from imgcap.model.store import INDEX_FILE, locate, start_model
from imgcap.sharding import Shard, interleave

_BATCH = 128
_IMAGES_AT_ONCE = 32
_SAME_IMAGE = 0.97
"""Two images of a greater similarity, see `TrainingIndex.similarities`, are one. With the default model, an image
keeps 0.99 as a JPEG of quality 90 (the least of 96); none of Flickr8k's 1,000 test images has more than 0.963 to one of
16,539 others."""
_TELLING_COMPONENTS = 32
"""With fewer components, different images may be as similar as that: then their file names must be equal, too."""


@dataclass(frozen=True)
class CaptionedRecord:
    """A model's caption of one image of a data set, with the references."""

    image_id: str
    path: str
    caption: str
    log_probability: float
    references: tuple[str, ...]
    known: bool = False
    """Whether the model has probably learned from this image."""


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
    unindexed: str | None = None
    """A model whose training images nobody knows: this one, or one that its training started from."""

    @property
    def identity(self) -> str:
        """The model's own name, and the start of its hash."""
        return f"{self.model.config.name}@{self.model.hash}"

    @property
    def settings(self) -> list[str]:
        """The search as parts of a signature."""
        search = self.search
        return [
            f"beam:{search.beam_size}",
            f"length_penalty:{search.length_penalty:g}",
            f"max_length:{search.max_length}",
        ]

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
    """Caption the images of `split` as `caption_rows` does.

    `choose_options` turns the model's own search options into those to use. Raises `ImgcapError` if the split is empty,
    or an image is needed that can no longer be read.
    """
    world = world or World()
    prepared = PreparedFolder(prepared_folder)
    model = load_model_folder(locate(model_name), world.device)
    options = choose_options(model.config.search)
    return caption_rows(
        prepared, prepared.rows(split), model, options, name=model_name, world=world, on_progress=on_progress
    )


def caption_rows(
    prepared: PreparedFolder,
    rows: Rows,
    model: Model,
    options: SearchOptions,
    *,
    name: str,
    world: World | None = None,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> CaptionedSplit:
    """Caption the images of `rows`, from their prepared features if these fit the model, else from the images.

    `name` is what the user calls the model. The processes of `world` divide the work, and each gets all captions.
    Raises `ImgcapError` if an image is needed that can no longer be read.
    """
    world = world or World()
    encoded = model.config.encoder_fingerprint != prepared.metadata.encoder_fingerprint
    own = list(Shard(world.rank, world.size).items(rows, _BATCH))
    features = _encode(prepared, model, own, world) if encoded else _prepared_features(prepared, own)
    searched, compared = tee(features)
    own_records = [prepared.records[row] for row in own]
    indices, unindexed = _training_indices(model, name)
    known = _are_known(indices, own_records, compared)
    captioned = []
    on_progress(0, len(own))
    for record, hypotheses, is_known in zip(own_records, model.search(searched, options), known, strict=True):
        text, log_probability = model.text(hypotheses[0]), hypotheses[0].log_probability
        found = CaptionedRecord(record.image_id, record.path, text, log_probability, record.captions, is_known)
        captioned.append(found)
        on_progress(len(captioned), len(own))
    records = tuple(interleave(world.gather(captioned), _BATCH))
    return CaptionedSplit(prepared, name, model, options, records, encoded, unindexed)


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


def _training_indices(model: Model, name: str) -> tuple[list[TrainingIndex], str | None]:
    """The indices of all trainings of a model, the last one first, and the name of a model that lacks a usable one.

    The last training may have started from another model, and that in turn from another. A model that has taken the
    place of the start tells nothing, and features of another encoder cannot be compared with an index.
    """
    indices, unindexed, seen = [], None, set[Path]()
    while (folder := model.folder.resolve()) not in seen:
        seen.add(folder)
        if (folder / INDEX_FILE).is_file():
            indices.append(TrainingIndex.load(folder / INDEX_FILE))
        else:
            unindexed = unindexed or name
        if not (start := start_model(model.config.training)):
            break
        try:
            before = load_model_folder(locate(start), torch.device("cpu"))
        except ImgcapError:
            return indices, unindexed or start
        is_another = model.config.training.get("start_hash") not in (None, before.hash)
        if is_another or before.config.encoder_fingerprint != model.config.encoder_fingerprint:
            return indices, unindexed or start
        model, name = before, start
    return indices, unindexed


def _are_known(
    indices: Sequence[TrainingIndex], records: Sequence[Record], features: Iterable[Tensor]
) -> Iterator[bool]:
    """Whether one of `indices` has each image, by its record and its features (2048,)."""
    names = [{PurePath(name).name for name in index.names} for index in indices]
    for part in batched(zip(records, features, strict=True), _BATCH):
        own_records, vectors = zip(*part, strict=True)
        stacked = torch.stack([vector.cpu() for vector in vectors])
        found = [_are_in(*each, own_records, stacked) for each in zip(indices, names, strict=True)]
        yield from map(any, zip(*found, strict=True)) if found else (False for _ in part)


def _are_in(index: TrainingIndex, names: set[str], records: Sequence[Record], features: Tensor) -> Iterator[bool]:
    """Whether `index`, which has files of these `names`, has each image; features (B, 2048).

    It has if the image is one of its training images, or has the name of one, and several references that are all
    training captions: these tell a smaller copy.
    """
    nearest = index.similarities(features).amax(1)
    for record, similarity in zip(records, nearest.tolist(), strict=True):
        same, named = similarity > _SAME_IMAGE, PurePath(record.path).name in names
        recited = len(set(record.captions)) > 1 and all(map(index.knows, record.captions))
        yield (same and (named or len(index.variances) >= _TELLING_COMPONENTS)) or (named and recited)


def signature_parts(split: str, ours: CaptionedSplit, theirs: CaptionedSplit | None = None) -> list[str]:
    """What a signature says of the models and their searches."""
    compared = [f"compared:{','.join([theirs.identity, *theirs.settings])}"] if theirs else []
    return [f"model:{ours.identity}", f"split:{split}", *ours.settings, *compared]


def remarks_on(ours: CaptionedSplit, theirs: CaptionedSplit | None = None) -> list[str]:
    """Sentences on what raises the scores of a model besides its quality, and on what else differs between two."""
    both = [ours, theirs] if theirs else [ours]
    found = [
        f"The features in {ours.prepared.root} come from another encoder than {captioned.name} needs, so its own "
        "encoder encoded the images again."
        for captioned in both
        if captioned.encoded
    ]
    settings = [
        f"beam {c.search.beam_size}, length penalty {c.search.length_penalty:g} and at most {c.search.max_length} words"
        for c in both
    ]
    if theirs and settings[0] != settings[1]:
        found.append(
            f"Each model searches with its own settings: {ours.name} with {settings[0]}, {theirs.name} with "
            f"{settings[1]}."
        )
    return found + [sentence for captioned in both for sentence in _memory(captioned)]


def _memory(captioned: CaptionedSplit) -> list[str]:
    """Sentences if the model has learned from some of the images, or if nobody can know."""
    known, total, name = sum(record.known for record in captioned.records), len(captioned.records), captioned.name
    found = []
    if known:
        found.append(f"{name} has learned from {known:,} of these {total:,} images, which raises its scores.")
    if captioned.unindexed == name:
        found.append(
            f"{name} has no index of its training images, so nothing tells whether it has learned from "
            f"{'others' if known else 'some'} of these."
        )
    elif captioned.unindexed:
        found.append(
            f"{name} was trained from {captioned.unindexed}, and nothing tells whether that model had learned from "
            f"{'others' if known else 'some'} of these images."
        )
    return found


def find_images(captioned: CaptionedSplit) -> list[Path | ArchivedFile]:
    """The image of each record, for a page; where its archive no longer exists, a path that does not exist either."""

    def find(path: str) -> Path | ArchivedFile:
        try:
            return captioned.prepared.source(path)
        except ImageError:
            return captioned.prepared.image_root / path

    return [find(record.path) for record in captioned.records]


def write_captions(file: Path, captioned: Iterable[CaptionedRecord]) -> None:
    """Write captions as JSON Lines that `imgcap eval --hypotheses` reads. Raises `ImgcapError`."""
    make_folder(file.absolute().parent)
    rows = (
        {"image_id": c.image_id, "path": c.path, "caption": c.caption, "log_probability": round(c.log_probability, 4)}
        for c in captioned
    )
    with writing(file):
        write_json_lines(file, rows)
