"""The parts of tools/distill_networks.py that a whole run does not show."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

TOOLS = Path(__file__).parents[2] / "tools"


@pytest.fixture(scope="module")
def networks() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(TOOLS))
        import distill_networks

        yield distill_networks
        del sys.modules["distill_networks"]


def test_a_filtered_convolution_answers_to_differences_and_not_to_the_mean(networks: Any) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 4, 3, padding=1, bias=False)
    mean_filter = networks.MeanFilter(conv)
    mean = torch.rand(8) + 1
    images = mean[:, None, None] + 0.1 * torch.randn(64, 8, 9, 9)
    answers = conv(images)
    frame, spread = answers.mean(0).std((1, 2)), answers.std(0).mean((1, 2))
    mean_filter.apply()
    assert (conv(mean[None, :, None, None].expand(1, 8, 9, 9)).abs() < 0.02 * frame.mean()).all()
    assert (conv(images).mean(0).std((1, 2)) < 0.1 * frame).all()  # no frame around what images have in common
    assert (conv(images).std(0).mean((1, 2)) > 0.7 * spread).all()  # but they differ as before


def test_a_filter_does_not_learn_from_an_evaluating_network(networks: Any) -> None:
    conv = nn.Conv2d(2, 2, 3, padding=1).eval()
    mean_filter = networks.MeanFilter(conv)
    before = conv.weight.clone()
    conv(torch.ones(1, 2, 5, 5))
    mean_filter.apply()
    assert torch.equal(conv.weight, before)
