"""Run Python code in a process that cannot import shipbench."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("shipbench", "shipbench_baselines"):
            raise ModuleNotFoundError(f"{name} is blocked in this process")
sys.meta_path.insert(0, Blocked())
try:
    import shipbench
except ModuleNotFoundError:
    pass
else:
    sys.exit("shipbench could be imported")
"""


def run_without_shipbench(code: str, folder: Path, **environment: str) -> str:
    """Return what ``code`` prints when it runs in ``folder``; it must end without an error."""
    done = subprocess.run(
        [sys.executable, "-c", _BLOCK + code],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
