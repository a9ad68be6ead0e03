"""The version: one literal, and the commit of the checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import shipbench
from shipbench.runtime import version
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


@pytest.mark.parametrize("changed", ["shipbench", "baselines", "docs"])
def test_uncommitted_code_is_marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    files = [tmp_path / "shipbench/runtime/version.py", tmp_path / "baselines/lora.py", tmp_path / "docs/index.md"]
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_text("one")
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "one"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    monkeypatch.setattr(version, "__file__", str(files[0]))
    clean = git_commit.__wrapped__()
    next(file for file in files if file.is_relative_to(tmp_path / changed)).write_text("two")
    assert git_commit.__wrapped__() == clean + ("" if changed == "docs" else "+")
    assert len(clean) == 12
