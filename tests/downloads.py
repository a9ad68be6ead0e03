"""Where tests keep what they download: the user's cache if ``SHIPBENCH_CACHE`` names one, else one per session."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_GIVEN = os.environ.get("SHIPBENCH_CACHE")


def download_cache(factory: pytest.TempPathFactory) -> Path:
    """Return the cache folder that all tests of this session download into."""
    return Path(_GIVEN) if _GIVEN else factory.getbasetemp() / "downloads"
