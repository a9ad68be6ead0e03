"""The cache folder."""

from __future__ import annotations

import os
from pathlib import Path

from shipbench.errors import InputError, system_reason
from shipbench.runtime.files import expanded


def cache_dir(*parts: str) -> Path:
    """Return a folder of the cache, created if absent: below ``$SHIPBENCH_CACHE``, or else the user's cache folder.

    Raises ``InputError`` if it cannot be created.
    """
    import platformdirs

    root = os.environ.get("SHIPBENCH_CACHE")
    text = root or platformdirs.user_cache_dir("shipbench")
    # Neither the environment of a container nor a system without a home folder expands ~.
    base = expanded(text)
    path = base.joinpath(*parts)
    if text.startswith("~") and base == Path(text):
        raise InputError(f"cache folder {path} names no known home folder; set SHIPBENCH_CACHE to a writable folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cache folder {path} cannot be created ({system_reason(error)}); set SHIPBENCH_CACHE to a writable folder"
        ) from error
    return path
