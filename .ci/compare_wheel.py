"""Fail unless a wheel holds every tracked file of the packages: ``python .ci/compare_wheel.py dist/*.whl``."""

from __future__ import annotations

import subprocess
import sys
import zipfile


def main(wheel: str) -> None:
    """Compare the wheel with the files under version control."""
    tracked = subprocess.run(
        ["git", "ls-files", "shipbench", "baselines"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    expected = {path.replace("baselines/", "shipbench_baselines/", 1) for path in tracked}
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    for title, names in (("missing from", expected - packed), ("unexpected in", packed - expected)):
        for name in sorted(names):
            print(f"{title} the wheel: {name}", file=sys.stderr)
    if packed != expected:
        sys.exit(1)
    print(f"the wheel holds all {len(expected)} files of the packages")


if __name__ == "__main__":
    main(sys.argv[1])
