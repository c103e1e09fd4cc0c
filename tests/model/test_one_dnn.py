"""Weights packed for oneDNN."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from time import sleep

import pytest
import torch
from torch import Tensor

from imgcap.model import one_dnn

pytestmark = pytest.mark.skipif(
    not one_dnn.has("mkldnn", "_reorder_convolution_weight", "_get_mkldnn_serialized_md"),
    reason="this torch has no oneDNN",
)


def convolution_weights(channels: int = 8) -> Tensor:
    geometry = ((0, 0), (1, 1), (1, 1), 1)
    weights: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
        torch.zeros(channels, 3, 1, 1), *geometry, torch.Size((1, 3, 8, 8))
    )
    return weights


def test_weights_are_packed_once_for_each_shape_and_equal_layouts_share_memory() -> None:
    layouts: one_dnn.Layouts = {}
    packed: list[Tensor] = []

    def pack() -> Tensor:
        packed.append(convolution_weights(16 if len(packed) == 2 else 8))  # the third has another layout
        return packed[-1]

    def of(images: int) -> Tensor:
        return one_dnn.packed(layouts, torch.zeros(images, 3, 8, 8), pack)

    first = of(1)
    assert of(1) is first
    assert of(2) is first
    assert len(packed) == 2
    assert of(3) is packed[2]
    assert of(2) is first
    assert len(packed) == 3


def test_another_number_of_threads_is_packed_for_too() -> None:
    layouts: one_dnn.Layouts = {}
    maps, before = torch.zeros(1, 3, 8, 8), torch.get_num_threads()
    try:
        for threads in (1, 2, 1):
            torch.set_num_threads(threads)
            one_dnn.packed(layouts, maps, convolution_weights)
    finally:
        torch.set_num_threads(before)
    assert len(layouts) == 2


def test_threads_that_need_the_same_weights_wait_for_one_to_pack_them() -> None:
    layouts: one_dnn.Layouts = {}
    packed: list[Tensor] = []
    maps = torch.zeros(1, 3, 8, 8)

    def pack() -> Tensor:
        packed.append(convolution_weights())
        return packed[-1]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: one_dnn.packed(layouts, maps, pack), range(8)))
    assert len(packed) == 1
    assert all(each is packed[0] for each in found)


def test_the_layout_with_the_fastest_second_call_is_chosen() -> None:
    slow, fast = convolution_weights(), convolution_weights()
    calls: list[Tensor] = []

    def convolve(weights: Tensor) -> None:
        calls.append(weights)
        is_first = sum(each is weights for each in calls) == 1
        if is_first == (weights is fast):
            sleep(0.05)

    assert one_dnn.fastest([slow, fast], convolve) is fast
    assert one_dnn.fastest([fast, slow], lambda weights: sleep(0.05) if weights is slow else None) is fast
    assert len(calls) == 4
