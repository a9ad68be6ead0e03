"""Which code made a record."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path


@cache
def git_commit() -> str:
    """Return the commit of the checkout that this code runs from, with ``+`` if it has changes; empty if unknown."""
    here = Path(__file__).parent
    # An installed copy may lie inside somebody else's checkout, whose commit says nothing about this code.
    if not (here.parent / ".git").exists():
        return ""
    try:
        commit = _git(here, "rev-parse", "--short=12", "HEAD")
        return commit + ("+" if commit and _git(here, "status", "--porcelain", "--", str(here)) else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, env=environment
    )
    return done.stdout.strip() if done.returncode == 0 else ""
