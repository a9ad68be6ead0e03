"""Names of timm's pretrained models, remembered for each release of timm, because importing it takes seconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path

from shipbench.errors import InputError
from shipbench.runtime.cache import cache_dir
from shipbench.runtime.files import atomic_path


def pretrained_names(pattern: str) -> list[str]:
    """Return the names of timm's pretrained models, with the tags of their weights, that match ``pattern``.

    As in ``timm.list_models``, a pattern without a tag, such as ``vit_base*``, stands for all tags.
    """
    patterns = [pattern] if "." in pattern else [pattern, f"{pattern}.*"]
    return [name for name in _all_names() if any(fnmatchcase(name, each) for each in patterns)]


def _all_names() -> Sequence[str]:
    try:
        path = cache_dir("backbones") / f"timm-{version('timm')}.json"
    except InputError:
        # Nothing else needs the cache folder here.
        return _names_of_timm()
    names = _read(path)
    if names is None:
        names = _names_of_timm()
        # A failed write (a full disk) only makes the next list take as long.
        with suppress(OSError), atomic_path(path) as temporary:
            temporary.write_text(json.dumps(names) + "\n", encoding="utf-8")
    return names


def _names_of_timm() -> list[str]:
    import timm

    return timm.list_models(pretrained=True)


def _read(path: Path) -> list[str] | None:
    """Return the names in a file, or None if it is missing or damaged."""
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None
