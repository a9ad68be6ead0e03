"""What an index shows: metadata that agree with the documentation and with the workflow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from shipbench.runtime.files import read_toml

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = read_toml(ROOT / "pyproject.toml", "the project file")["project"]


def test_every_extra_is_documented() -> None:
    page = (ROOT / "docs/how-to/install.md").read_text(encoding="utf-8")
    first_cells = " ".join(line.split("|")[1] for line in page.splitlines() if line.startswith("| `"))
    assert set(PROJECT["optional-dependencies"]) <= set(re.findall(r"`([a-z]+)`", first_cells))


def jobs_of_the_workflow() -> Any:
    return yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]


def test_the_workflow_tests_every_python_version_that_the_metadata_promise() -> None:
    promised = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    assert jobs_of_the_workflow()["check"]["strategy"]["matrix"]["python"] == promised
    assert PROJECT["requires-python"] == f">={promised[0]}"


def test_no_step_of_the_workflow_needs_the_environment_that_ci_run_removes() -> None:
    for job in jobs_of_the_workflow().values():
        lines = [step.get("run", "") for step in job["steps"]]
        assert ".ci/run" not in lines[:-1]
