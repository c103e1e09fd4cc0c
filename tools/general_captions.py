"""The captions that `train_general.py` learns from, their vocabulary, and batches of them."""

from __future__ import annotations

import collections
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import concept_words
from concept_words import Concepts
from imgcap.text.vocabulary import END, PAD, SPECIAL_WORDS, START, Vocabulary
from made_up_concepts import SHOWN, MadeUpConcepts

BATCH = 64
BATCHES_SORTED_TOGETHER = 50
"""Captions of this many batches are sorted by length, so that a batch needs little padding."""
FLICKR8K_COUNT = 4
"""A word that Flickr8k's captions use this often is in the vocabulary."""
FEW_CAPTIONS = 60
"""A subject in fewer captions than this gets templates."""
MOST_TEMPLATES = 40
"""Templates for one subject."""
FEWEST_IMAGES_OF_A_SUBJECT = 3
TEMPLATES = (
    "a close up of a {}",
    "a {} is sitting on the ground",
    "a {} on a table",
    "a {} is shown in this picture",
    "there is a {} in the picture",
    "a picture of a {}",
    "a {} with a white background",
    "a {} and a person",
    "a {} is standing in the grass",
    "a large {} in front of a wall",
    "a view of a {} from the side",
    "a black and white {}",
    "a small {} on the floor",
    "a {}",
)
Item = tuple[int, list[int], list[int]]
"""A caption to learn: row of its image or -1 if it has none, word ids, and the concepts that it names."""


@dataclass
class Data:
    """All captions, and the concepts of all images."""

    concepts: Concepts
    vocabulary: Vocabulary
    names: list[str]
    """Names of the N images, with their set: "general/NAME"."""
    logits: Tensor
    """float32 (N, K): log-odds of concepts."""
    targets: Tensor
    """float32 (N, K)"""
    images: list[int]
    """For each Flickr8k caption, the row of its image in `logits`."""
    captions: list[list[int]]
    """Word ids of each Flickr8k caption."""
    others: dict[str, list[tuple[list[int], list[int]]]]
    """By source, word ids and concepts of each caption without an image."""


@dataclass
class Batch:
    """B captions of up to L words."""

    logits: Tensor
    """float32 (B, K): log-odds of concepts, predicted or made up."""
    ids: Tensor
    """int64 (B, L + 1): START and the words, padded."""
    targets: Tensor
    """int64 (B, L + 1): the words and END, padded."""
    lengths: Tensor
    """int64 (B,): words of each caption and 1."""


def choose_words(
    flickr8k: collections.Counter[str], all_counts: collections.Counter[str], kept: set[str], min_count: int
) -> Vocabulary:
    """The words in `kept`, those frequent in Flickr8k, and those with `min_count` uses in all captions."""
    chosen = [w for w, n in all_counts.items() if flickr8k[w] >= FLICKR8K_COUNT or n >= min_count or w in kept]
    return Vocabulary((*SPECIAL_WORDS, *sorted(chosen, key=lambda w: (-all_counts[w], w))))


def subjects(concepts: Concepts, targets: Tensor) -> set[str]:
    """Concepts that name a class or a label and that a few images show."""
    named = [w for own_words in concept_words.class_words() for w in own_words]
    named += [w for own_words in concept_words.MENDED_LABELS.values() for w in own_words.split()]
    shown = (targets > SHOWN).sum(0)
    return {w for w in named if w in concepts.place and shown[concepts.place[w]] >= FEWEST_IMAGES_OF_A_SUBJECT}


def templates(word: str, count: int) -> list[list[str]]:
    """Tokens of `count` short captions of `word`, at most `MOST_TEMPLATES`."""
    made = []
    for i in range(min(MOST_TEMPLATES, count)):
        tokens = TEMPLATES[i % len(TEMPLATES)].format(word).split()
        if word[0] in "aeiou":
            place = tokens.index(word) - 1
            tokens[place] = "an" if tokens[place] == "a" else tokens[place]
        made.append(tokens)
    return made


def read_data(concepts_file: Path, flickr8k_folder: Path, general: Path, min_count: int) -> Data:
    """Read what `concepts.py` wrote, and the captions of Flickr8k and of the general set."""
    saved = torch.load(concepts_file, weights_only=True)
    flickr8k = concept_words.read_flickr8k(flickr8k_folder)
    sourced = concept_words.read_others(general)
    concepts = concept_words.build(flickr8k, [tokens for _, tokens in sourced])
    assert concepts.words == saved["words"]
    own = collections.Counter(w for captions in flickr8k.values() for c in captions for w in c)
    counts = own + collections.Counter(w for _, tokens in sourced for w in tokens)
    targets = saved["targets"].float()
    to_name = subjects(concepts, targets)
    vocabulary = choose_words(own, counts, to_name, min_count)
    sourced += [("templates", tokens) for w in sorted(to_name) for tokens in templates(w, FEW_CAPTIONS - counts[w])]
    others: dict[str, list[tuple[list[int], list[int]]]] = collections.defaultdict(list)
    for source, tokens in sourced:
        others[source].append((vocabulary.encode(tokens), concepts.of_tokens(tokens)))
    rows = {name: i for i, name in enumerate(saved["names"])}
    images, captions = [], []
    for name, several in flickr8k.items():
        if (row := rows.get(f"flickr8k-train/{name}")) is not None:
            images += [row] * len(several)
            captions += [vocabulary.encode(c) for c in several]
    return Data(concepts, vocabulary, saved["names"], saved["logits"].float(), targets, images, captions, others)


def _resized(items: list[Item], size: int | None) -> list[Item]:
    """The first `size` items, repeated if there are fewer; all items once if `size` is None."""
    return items if size is None else (items * -(-size // max(1, len(items))))[:size]


def batches(data: Data, epoch: int, sizes: dict[str, int]) -> list[list[Item]]:
    """The captions of an epoch in batches of similar length; `sizes` limits or repeats those of a source."""
    draw = random.Random(epoch)
    items: list[Item] = [(row, words, []) for row, words in zip(data.images, data.captions, strict=True)]
    draw.shuffle(items)
    items = _resized(items, sizes.get("flickr8k"))
    for source, several in data.others.items():
        without: list[Item] = [(-1, words, named) for words, named in draw.sample(several, len(several))]
        items += _resized(without, sizes.get(source))
    draw.shuffle(items)
    made = []
    pool = BATCH * BATCHES_SORTED_TOGETHER
    for begin in range(0, len(items), pool):
        own = sorted(items[begin : begin + pool], key=lambda item: len(item[1]))
        made += [own[i : i + BATCH] for i in range(0, len(own), BATCH)]
    draw.shuffle(made)
    return made


def make_batch(data: Data, make_up: MadeUpConcepts, items: list[Item], seed: int) -> Batch:
    """The tensors of a batch; captions without an image get made-up concepts."""
    draw = random.Random(seed)
    logits = torch.empty(len(items), data.logits.shape[1])
    with_image = [i for i, item in enumerate(items) if item[0] >= 0]
    without = [i for i, item in enumerate(items) if item[0] < 0]
    logits[with_image] = data.logits[[items[i][0] for i in with_image]]
    if without:
        logits[without] = make_up([items[i][2] for i in without], draw)
    longest = max(len(words) for _, words, _ in items) + 1
    ids = torch.full((len(items), longest), PAD)
    targets = ids.clone()
    for i, (_, words, _) in enumerate(items):
        ids[i, : len(words) + 1] = torch.tensor([START, *words])
        targets[i, : len(words) + 1] = torch.tensor([*words, END])
    return Batch(logits, ids, targets, torch.tensor([len(words) + 1 for _, words, _ in items]))
