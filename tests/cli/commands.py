"""Every command of the application, with arguments that work on a small results folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer.core
import typer.main

from shipbench.cli import app
from tests.cli.conftest import Trained
from tests.data.builders import vtab_tree

_RUNS = (
    "--tasks {source} --backbone test_vit --checkpoint random --set image_size=64 --epochs 1 "
    "--set mean=0.4,0.5,0.6 --set std=0.2,0.25,0.3 --precision fp32 --device cpu --results {results}"
)
# Placeholders are the fields of World; {out} is a path that does not exist yet.
LINES = {
    "run": f"--method lora {_RUNS}",
    "ablate": f"--method ship --switch no-hierarchy {_RUNS} --dry-run",
    "tune": f"--method lora --grid lr=0.1,0.2 {_RUNS} --dry-run",
    "study": "{study} --results {results} --device cpu --dry-run",
    "report": "--results {results} --output {out} --format md",
    "status": "--results {results}",
    "diff": "@method=lora @method=vpt-deep --results {results}",
    "import": "csv {csv} --results {out}",
    "bench": "--method linear --backbone test_vit --image-size 64 --batch-size 2 --repeats 1 --levels 0,2",
    "evaluate": "{run} --on {source} --corrupt blur --severity 1 --device cpu --force --results {results}",
    "explain": "{run} {photograph} --device cpu --results {results} --output {out}",
    "export": "{run} {out}.safetensors --results {results}",
    "predict": "{exported} {photograph} --checkpoint random",
    "push": "{run} someone/insects --results {results} --dry-run --checkpoint random",
    "list tasks": "",
    "list methods": "",
    "list backbones": "--pattern vit_tiny*",
    "list ablations": "",
    "list selections": "",
    "list engines": "",
    "list trackers": "",
    "list published": "--method ship",
    "list runs": "--results {results}",
    "data verify": "{source}",
    "data import": "{tree} --to {out}",
    "data inspect": "{source}",
}
# These need minutes, or a hub.
UNTRIED = {"demo", "data fetch"}


@dataclass(frozen=True)
class World:
    """Files for every command: a results folder with four runs, their images, an exported run, and what is imported."""

    root: Path
    results: Path
    run: str
    photograph: Path
    source: str
    exported: Path
    study: Path
    csv: Path
    tree: Path

    def line(self, command: str, out: Path) -> list[str]:
        """Return a command line that works."""
        return [*command.split(), *LINES[command].format(**vars(self), out=out).split()]


def make_world(root: Path, trained: Trained) -> World:
    """Write the files; ``exported`` does not exist yet."""
    shutil.copytree(trained.results, root / "results")
    (root / "paper.csv").write_text("method,task,accuracy\nOthers,dtd,61.5%\n")
    source = f"folder:{trained.photographs}"
    study = f'[study]\ntasks = "{source}"\nbackbone = "test_vit"\ncheckpoint = "random"\nset = {{ image_size = 64 }}\n'
    (root / "tiny.toml").write_text(f'{study}\n[[run]]\nname = "main"\nmethods = ["lora", "vpt-deep"]\n')
    return World(
        root,
        root / "results",
        trained.runs["lora"],
        trained.photograph,
        source,
        root / "run.safetensors",
        root / "tiny.toml",
        root / "paper.csv",
        vtab_tree(root / "tree", tasks=("dtd",)),
    )


def leaves() -> dict[str, Any]:
    """Return every command by its words, as in ``list runs``."""
    return dict(_leaves(typer.main.get_command(app), ""))


def _leaves(command: Any, words: str) -> Iterator[tuple[str, Any]]:
    if isinstance(command, typer.core.TyperGroup):
        for name, child in command.commands.items():
            yield from _leaves(child, f"{words} {name}".strip())
    else:
        yield words, command
