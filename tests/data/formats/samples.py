"""The sample data sets outside the repository, and what a reader should find in them.

The folder is ``$SHIPBENCH_FORMATS``, else ``../shared/formats`` next to the repository; without it, tests are skipped.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

ENVIRONMENT_VARIABLE = "SHIPBENCH_FORMATS"
NEIGHBOUR = Path(__file__).resolve().parents[4] / "shared" / "formats"


def samples() -> Path:
    """Return the folder of the sample data sets; without it, the test is skipped, or fails if the variable is set."""
    chosen = os.environ.get(ENVIRONMENT_VARIABLE)
    folder = Path(chosen) if chosen else NEIGHBOUR
    if not folder.is_dir():
        if chosen:
            pytest.fail(f"{ENVIRONMENT_VARIABLE}={chosen} is not a folder")
        pytest.skip(f"no sample data sets: {folder} is absent and {ENVIRONMENT_VARIABLE} is not set")
    return folder / "data"


def expected(name: str) -> dict[str, Any]:
    """Return what a reader should find in a sample."""
    facts: dict[str, Any] = json.loads((samples().parent / "expected.json").read_text())["data"][name]
    return facts
