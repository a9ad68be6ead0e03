"""The cache folder."""

from __future__ import annotations

import os
from pathlib import Path

from shipbench.errors import InputError, system_reason


def cache_dir(*parts: str) -> Path:
    """Return a folder of the cache, created if absent: below ``$SHIPBENCH_CACHE``, or else the user's cache folder.

    Raises ``InputError`` if it cannot be created.
    """
    import platformdirs

    root = os.environ.get("SHIPBENCH_CACHE")
    base = Path(root) if root else Path(platformdirs.user_cache_dir("shipbench"))
    path = base.joinpath(*parts)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cache folder {path} cannot be created ({system_reason(error)}); set SHIPBENCH_CACHE to a writable folder"
        ) from error
    return path
