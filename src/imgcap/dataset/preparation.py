"""Encode a data set into a prepared folder, in one run or in shards, resumable at any moment.

Until the folder is complete, everything is in its sub-folder `.partial`; a shard has a sub-folder of its own, such as
`.shards/2-of-4`. The run that merges the shards copies the batches that it finds there, and encodes the others. Batches
are the same in every run, interrupted or not, and so are the bytes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from imgcap.dataset.features import PLAIN, FeatureOptions
from imgcap.dataset.prepared import (
    FEATURES_FOLDER,
    FORMAT_VERSION,
    LEFT_OUT_FILE,
    METADATA_FILE,
    MIRRORED_FOLDER,
    PARTIAL_FOLDER,
    RECORDS_FILE,
    RECORDS_INDEX_FILE,
    PreparedFolder,
    PreparedMetadata,
    read_metadata,
    write_records,
)
from imgcap.dataset.records import Dataset, LeftOut
from imgcap.dataset.splits import SPLITS
from imgcap.dataset.unfinished import SHARDS_FOLDER, ShardBatches, UnfinishedFeatures
from imgcap.errors import ImgcapError, listing
from imgcap.files import flush_folder, make_folder, only_writer, replacing, write_json, write_json_lines, writing
from imgcap.images.archived import ArchivedFile
from imgcap.images.decoding import BATCH_SIZE, load_batches
from imgcap.model.encoder import Encoder, find_encoder, fingerprint
from imgcap.model.inception import FEATURE_SIZE
from imgcap.model.store import CONFIG_FILE, ENCODER_FILE
from imgcap.sharding import WHOLE, Shard

_RESUME = "Finished batches are kept. Run the command again to resume."

OnProgress = Callable[[int, int], None]
"""Called with the number of images done, and of all."""


@dataclass(frozen=True)
class NamedEncoder:
    """An encoder, with the name and the file that it was loaded from."""

    name: str
    file: Path
    encoder: Encoder

    @classmethod
    def load(cls, name: str, device: torch.device | None = None) -> NamedEncoder:
        """Load `default`, `imagenet`, the encoder of a model, or a .safetensors file. Raises `ImgcapError`."""
        file = find_encoder(name)
        return cls(name, file, Encoder.load(file, device))

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the file; see `imgcap.model.encoder.fingerprint`."""
        return fingerprint(self.file)


def prepare(
    dataset: Dataset,
    encoder: NamedEncoder,
    out: Path,
    options: FeatureOptions = PLAIN,
    *,
    overwrite: bool = False,
    on_progress: OnProgress = lambda _done, _total: None,
) -> PreparedFolder:
    """Encode the images of `dataset` into the folder `out`, resuming an interrupted run.

    Images that cannot be decoded are left out and listed. A folder that is complete and has the same inputs is returned
    as it is. One with other inputs, or with other files under the names used here, needs `overwrite`, and is kept until
    the new one is complete. Raises `ImgcapError`, also if another process is writing to the folder.
    """
    _refuse_model(out)
    digest = _digest(dataset, encoder.fingerprint, options)
    make_folder(out)
    with only_writer(out):
        if not overwrite and _is_complete(out, digest):
            return PreparedFolder(out)
        with writing(out, _RESUME):
            work = UnfinishedFeatures(out / PARTIAL_FOLDER, digest, options, overwrite)
            _encode(work, WHOLE, dataset, encoder.encoder, ShardBatches(out, digest, options), on_progress)
            _finish(work, dataset, encoder, out)
    return PreparedFolder(out)


def prepare_shard(
    dataset: Dataset,
    encoder: NamedEncoder,
    out: Path,
    shard: Shard,
    options: FeatureOptions = PLAIN,
    *,
    overwrite: bool = False,
    on_progress: OnProgress = lambda _done, _total: None,
) -> None:
    """Encode the images of `shard`, resuming an interrupted run; `prepare` with the same arguments merges the shards.

    Any number of shards can run at once, on machines that share the folder. Raises `ImgcapError`.
    """
    _refuse_model(out)
    digest = _digest(dataset, encoder.fingerprint, options)
    folder = out / SHARDS_FOLDER / shard.file_name
    if not overwrite and _is_complete(out, digest):
        return
    make_folder(folder)
    with only_writer(folder), writing(out, _RESUME):
        work = UnfinishedFeatures(folder, digest, options, overwrite)
        _encode(work, shard, dataset, encoder.encoder, ShardBatches(out, digest, options), on_progress)


def _refuse_model(out: Path) -> None:
    """Raise `ImgcapError` if `out` is a model: some of its files have the same names."""
    if (out / CONFIG_FILE).exists():
        raise ImgcapError(f"{out} is a model.", "Give another folder for the features.")


