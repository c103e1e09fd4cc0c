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
from imgcap.text.vocabulary import END, PAD, SPECIAL_WORDS, START, UNKNOWN, Vocabulary
from made_up_features import SHOWN, MadeUpFeatures

BATCHES_SORTED_TOGETHER = 25
"""Captions of this many batches are sorted by length, so that a batch needs little padding."""
FLICKR8K_COUNT = 4
"""A word that Flickr8k's captions use this often is in the vocabulary."""
FEW_CAPTIONS = 150
"""A subject in fewer captions than this gets captions of other subjects, with its name in place of theirs."""
FEW_CAPTIONS_OF_A_KIND = 800
"""The same for "animal", "bird", "food" and other words for many classes."""
FEWEST_IMAGES_OF_A_SUBJECT = 2
TEMPLATES = ("a close up of a {}", "a {}", "a picture of a {}")
MOST_TEMPLATES = 12
"""Templates for one subject."""
CAPTIONS_TRIED = 60
"""Captions from which the one that fits an image best is chosen."""
MOST_USES = 3
"""Uses of a caption for general images in an epoch."""
SURE_SUBJECT = 0.12
"""A subject of lower value (expected target times specificity) is not used."""
PREFERENCE = 3
"""Subjects are drawn with probabilities proportional to this power of their values."""
UNLIKELY = 0.03
"""Added to a concept's target, so that one wrong word does not decide alone."""
SURPRISE = 0.5
"""How far a concept that is common in all images counts less."""
Item = tuple[int, list[int], list[int], str]
"""A caption to learn: row of its image or -1 if it has none, word ids, the concepts that it names, its source."""


@dataclass
class Data:
    """All captions, and the concepts of all images."""

    concepts: Concepts
    vocabulary: Vocabulary
    names: list[str]
    """Names of the N images, with their set: "general/NAME"."""
    features: Tensor
    """float32 (N, 2048): standardised features."""
    targets: Tensor
    """float32 (N, K): how much each image shows each concept."""
    images: list[int]
    """For each Flickr8k caption, the row of its image in `features`."""
    captions: list[list[int]]
    """Word ids of each Flickr8k caption."""
    general: list[int]
    """The G rows of the general images."""
    expected: Tensor
    """float32 (G, K): targets of the general images, as far as features tell."""
    subjects: Tensor
    """int64 (G, S): concepts that are probably the subject of a general image, the best first."""
    subject_values: Tensor
    """float32 (G, S): their expected targets times their specificity."""
    specificity: Tensor
    """float32 (K,): how specific each subject is; 0 for concepts that are never a subject."""
    others: dict[str, list[tuple[list[int], list[int]]]]
    """By source, word ids and concepts of each caption without an image."""


@dataclass
class Batch:
    """B captions of up to L words."""

    features: Tensor
    """float32 (B, 2048): standardised features of images, or made up."""
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


def named_concepts(concepts: Concepts, targets: Tensor) -> set[str]:
    """Concepts among all words for the classes and labels, if a few images show them."""
    named = [w for own_words in concept_words.class_words() for w in own_words]
    named += [w for own_words in concept_words.MENDED_LABELS.values() for w in own_words.split()]
    shown = (targets > SHOWN).sum(0)
    return {w for w in named if w in concepts.place and shown[concepts.place[w]] >= FEWEST_IMAGES_OF_A_SUBJECT}


def with_name(tokens: list[str], old: str, new: str) -> list[str]:
    """The caption with one noun in place of another, and the right article before it."""
    made = [new if token == old else token for token in tokens]
    for i, token in enumerate(made[1:]):
        if token == new and made[i] in ("a", "an"):
            made[i] = "an" if new[0] in "aeiou" else "a"
    return made


