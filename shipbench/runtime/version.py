"""The version of the code: release and commit."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

# pyproject.toml reads the package's version from here.
VERSION = "0.1.0"


@cache
def git_commit() -> str:
    """Return the commit of the checkout that contains this package, or an empty text if there is none.

    A ``+`` follows if shipbench or its baselines, which have most of the methods, have uncommitted changes.
    """
    package = Path(__file__).parents[1]
    # An installed copy may lie inside an unrelated checkout, whose commit says nothing about this code.
    if not (package.parent / ".git").exists():
        return ""
    try:
        commit = _git(package, "rev-parse", "--short=12", "HEAD")
        code = (str(package), str(package.with_name("baselines")))
        return commit + ("+" if commit and _git(package, "status", "--porcelain", "--", *code) else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    """Return the output of a git command, or an empty text if it fails."""
    # Without optional locks, git status does not disturb a git command that the user runs at the same time.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    result = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, env=environment
    )
    return result.stdout.strip() if result.returncode == 0 else ""
