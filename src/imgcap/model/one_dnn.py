"""Check for the oneDNN operators that the fast paths call: they are not part of torch's public interface."""

from __future__ import annotations

from functools import cache

import torch


@cache
def has(library: str, *operators: str) -> bool:
    """Whether torch was built with oneDNN and `torch.ops.<library>` has all of these operators."""
    return torch.backends.mkldnn.is_available() and all(  # type: ignore[no-untyped-call]
        hasattr(getattr(torch.ops, library), name) for name in operators
    )
