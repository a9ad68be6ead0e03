"""Files that another machine has written, as a client of NFS sees them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

_AGE_NS = 10**18


def hide_until_its_folder_changes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``file`` be missing until anything is created or removed beside it, as if it had been looked up too early."""
    os.utime(file.parent, ns=(_AGE_NS, _AGE_NS))
    stat, exists = Path.stat, Path.exists

    def is_hidden(path: Path) -> bool:
        return path == file and stat(file.parent).st_mtime_ns == _AGE_NS

    def stale_stat(path: Path, **options: Any) -> os.stat_result:
        if is_hidden(path):
            raise FileNotFoundError(path)
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", stale_stat)
    monkeypatch.setattr(Path, "exists", lambda path, **options: not is_hidden(path) and exists(path, **options))
