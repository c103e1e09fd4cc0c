"""Decide how much each image shows each concept.

    python tools/concepts.py FEATURES TEACHERS OUT.pt --flickr8k FLICKR8K --general GENERAL

FEATURES and TEACHERS are folders of `encode_sets.py`. The targets are between 0 and 1:

- For a Flickr8k image, the share of its captions that use the word. For words that are rare in Flickr8k, the
  probability that the teachers give to their classes.
- For a general image, 1 for the words of its label. For other words, the larger of two predictions: the teachers'
  classes through `class_words.txt`, and a layer on the teachers' pooled vectors that is fitted on Flickr8k.

What the teachers see is more than the trunk's features can tell. So a layer from features to targets also predicts
each general image from the others. These *expected* targets choose the subject of the image: the word with the largest
product of its expected target and its specificity.

OUT.pt holds the concepts, the names of the images, the targets, the expected targets of the general images, and the
probable subjects of each image.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import concept_words
from concept_words import Concepts
from data_sets import add_folders, done_rows, image_names, read_rows
from imgcap.model.decoder import standardize

MANY_IMAGES = 12
"""A word with fewer Flickr8k images is learned from the teachers only."""
FOLDS = 4
SUBJECTS = 4
"""Probable subjects of an image that are stored."""
LEAST_SPECIFIC = 0.05
"""Specificity of the most common subject, as a share of that of the rarest."""
ANIMALS_TRUST = 0.3
"""Factor for animals in predictions of the layer fitted on Flickr8k, which knows few animals except dogs."""


@dataclass(frozen=True)
class Set:
    """N images that both the trunk and the teachers have encoded."""

    rows: list[int]
    """Their rows in the set's list of images."""
    names: list[str]
    features: Tensor
    """float32 (N, 2048)"""
    pooled: Tensor
    """float32 (N, 3840)"""
    classes: Tensor
    """float32 (N, 1000): mean probabilities of the teachers."""


def read_set(features: Path, teachers: Path, name: str) -> Set:
    names = image_names(features / name)
    rows = done_rows(features / name, teachers / name)
    pooled = read_rows(teachers / name, "pooled", rows).flatten(1)
    classes = read_rows(teachers / name, "logits", rows).softmax(-1).mean(1)
    return Set(rows, [names[row] for row in rows], read_rows(features / name, "features", rows), pooled, classes)


@dataclass
class Layer:
    """Standardises values (N, D) and maps them to log-odds (N, K)."""

    mean: Tensor
    std: Tensor
    weight: Tensor
    bias: Tensor

    def __call__(self, values: Tensor) -> Tensor:
        return F.linear(standardize(values, self.mean, self.std), self.weight, self.bias)


