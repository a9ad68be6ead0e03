"""``shipbench list`` and ``--help``: complete, and without loading anything heavy."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest

from tests.conftest import Outcome

Shipbench = Callable[..., Outcome]
HEAVY = ("torch", "timm", "pandas", "pyarrow", "matplotlib", "sklearn", "scipy", "numpy")


def test_tasks(shipbench: Shipbench) -> None:
    rows = json.loads(shipbench("list", "tasks", "--json").out)
    vtab = [row for row in rows if row["suite"] == "vtab-1k"]
    assert len(vtab) == 19
    assert sum(row["n_test"] for row in vtab) == 387_904


def test_methods(shipbench: Shipbench) -> None:
    names = [row["name"] for row in json.loads(shipbench("list", "methods", "--json").out)]
    assert {"full", "linear", "ship", "vpt-deep", "vpt-shallow"} <= set(names)


def test_selections(shipbench: Shipbench) -> None:
    rows = json.loads(shipbench("list", "selections", "--json").out)
    assert [row["name"] for row in rows][:3] == ["final", "validation", "oracle"]
    assert all(row["counts"] for row in rows)


def test_ablations(shipbench: Shipbench) -> None:
    rows = json.loads(shipbench("list", "ablations", "--json").out)
    assert [row["switch"] for row in rows] == [
        "no-hierarchy",
        "no-shared-prompts",
        "no-attribute-prompts",
        "no-matching-loss",
        "coupled-attention",
    ]


def test_backbones(shipbench: Shipbench) -> None:
    names = [row["name"] for row in json.loads(shipbench("list", "backbones", "--json").out)]
    assert names[:2] == ["demo-vit-small-patch14", "vit_base_patch16_224.orig_in21k"]


@pytest.mark.parametrize(
    "arguments", [("--help",), ("run", "--help"), ("tune", "--help"), ("list", "tasks"), ("list", "methods")]
)
def test_nothing_heavy_is_imported(arguments: tuple[str, ...]) -> None:
    assert heavy_modules_of(arguments) == []


def heavy_modules_of(arguments: Sequence[object]) -> list[str]:
    """Run a command in a process of its own and return which heavy modules it has imported."""
    code = (
        "import sys; sys.argv = ['shipbench', *sys.argv[1:]]\n"
        "from shipbench.cli import main\n"
        "try: main()\nexcept SystemExit as stop: assert not stop.code, stop.code\n"
        f"print('', *[name for name in {HEAVY!r} if name in sys.modules], sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.rpartition("\n\n")[2].split()
