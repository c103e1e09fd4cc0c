"""Choose the torch device."""

from __future__ import annotations

import torch

from imgcap.errors import UsageError


def pick_device(name: str | None = None) -> torch.device:
    """Return the device `name`; None picks a GPU if torch sees one, else the CPU.

    Raises `UsageError` if the device is not available.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UsageError(f"The device {name!r} is not available.", "Try --device cpu.") from None
    return device
