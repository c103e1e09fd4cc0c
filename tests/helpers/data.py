"""Images, data sets and models small enough for tests; everything is built here, nothing is downloaded."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from imgcap.dataset.prepared import PreparedFolder, write_records
from imgcap.dataset.records import Record
from imgcap.model.decoder import LSTMDecoder
from imgcap.model.folder import load_model_folder, save_decoder
from imgcap.model.store import ENCODER_FILE, write_manifest
from imgcap.training.options import TrainingOptions

SHARED_DATA = Path(__file__).parents[3] / "shared" / "flickr8k"
EXAMPLES = Path(__file__).parents[2] / "examples"

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "white": (250, 250, 250)}
SMALLEST_IMAGE = 75
"""Side of the smallest image that Inception V3 takes; test encoders use it because it is fast."""

TINY_TRAINING = TrainingOptions(
    epochs=2,
    patience=8,
    batch_size=8,
    embedding_size=16,
    hidden_size=16,
    min_count=1,
    learning_rate=0.01,
    beam_size=2,
)


def draw(colour: str, number: int, size: int = 64) -> Image.Image:
    """An image of one colour with a stripe whose place is `number`."""
    pixels = np.full((size, size, 3), COLOURS[colour], np.uint8)
    pixels[:, number * 5 % size :][:, :6] = 0
    return Image.fromarray(pixels)


def write_data_set(folder: Path, count: int = 24) -> Path:
    """`count` images in `folder`/images and a Kaggle-style CSV with two captions each; returns the CSV."""
    (folder / "images").mkdir(parents=True)
    lines = ["image,caption"]
    for i in range(count):
        colour = list(COLOURS)[i % len(COLOURS)]
        draw(colour, i).save(folder / "images" / f"{i:03}.png")
        lines += [f"{i:03}.png,A {colour} wall .", f'{i:03}.png,"The wall is {colour}, with a stripe."']
    captions = folder / "captions.csv"
    captions.write_text("\n".join(lines) + "\n")
    return captions


def with_records(prepared: PreparedFolder, records: Iterable[Record], folder: Path) -> PreparedFolder:
    """A copy of `prepared` in `folder` with other records of the same images."""
    shutil.copytree(prepared.root, folder)
    write_records(folder, records)
    return PreparedFolder(folder)


def write_telling_model(model_folder: Path, prepared: PreparedFolder, folder: Path) -> Path:
    """A model in `folder` whose captions mean nothing, but differ from image to image."""
    model = load_model_folder(model_folder, torch.device("cpu"))
    torch.manual_seed(0)
    decoder = LSTMDecoder(model.config.decoder).requires_grad_(False)
    features = torch.from_numpy(prepared.features[list(range(len(prepared.records)))])
    decoder.feature_mean.copy_(features.mean(0))
    decoder.feature_std.copy_(features.std(0) + 1e-30)
    for parameter in decoder.parameters():
        parameter.mul_(4)
    decoder.embedding.weight.mul_(0.1)  # the image says more than the words before
    size = model.config.decoder.hidden_size
    dict(decoder.lstm.named_parameters())["bias_hh_l0"][size : 2 * size] += 2  # and is not forgotten
    folder.mkdir()
    save_decoder(folder, decoder.state_dict(), model.vocabulary, replace(model.config, name="telling"))
    shutil.copyfile(model.encoder_file, folder / ENCODER_FILE)
    write_manifest(folder)
    return folder


Run = Callable[..., subprocess.CompletedProcess[str]]

NO_NETWORK = """
import os, sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.bind", "socket.sendto"):
        os.write(2, b"imgcap used the network: " + event.encode())
        os._exit(99)
sys.addaudithook(refuse)
from imgcap.cli import main
sys.argv[0] = "imgcap"
main()
"""
"""A program that runs the command and dies at the first use of the network."""