def captions_of_kin(to_name: set[str], counts: collections.Counter[str], captions: list[list[str]]) -> list[list[str]]:
    """Captions for subjects with few of their own.

    They are captions of a more general word ("a bird on a branch") or of another kind of it ("a duck in the water"),
    with the subject's name in its place, and then templates. A word for many classes gets captions of its kinds ("an
    animal in the water").
    """
    classes = concept_words.class_words()
    wider: dict[str, list[str]] = collections.defaultdict(list)
    for own in classes:
        wider[own[0]] += own[1:]
    kinds: dict[str, set[str]] = collections.defaultdict(set)
    for own in classes:
        for kind in concept_words.KINDS & set(own[1:]):
            kinds[kind].add(own[0])
    named = {word for own in classes for word in own}
    by_word: dict[str, list[list[str]]] = collections.defaultdict(list)
    for tokens in captions:
        for word in set(tokens) & named:
            if tokens.count(word) == 1:
                by_word[word].append(tokens)
    draw = random.Random(0)
    made = []
    for word in sorted(to_name & {*wider, *kinds}):
        missing = (FEW_CAPTIONS_OF_A_KIND if word in kinds else FEW_CAPTIONS) - counts[word]
        if missing <= 0:
            continue
        kin = set(wider[word]) | {k for kind in concept_words.KINDS & {word, *wider[word]} for k in kinds[kind]}
        choice = [with_name(tokens, k, word) for k in sorted(kin - {word}) for tokens in by_word[k][:FEW_CAPTIONS]]
        made += draw.sample(choice, min(missing // 2, len(choice)))
        made += [
            with_name(TEMPLATES[i % len(TEMPLATES)].format("NAME").split(), "NAME", word)
            for i in range(min(MOST_TEMPLATES, missing))
        ]
    return made


def read_data(concepts_file: Path, features: Tensor, flickr8k_folder: Path, general: Path, min_count: int) -> Data:
    """Read what `concepts.py` wrote, and the captions of Flickr8k and of the general set."""
    saved = torch.load(concepts_file, weights_only=True)
    flickr8k = concept_words.read_flickr8k(flickr8k_folder)
    sourced = concept_words.read_others(general)
    concepts = concept_words.build(flickr8k, [tokens for _, tokens in sourced])
    assert concepts.words == saved["words"]
    own = collections.Counter(w for captions in flickr8k.values() for c in captions for w in c)
    counts = own + collections.Counter(w for _, tokens in sourced for w in tokens)
    targets = saved["targets"].float()
    to_name = named_concepts(concepts, targets)
    vocabulary = choose_words(own, counts, to_name, min_count)
    known = set(vocabulary.words)
    every = [tokens for source, tokens in sourced if source == "coco" and known.issuperset(tokens)]
    every += [c for several in flickr8k.values() for c in several if known.issuperset(c)]
    sourced += [("kin", tokens) for tokens in captions_of_kin(to_name, counts, every)]
    others: dict[str, list[tuple[list[int], list[int]]]] = collections.defaultdict(list)
    for source, tokens in sourced:
        others[source].append((vocabulary.encode(tokens), concepts.of_tokens(tokens)))
    rows = {name: i for i, name in enumerate(saved["names"])}
    general_rows = [row for name, row in rows.items() if name.startswith("general/")]
    images, captions = [], []
    for name, several in flickr8k.items():
        if (row := rows.get(f"flickr8k-train/{name}")) is not None:
            images += [row] * len(several)
            captions += [vocabulary.encode(c) for c in several]
    return Data(
        concepts,
        vocabulary,
        saved["names"],
        features,
        targets,
        images,
        captions,
        general_rows,
        saved["expected"].float(),
        saved["subjects"],
        saved["subject_values"],
        saved["specificity"],
        others,
    )


def captions_for_general_images(data: Data, draw: random.Random) -> list[Item]:
    """A caption for each general image: it names the probable subject, and little that is not there."""
    pool = [*data.others.get("coco", ()), *data.others.get("kin", ())]
    by_concept: dict[int, list[int]] = collections.defaultdict(list)
    for caption, (words, named) in enumerate(pool):
        if UNKNOWN not in words:
            for concept in named:
                by_concept[concept].append(caption)
    uses: collections.Counter[int] = collections.Counter()
    items: list[Item] = []
    usual = SURPRISE * (data.targets.mean(0) + UNLIKELY).log()
    for number in draw.sample(range(len(data.general)), len(data.general)):
        row, expected = data.general[number], data.expected[number]
        fit = ((expected + UNLIKELY).log() - usual).tolist()
        values = data.subject_values[number].tolist()
        if values[0] >= SURE_SUBJECT:
            (subject,) = draw.choices(data.subjects[number].tolist(), [value**PREFERENCE for value in values])
        else:
            (subject,) = draw.choices(range(len(fit)), (expected**2).tolist())
        possible = [caption for caption in by_concept[subject] if uses[caption] < MOST_USES]
        if not possible:
            continue
        tried = draw.sample(possible, min(CAPTIONS_TRIED, len(possible)))
        best = max(tried, key=lambda caption: sum(fit[c] for c in pool[caption][1]) / len(pool[caption][1]) ** 0.5)
        uses[best] += 1
        items.append((row, *pool[best], "general"))
    return items


def _resized(items: list[Item], size: int | None) -> list[Item]:
    """The first `size` items, repeated if there are fewer; all items once if `size` is None."""
    return items if size is None else (items * -(-size // max(1, len(items))))[:size]


def batches(data: Data, epoch: int, sizes: dict[str, int], size: int) -> list[list[Item]]:
    """The captions of an epoch in batches of `size` and similar length; `sizes` limits or repeats those of a source."""
    draw = random.Random(epoch)
    items: list[Item] = [(row, words, [], "flickr8k") for row, words in zip(data.images, data.captions, strict=True)]
    draw.shuffle(items)
    items = _resized(items, sizes.get("flickr8k"))
    for source, several in data.others.items():
        without: list[Item] = [(-1, words, named, source) for words, named in draw.sample(several, len(several))]
        items += _resized(without, sizes.get(source))
    for _ in range(sizes.get("general", 1)):
        items += captions_for_general_images(data, draw)
    draw.shuffle(items)
    made = []
    pool = size * BATCHES_SORTED_TOGETHER
    for begin in range(0, len(items), pool):
        own = sorted(items[begin : begin + pool], key=lambda item: len(item[1]))
        made += [own[i : i + size] for i in range(0, len(own), size)]
    draw.shuffle(made)
    return made


def make_batch(data: Data, make_up: dict[str, MadeUpFeatures], items: list[Item], seed: int) -> Batch:
    """The tensors of a batch; captions without an image get made-up features."""
    draw = random.Random(seed)
    features = torch.empty(len(items), data.features.shape[1])
    with_image = [i for i, item in enumerate(items) if item[0] >= 0]
    features[with_image] = data.features[[items[i][0] for i in with_image]]
    general = [i for i in with_image if items[i][3] == "general"]
    if general:
        features[general] = next(iter(make_up.values())).of_images(
            [items[i][0] for i in general], [items[i][2] for i in general]
        )
    for source, make in make_up.items():
        without = [i for i, item in enumerate(items) if item[0] < 0 and item[3] == source]
        if without:
            features[without] = make([items[i][2] for i in without], draw)
    longest = max(len(item[1]) for item in items) + 1
    ids = torch.full((len(items), longest), PAD)
    targets = ids.clone()
    for i, (_, words, _, _) in enumerate(items):
        ids[i, : len(words) + 1] = torch.tensor([START, *words])
        targets[i, : len(words) + 1] = torch.tensor([*words, END])
    return Batch(features, ids, targets, torch.tensor([len(item[1]) + 1 for item in items]))
