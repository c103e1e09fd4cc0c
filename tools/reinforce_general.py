"""Self-critical training of a decoder on images with and without captions. It resumes where it stopped.

    python tools/reinforce_general.py CONCEPTS.pt STATE --flickr8k FLICKR8K --general GENERAL --features FEATURES \
        --start-from decoder.pt

Continues a decoder of `train_general.py` and writes the same files. A step samples captions for two kinds of images.
Those of Flickr8k images are rewarded by CIDEr-D and BLEU-4 against the image's captions; those of general images with a
single subject, by the concepts that the image is expected to show (`caption_rewards.py`). To the self-critical loss
(`imgcap.training.self_critical`), a step adds the cross-entropy of human captions, so that the decoder keeps its words.
"""

from __future__ import annotations

import argparse
import random

import torch
from torch import Tensor

from caption_rewards import BleuReward, ConceptReward
from concepts import LEAST_SPECIFIC, at_least
from general_captions import Batch
from imgcap.training.self_critical import Reward, sample, self_critical_loss
from train_general import Run, arguments, mixed, start

SINGLE_SUBJECT = ("caltech", "clothing", "grocery", "imagenette", "in300", "in5", "pacs", "trash")
"""Beginnings of the names of general images that show one thing each. The other sources show scenes."""
SIZES = {"flickr30k": 2000, "coco": 47200, "kin": 0}
"""Human captions of each source in an epoch."""
LONGEST = 22
"""Words of a sampled caption."""


class Reinforcement(Run):
    """A training that samples captions and reinforces the better ones."""

    average_decay = 0.995
    length_penalty = 1.0

    def __init__(self, args: argparse.Namespace) -> None:
        super().__init__(args)
        data = self.data
        numbers = sorted(set(data.images))
        self.flickr8k_rows = numbers
        place = {row: i for i, row in enumerate(numbers)}
        references: list[list[list[str]]] = [[] for _ in numbers]
        for row, words in zip(data.images, data.captions, strict=True):
            references[place[row]].append(data.vocabulary.decode(words))
        self.flickr8k_reward = Reward(references, data.vocabulary)
        self.bleu_reward = BleuReward(references, data.vocabulary)
        every = [*data.captions, *(words for several in data.others.values() for words, _ in several)]
        specific = at_least(args.least_specific, data.specificity)
        self.general_reward = ConceptReward(data.concepts, data.vocabulary, specific, every)
        single = [
            data.names[row].startswith(tuple(f"general/{name}" for name in SINGLE_SUBJECT)) for row in data.general
        ]
        self.single_subject = [number for number, is_single in enumerate(single) if is_single]
        """Positions in `data.general` of images with a single subject."""
        self.rewards: list[list[float]] = []

    def loss(self, batch: Batch) -> Tensor:
        """The loss of a step: self-critical, and the cross-entropy of `batch` with its weight."""
        args, data = self.args, self.data
        draw = random.Random(self.draws + self.step)
        of_flickr8k = draw.sample(range(len(self.flickr8k_rows)), min(args.images[0], len(self.flickr8k_rows)))
        of_general = draw.sample(self.single_subject, min(args.images[1], len(self.single_subject)))
        flickr8k = data.features[[self.flickr8k_rows[i] for i in of_flickr8k]]
        general = data.features[[data.general[i] for i in of_general]]
        shares = self.shares(len(general))
        features = torch.cat([mixed(flickr8k, self.shares(len(flickr8k))), mixed(general, shares)])
        features = self.noisy(features).repeat_interleave(args.samples, 0)
        expected = shares @ data.expected[of_general]
        ids = sample(self.decoder, features, LONGEST)
        first = len(of_flickr8k) * args.samples
        images = [image for image in of_flickr8k for _ in range(args.samples)]
        rewards = [
            self.flickr8k_reward(ids[:first], images),
            self.general_reward(ids[first:], expected.repeat_interleave(args.samples, 0)),
        ]
        self.rewards.append([float(own.mean()) if len(own) else 0.0 for own in rewards])
        if self.step % 25 == 0:
            latest = torch.tensor(self.rewards[-25:]).mean(0)
            print("rewards of Flickr8k, general:", [round(value, 3) for value in latest.tolist()], flush=True)
        if args.bleu_weight:
            rewards[0] += args.bleu_weight * self.bleu_reward(ids[:first], images)
        rewards[1] *= args.general_weight
        reinforced = self_critical_loss(self.decoder, features, ids, torch.cat(rewards), args.samples)
        usual: Tensor = args.cross_entropy * super().loss(batch)
        return reinforced + usual


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, nargs=2, default=(44, 28), help="Flickr8k and general")
    parser.add_argument("--samples", type=int, default=4, help="captions sampled for each of them")
    parser.add_argument("--general-weight", type=float, default=1.5, help="factor of the rewards of general images")
    parser.add_argument(
        "--least-specific", type=float, default=LEAST_SPECIFIC, help="specificity of the most common subject"
    )
    parser.add_argument("--bleu-weight", type=float, default=0.0, help="factor of BLEU-4 beside CIDEr-D, for Flickr8k")
    parser.add_argument("--cross-entropy", type=float, default=0.6, help="weight of the cross-entropy")
    parser.set_defaults(steps=500, score_every=100, learning_rate=1.5e-4, batch=64, feature_noise=0.3, sizes=SIZES)
    start(Reinforcement, parser)


if __name__ == "__main__":
    main()
