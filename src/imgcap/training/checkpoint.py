"""The checkpoint of a training: everything that a resumed training needs, in one file that is replaced at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from imgcap.errors import ImgcapError
from imgcap.files import write_tensors
from imgcap.training.options import TrainingOptions
from imgcap.training.progress import EpochResult

CHECKPOINT_FILE = "training-state.safetensors"

_RENAMED = ("decoder.picture.", "decoder.image.")
"""Part of the tensor names in checkpoints of earlier versions, and its present form."""


@dataclass(frozen=True)
class Checkpoint:
    """A training after a whole epoch."""

    options: TrainingOptions
    digest: str
    """Digest of the prepared folder."""
    log: list[EpochResult]
    tensors: Mapping[str, Tensor]
    """Weights, averages, the best weights so far and the state of the optimiser."""
    start_hash: str | None = None
    """Hash of the model that the training started from; None from random weights, or if it was not noted."""

    def save(self, file: Path) -> None:
        """Write the checkpoint. Raises `OSError`."""
        header = {
            "options": asdict(self.options),
            "digest": self.digest,
            "log": [asdict(result) for result in self.log],
            "start_hash": self.start_hash,
        }
        state = json.dumps(header)
        write_tensors(file, self.tensors, {"state": state, "sha256": _digest(state, self.tensors)})

    @classmethod
    def load(cls, file: Path) -> Checkpoint:
        """Read a checkpoint. Raises `ImgcapError` if the file is damaged."""
        try:
            with safe_open(file, framework="pt") as opened:
                metadata = opened.metadata() or {}
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            hint = "Start the training again in another folder."
            raise ImgcapError(f"The checkpoint {file} cannot be read: {error}.", hint) from None
        state = metadata.get("state", "")
        if metadata.get("sha256") != _digest(state, tensors):
            raise ImgcapError(f"The checkpoint {file} is damaged.", "Start the training again in another folder.")
        header = json.loads(state)
        tensors = {name.replace(*_RENAMED): tensor for name, tensor in tensors.items()}
        log = [EpochResult(**{**row, "val_bleu": row["val_bleu"] and tuple(row["val_bleu"])}) for row in header["log"]]
        options = TrainingOptions.from_dict(header["options"])
        return cls(options, header["digest"], log, tensors, header.get("start_hash"))


def _digest(state: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the whole checkpoint: with damaged weights, a training could run for hours before anybody notices."""
    digest = hashlib.sha256(state.encode("utf-8", "surrogatepass"))
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode("utf-8", "surrogatepass"))
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
