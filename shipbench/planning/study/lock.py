"""The lock of a study: the software, data, weights and precision of its runs, for others to compare with."""

from __future__ import annotations

import json
import platform
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

from shipbench.errors import InputError, one_line
from shipbench.methods import releases_of
from shipbench.planning.study.file import Study
from shipbench.planning.study.grid import StudyGrid
from shipbench.results.store import writing
from shipbench.runtime.files import atomic_path
from shipbench.runtime.version import VERSION, git_commit
from shipbench.settings import canonical_sha256
from shipbench.spec import RunSpec
from shipbench.tasks import parse_tasks

Lock: TypeAlias = Mapping[str, Any]
FORMAT = "shipbench-study-lock-1"
_PACKAGES = ("torch", "timm", "numpy", "pillow", "scikit-learn")
_TABLES = ("versions", "data", "weights", "precision")
_SHOWN = 12


def lock_name(study: Study) -> str:
    """Return the name of a study's lock file."""
    return f"{study.file.name}.lock"


def make_lock(study: Study, grid: StudyGrid) -> Lock:
    """Return the lock of a study as planned here.

    It holds versions, data fingerprints and hashes of weights (hex), and the precision that ``auto`` resolves to. Data
    and weights are named by where they lie if the study file calls several by one name.
    """
    tasks, files = _shared_names(study)
    return {
        "format": FORMAT,
        "study": canonical_sha256(json.loads(json.dumps(study.content, default=str))),
        "versions": {
            "shipbench": f"{VERSION} ({git_commit()})" if git_commit() else VERSION,
            "python": platform.python_version(),
            **{name: version(name) for name in _PACKAGES},
            **_packages_of_some(grid),
        },
        "data": {_data_name(run.spec, tasks): run.data_fingerprint for run in grid.runs} | _evaluated_data(grid),
        "weights": {_weights_name(run.spec, files): run.backbone_sha256 for run in grid.runs},
        "precision": {run.spec.precision: run.precision for run in grid.runs if run.spec.precision == "auto"},
    }


def _packages_of_some(grid: StudyGrid) -> dict[str, str]:
    """Return the versions of the packages that some methods or evaluations use, by name."""
    methods = {run.spec.resolved.method.name for run in grid.runs}
    corrupts = any(section.requested.corruptions for section in grid.follow_ups)
    packages = {"torchvision": version("torchvision")} if corrupts else {}
    for method in methods:
        packages |= releases_of(method)
    return packages


def _shared_names(study: Study) -> tuple[Set[str], Set[str]]:
    """Return the names of tasks and of files of weights that mean several in the study file, in parts left out too."""
    sections = (section if isinstance(section, list) else [section] for section in study.content.values())
    tables = [table for section in sections for table in section]
    keys: dict[str, set[object]] = defaultdict(set)
    for text in _texts(tables, "tasks"):
        # A part that is not planned may name a file that is not here.
        with suppress(InputError):
            for task in parse_tasks(text):
                keys[task.name].add(task.key)
    paths: dict[str, set[object]] = defaultdict(set)
    for text in _texts(tables, "checkpoint"):
        paths[Path(text).name].add(text)
    return _several(keys), _several(paths)


def _several(meanings: Mapping[str, Set[object]]) -> Set[str]:
    return {name for name, meant in meanings.items() if len(meant) > 1}


def _texts(tables: Sequence[Any], key: str) -> Iterator[str]:
    for table in tables:
        value = table.get(key) if isinstance(table, Mapping) else None
        if value:
            yield ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _data_name(spec: RunSpec, shared: Set[str]) -> str:
    task = spec.resolved.task
    name = f"{task.name} ({', '.join(spec.splits)})"
    return f"{name} from {task.source}:{task.location}" if task.name in shared else name


def _evaluated_data(grid: StudyGrid) -> dict[str, str]:
    requested = [section.requested for section in grid.follow_ups]
    return {f"{each.on.name} (evaluated)": each.fingerprint for each in requested if each.on is not None}


def _weights_name(spec: RunSpec, shared: Set[str]) -> str:
    if spec.checkpoint is None:
        return spec.resolved.backbone
    name = Path(spec.checkpoint).name
    return f"{spec.resolved.backbone} from {spec.checkpoint if name in shared else name}"


def differences(ours: Lock, theirs: Lock, place: str) -> list[str]:
    """Return a sentence for every difference between this machine's lock and the one called ``place``.

    What only one of them has is no difference: a part of a study has fewer data, weights and methods.
    """
    sentences = []
    if ours["study"] != theirs["study"]:
        sentences.append(f"The study file has other content than the one of {place}.")
    for name, here, there in _changed(ours["versions"], theirs["versions"]):
        sentences.append(f"{name} is {here} here and {there} in {place}.")
    for name, here, there in _changed(ours["data"], theirs["data"]):
        sentences.append(
            f"Images or labels of {name} differ: fingerprint {_short(here)} here, {_short(there)} in {place}."
        )
    for name, here, there in _changed(ours["weights"], theirs["weights"]):
        hashes = f"SHA-256 {_short(here)} here, {_short(there)} in {place}"
        sentences.append(f"The weights of {name} differ: {hashes}.")
    for name, here, there in _changed(ours["precision"], theirs["precision"]):
        remedy = f'set precision = "{there}" in the study file for the runs of that lock'
        sentences.append(f"Precision {name} is {here} here and {there} in {place}; {remedy}.")
    return sentences


def _changed(ours: Mapping[str, str], theirs: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield the names that both have with different values."""
    yield from ((name, here, theirs[name]) for name, here in ours.items() if theirs.get(name, here) != here)


def _short(digest: str) -> str:
    return digest[:_SHOWN]


def extended(lock: Lock, ours: Lock) -> Lock:
    """Return ``lock`` with the versions, data, weights and precision that only ``ours`` has."""
    return {**lock, **{table: {**ours[table], **lock[table]} for table in _TABLES}}


def write_lock(path: Path, lock: Lock) -> None:
    """Write a lock file into the results folder, atomically; raise ``StoreError`` if that cannot be written to."""
    with writing(path.parent), atomic_path(path) as temporary:
        temporary.write_text(json.dumps(lock, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_lock(path: Path) -> Lock:
    """Return the lock in a file; raise ``InputError`` if it cannot be read or is none."""
    try:
        lock = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"lock file {path} cannot be read ({one_line(error)}); move it away") from error
    if not isinstance(lock, dict) or lock.get("format") != FORMAT or not _is_complete(lock):
        raise InputError(f"{path} is not a lock file of the format {FORMAT}; move it away")
    return lock


def _is_complete(lock: Mapping[str, Any]) -> bool:
    return isinstance(lock.get("study"), str) and all(isinstance(lock.get(name), dict) for name in _TABLES)
