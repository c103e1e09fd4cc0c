"""The device that tensors live on."""

from __future__ import annotations

import torch

from imgcap.errors import UsageError


def pick_device(name: str | None = None) -> torch.device:
    """The device called `name`; None takes a GPU if torch sees one. Raises `UsageError`."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UsageError(f"The device {name!r} is not available.", "Try --device cpu.") from None
    return device
