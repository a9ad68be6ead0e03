"""Fail unless the packages of the wheel, and no package called ``baselines``, are installed in this environment."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path


def main() -> None:
    """Check where the packages come from."""
    if find_spec("baselines") is not None:
        sys.exit("a top-level package 'baselines' is importable; the wheel must install shipbench_baselines alone")
    for name in ("shipbench", "shipbench_baselines"):
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            sys.exit(f"{name} is not installed")
        if not Path(spec.origin).is_relative_to(sys.prefix):
            sys.exit(f"{name} comes from {spec.origin}, not from this environment")


if __name__ == "__main__":
    main()
