"""The cache folder, and the one way anything is put into a place others may read: write aside, then rename."""

from __future__ import annotations

import os
from pathlib import Path

from shipbench.errors import InputError


def cache_dir(*parts: str) -> Path:
    """Return (and make) a folder below ``$SHIPBENCH_CACHE``, or below the user's cache folder.

    Raises ``InputError`` if it cannot be made.
    """
    import platformdirs

    root = os.environ.get("SHIPBENCH_CACHE")
    base = Path(root) if root else Path(platformdirs.user_cache_dir("shipbench"))
    path = base.joinpath(*parts)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cache folder {path} cannot be made ({error.strerror}); set SHIPBENCH_CACHE to one that can"
        ) from error
    return path
