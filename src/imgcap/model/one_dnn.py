"""Whether torch has the oneDNN operators that the fast paths call, by names that torch does not promise."""

from __future__ import annotations

from functools import cache

import torch


@cache
def has(library: str, *operators: str) -> bool:
    """Whether torch was built with oneDNN and `torch.ops.<library>` has all of these operators."""
    return torch.backends.mkldnn.is_available() and all(  # type: ignore[no-untyped-call]
        hasattr(getattr(torch.ops, library), name) for name in operators
    )
