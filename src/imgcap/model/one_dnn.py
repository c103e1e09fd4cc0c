"""oneDNN's operators, which the fast paths call: they are not part of torch's public interface."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from threading import Lock
from time import perf_counter

import torch
from torch import Tensor

_PACKING = Lock()

Layouts = dict[tuple[torch.Size, int], Tensor]
"""A convolution's packed weights, by the shape of the maps and the number of threads that they are packed for."""


@cache
def has(library: str, *operators: str) -> bool:
    """Whether torch was built with oneDNN and `torch.ops.<library>` has all of these operators."""
    return torch.backends.mkldnn.is_available() and all(  # type: ignore[no-untyped-call]
        hasattr(getattr(torch.ops, library), name) for name in operators
    )


def packed(layouts: Layouts, maps: Tensor, pack: Callable[[], Tensor]) -> Tensor:
    """The weights in the layout that the kernel for `maps` reads, from `layouts` or else from `pack`.

    The kernel, and so the layout, depends on the shape of the maps and on the number of threads. With weights in
    another layout oneDNN reorders them at every call. Equal layouts share their memory.
    """
    key = (maps.shape, torch.get_num_threads())
    if key not in layouts:
        with _PACKING:
            if key not in layouts:
                weights, describe = pack(), torch.ops.mkldnn._get_mkldnn_serialized_md
                layout = describe(weights)
                layouts[key] = next((kept for kept in layouts.values() if describe(kept).equal(layout)), weights)
    return layouts[key]


def fastest(candidates: Iterable[Tensor], convolve: Callable[[Tensor], object]) -> Tensor:
    """Those of the same weights in several layouts with which `convolve` takes the least time."""

    def seconds(weights: Tensor) -> float:
        convolve(weights)  # builds the kernel
        begun = perf_counter()
        convolve(weights)
        return perf_counter() - begun

    return min(candidates, key=seconds)