def _is_complete(out: Path, digest: str) -> bool:
    """Whether `out` is prepared from the inputs with this digest. Raises `ImgcapError` if it holds other files."""
    partial = out / PARTIAL_FOLDER
    if (out / METADATA_FILE).exists():
        if read_metadata(out).digest != digest:
            raise ImgcapError(f"{out} is prepared from other inputs.", "Give another folder, or --overwrite.")
        if not (partial / FEATURES_FOLDER).exists():  # left by a run that was killed in its last step
            shutil.rmtree(partial, ignore_errors=True)
        return True
    names = (FEATURES_FOLDER, MIRRORED_FOLDER, RECORDS_FILE, RECORDS_INDEX_FILE, LEFT_OUT_FILE, ENCODER_FILE)
    foreign = [name for name in names if (out / name).exists()]
    if foreign and not partial.exists():
        raise ImgcapError(
            f"{out} is not a prepared folder, but holds {listing(foreign)}.", "Give another folder, or --overwrite."
        )
    return False


def _digest(dataset: Dataset, encoder_fingerprint: str, options: FeatureOptions) -> str:
    """SHA-256 over everything that the prepared folder is made from."""
    digest = hashlib.sha256()

    def add(*values: object) -> None:
        digest.update(json.dumps(values).encode() + b"\n")

    add(FORMAT_VERSION, BATCH_SIZE, encoder_fingerprint, dataset.location)
    if options.mirrored:
        add(MIRRORED_FOLDER)
    if options.dtype != PLAIN.dtype:
        add(options.dtype)
    for record in dataset.records:
        stamp = _stamp(dataset.source(record))
        add(record.image_id, record.path, record.captions, record.split, stamp)
    for left_out in dataset.left_out:
        add(left_out.name, left_out.reason)
    return digest.hexdigest()


def _stamp(image: Path | ArchivedFile) -> tuple[int | str | None, ...] | None:
    """Values that change when the image does: its size and mtime; None if it cannot be read."""
    if isinstance(image, ArchivedFile):
        return *image.archive.stamp, image.offset, image.size
    try:
        stat = image.stat()
    except OSError:
        return None
    return stat.st_size, stat.st_mtime_ns


def _encode(
    work: UnfinishedFeatures,
    shard: Shard,
    dataset: Dataset,
    encoder: Encoder,
    finished: ShardBatches,
    on_progress: OnProgress,
) -> None:
    """Add the remaining batches of `shard`, those in `finished` without encoding them."""

    def images(batch: int) -> range:
        return range(batch * BATCH_SIZE, min((batch + 1) * BATCH_SIZE, len(dataset.records)))

    batches = shard.of(range(-(-len(dataset.records) // BATCH_SIZE)))
    left, total = batches[work.batches :], sum(len(images(batch)) for batch in batches)
    sources = (dataset.source(dataset.records[i]) for batch in left if batch not in finished for i in images(batch))
    decoded = load_batches(sources, encoder.config.pixels, BATCH_SIZE)
    on_progress(work.done, total)
    for batch in left:
        if batch in finished:
            features, failed = finished.read(batch)
        else:
            results = dict(zip(images(batch), next(decoded), strict=True))
            failed = [(i, str(result)) for i, result in results.items() if isinstance(result, ImgcapError)]
            good = [result for result in results.values() if not isinstance(result, ImgcapError)]
            views = [good, [pixels[:, ::-1] for pixels in good]][: len(work.views)]
            features = [encoder(view).numpy() if view else np.empty((0, FEATURE_SIZE), np.float32) for view in views]
        work.add(features, len(images(batch)), failed)
        on_progress(work.done, total)


def _finish(work: UnfinishedFeatures, dataset: Dataset, encoder: NamedEncoder, out: Path) -> None:
    """Move the features out of `.partial` and write the other files, the metadata last."""
    if not work.rows:
        shutil.rmtree(work.folder)
        raise ImgcapError(
            f"None of the {len(dataset.records):,} images could be decoded.", f"The first: {work.failed[0]}"
        )
    (out / METADATA_FILE).unlink(missing_ok=True)
    flush_folder(out)  # the old metadata must never be beside other features
    work.move_to(out)
    if not work.options.mirrored:
        shutil.rmtree(out / MIRRORED_FOLDER, ignore_errors=True)
    records = [record for i, record in enumerate(dataset.records) if i not in work.failed]
    failed = [LeftOut(dataset.records[i].path, why) for i, why in work.failed.items()]
    left_out = [*dataset.left_out, *failed]
    write_records(out, records)
    write_json_lines(out / LEFT_OUT_FILE, map(asdict, left_out))
    with replacing(out / ENCODER_FILE) as partial:
        shutil.copyfile(encoder.file, partial)
    splits = [record.split or "none" for record in records]
    metadata = PreparedMetadata(
        format_version=FORMAT_VERSION,
        digest=work.digest,
        image_root=dataset.location,
        encoder=encoder.name,
        encoder_fingerprint=encoder.fingerprint,
        encoder_config=encoder.encoder.config,
        images=len(records),
        captions=sum(len(record.captions) for record in records),
        splits={split: splits.count(split) for split in (*SPLITS, "none")},
        left_out=len(left_out),
        mirrored=work.options.mirrored,
        archives=dataset.archives,
    )
    write_json(out / METADATA_FILE, asdict(metadata))
    shutil.rmtree(work.folder)
    shutil.rmtree(out / SHARDS_FOLDER, ignore_errors=True)
