"""The error that a call raises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from imgcap.errors import ImgcapError


def refusal(call: Callable[..., object], *arguments: Any, **options: Any) -> ImgcapError:
    with pytest.raises(ImgcapError) as caught:
        call(*arguments, **options)
    return caught.value
