"""The version: one literal, and the commit of the checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import shipbench
from shipbench.runtime.version import VERSION, git_commit


def test_the_package_has_the_one_version() -> None:
    assert shipbench.__version__ == VERSION


def test_the_commit_is_that_of_the_checkout() -> None:
    checkout = Path(shipbench.__file__).parents[1]
    if not (checkout / ".git").exists():
        pytest.skip("the package does not run from a checkout")
    command = ["git", "-C", str(checkout), "rev-parse", "--short=12", "HEAD"]
    head = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    assert git_commit().removesuffix("+") == head