def fit(values: Tensor, targets: Tensor, decay: float, epochs: int, batch: int, rate: float = 1e-3) -> Layer:
    """Fit a logistic layer with AdamW on the cross-entropy with soft targets."""
    mean, std = values.mean(0), values.std(0).clamp(min=1e-4)
    standardized = standardize(values, mean, std)
    linear = nn.Linear(values.shape[1], targets.shape[1])
    nn.init.zeros_(linear.weight)
    linear.bias.data.copy_(torch.logit(targets.mean(0), eps=1e-4))
    groups = [{"params": [linear.weight], "weight_decay": decay}, {"params": [linear.bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
    steps = epochs * (len(values) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        order = torch.randperm(len(values), generator=generator)
        for rows in order[: len(values) // batch * batch].view(-1, batch):
            logits = linear(F.dropout(standardized[rows], 0.1))
            losses = F.binary_cross_entropy_with_logits(logits, targets[rows], reduction="none").sum(1)
            optimizer.zero_grad()
            losses.mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return Layer(mean, std, linear.weight.detach(), linear.bias.detach())


def shares(captions: dict[str, list[list[str]]], names: list[str], concepts: Concepts) -> Tensor:
    """float32 (N, K): the share of an image's captions that name a concept."""
    found = torch.zeros(len(names), len(concepts.words))
    for row, name in enumerate(names):
        for caption in captions[name]:
            found[row, concepts.of_tokens(caption)] += 1 / len(captions[name])
    return found


def general_targets(
    general: Set, labels: list[str | None], concepts: Concepts, common: Tensor, expected: Tensor
) -> Tensor:
    """float32 (N, K): targets of the general images."""
    matrix = concepts.class_matrix()
    named = matrix.sum(0) > 0
    by_class = (general.classes @ matrix).clamp(max=1)
    animal = matrix[:, concepts.place["animal"]] > 0
    animal_words = matrix[animal].sum(0) > 0
    trust = torch.where(animal_words, ANIMALS_TRUST, torch.where(named, 0.7, 1.0)) * common
    targets = torch.maximum(by_class, expected * trust)
    for i, row in enumerate(general.rows):
        if label := labels[row]:
            targets[i, concepts.of_words(label)] = 1
    return targets


def expected_targets(features: Tensor, targets: Tensor, epochs: int, batch: int) -> Tensor:
    """float32 (N, K): targets of each image, predicted from the features of the images in other folds."""
    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(0))
    expected = torch.empty_like(targets)
    for number in range(FOLDS):
        held_out = torch.zeros(len(features), dtype=torch.bool)
        held_out[order[number::FOLDS]] = True
        layer = fit(features[~held_out], targets[~held_out], decay=1.0, epochs=epochs, batch=batch)
        expected[held_out] = layer(features[held_out]).sigmoid()
        print("fold", number + 1, "of", FOLDS, flush=True)
    return expected


def specificity(targets: Tensor, named: Tensor) -> Tensor:
    """float32 (K,): how specific each subject is, `LEAST_SPECIFIC` to 1; 0 for concepts that are not in `named`."""
    rarity = -(targets.mean(0) + 1e-5).log()
    common, rare = rarity[named].min(), rarity[named].max()
    return _from_rarity((rarity - common) / (rare - common), LEAST_SPECIFIC) * named


def at_least(least: float, specificity: Tensor) -> Tensor:
    """The specificity of each subject (K,), when that of the most common one is `least`; 0 for the other concepts."""
    return _from_rarity((specificity - LEAST_SPECIFIC) / (1 - LEAST_SPECIFIC), least) * (specificity > 0)


def _from_rarity(rarity: Tensor, least: float) -> Tensor:
    return least + (1 - least) * rarity


def subject_words(general: Path, labels: list[str | None]) -> set[str]:
    """Words for the subject of an image: one or two for each class, one for each label, and the kinds."""
    first = [own[0] for own in concept_words.class_words()]
    of_labels = [label.split()[0] for label in labels if label]
    return {*concept_words.basic_words(general), *first, *of_labels, *concept_words.KINDS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path)
    parser.add_argument("teachers", type=Path)
    parser.add_argument("out", type=Path)
    add_folders(parser)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=8, help="of each layer")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    captions = concept_words.read_flickr8k(args.flickr8k)
    concepts = concept_words.build(captions, [tokens for _, tokens in concept_words.read_others(args.general)])
    flickr8k = read_set(args.features, args.teachers, "flickr8k-train")
    general = read_set(args.features, args.teachers, "general")
    print(len(flickr8k.rows), "Flickr8k,", len(general.rows), "general,", len(concepts.words), "concepts", flush=True)

    shown = shares(captions, flickr8k.names, concepts)
    common = ((shown > 0).sum(0) >= MANY_IMAGES).float()
    expert = fit(flickr8k.pooled, shown, decay=1.0, epochs=args.epochs, batch=args.batch)
    by_expert = expert(general.pooled).sigmoid()
    matrix = concepts.class_matrix()
    shown = torch.where(common > 0, shown, torch.maximum(shown, 0.7 * (flickr8k.classes @ matrix).clamp(max=1)))
    labels = concept_words.label_words(args.general)
    targets = torch.cat([shown, general_targets(general, labels, concepts, common, by_expert)])
    names = [f"flickr8k-train/{name}" for name in flickr8k.names] + [f"general/{name}" for name in general.names]
    named = subject_words(args.general, labels)
    expected = expected_targets(general.features, targets[len(flickr8k.names) :], args.epochs, args.batch)
    specific = specificity(targets, torch.tensor([word in named for word in concepts.words]))
    values, places = (expected * specific).topk(SUBJECTS)
    torch.save(
        {
            "words": concepts.words,
            "names": names,
            "targets": targets.half(),
            "expected": expected.half(),
            "subjects": places,
            "subject_values": values,
            "specificity": specific,
        },
        args.out,
    )


if __name__ == "__main__":
    main()
