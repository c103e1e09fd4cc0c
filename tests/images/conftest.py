"""Fixtures for the tests of images."""

from __future__ import annotations

import pytest
from PIL import features


@pytest.fixture(autouse=True)
def needs_avif(request: pytest.FixtureRequest) -> None:
    """Skip tests of AVIF if Pillow was built without it."""
    if ".avif" in request.node.name and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
