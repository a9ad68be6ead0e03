"""Which runs of two sides are pairs, and the labels that keep pairs apart which may not be averaged.

Runs are paired if they share task, seed, method, switches, settings, shots, protocol, backbone, image size, data and
metric, and on people's own tasks draw, resize and augment; evaluations of finished runs also share the corruption, its
severity, and the task and data of their runs. A column that one of the two selections names is what they are compared
by, so that it need not agree, except the metric.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from shipbench.counts import counted
from shipbench.errors import InputError
from shipbench.record import EVALUATED, IMPORTED, MEAN_PER_CLASS, TRAINED, UNSEALED
from shipbench.report.analysis.arms import origin_name
from shipbench.report.analysis.data_versions import completed
from shipbench.report.analysis.normalise import json_object
from shipbench.report.wording.names import corruption_name, method_name, setting_name, suite_name, task_name
from shipbench.report.wording.numbers import setting
from shipbench.report.wording.text import joined

Row: TypeAlias = Mapping[str, Any]
_Key: TypeAlias = tuple[Any, ...]
_PLACE = ("task", "seed", "data_fingerprint", "parent_task", "parent_data")
_WHAT = ("method", "switches", "shots", "protocol", "backbone", "kind", "reference", "corruption", "severity")
_TREATMENT = ("draw", "resize", "augment")
# Methods, switches and recipes have settings of their own; harnesses do not record the rest.
_IMPLIED = {
    "method": ("settings",),
    "switches": ("settings",),
    "recipe": ("settings",),
    "origin": ("settings", "kind", "reference", "data_fingerprint", *_TREATMENT, "backbone", "image_size"),
    "kind": (
        *("settings", "reference", "data_fingerprint", *_TREATMENT),
        *("parent_task", "parent_data", "backbone", "image_size"),
    ),
    # The draw states the number of images.
    "shots": ("draw",),
    "data_fingerprint": ("draw",),
    "n_train": ("draw",),
    "n_test": ("draw",),
    "backbone": ("settings", "image_size"),
    "image_size": ("cfg.image_size",),
}
# What a hint offers to tell runs apart, before their settings and after them.
_WEIGHTS = ("checkpoint", "backbone_sha256")
_CIRCUMSTANCES = (
    *("task", "kind", "corruption", "severity", "recipe", "precision", "device", "origin", "reference"),
    *("shots", "resize", "augment", "origin_file", "git_commit"),
)


@dataclass(frozen=True)
class Pairing:
    """The runs of two sides: pairs, whether or not they finished, and runs without a partner."""

    pairs: tuple[tuple[Row, Row], ...]
    only_a: tuple[Row, ...]
    only_b: tuple[Row, ...]


def pair_runs(a: Sequence[Row], b: Sequence[Row], named: Collection[str]) -> Pairing:
    """Pair the records of two sides; ``named`` are the columns that a selection restricts.

    Records have the columns of a study, and ``parent_task`` and ``parent_data``: what an evaluation's run was trained
    on, empty for other runs. Raises ``InputError`` if several runs of a side would be paired with the same run of the
    other.
    """
    rows = _completed([*a, *b])
    a, b = rows[: len(a)], rows[len(a) :]
    key = _pairing_key(named, {row["kind"] for row in rows})
    theirs = _by_key(b, key, "B")
    ours = _by_key(a, key, "A")
    return Pairing(
        tuple((row, theirs[k]) for k, row in ours.items() if k in theirs),
        tuple(row for k, row in ours.items() if k not in theirs),
        tuple(row for k, row in theirs.items() if k not in ours),
    )


def _completed(rows: Sequence[Row]) -> list[Row]:
    """Return ``rows`` whose data versions have what the records of one side alone state."""
    cells = [tuple(row[name] for name in ("suite", "task", "kind", "protocol")) for row in rows]
    versions = completed([row["data_version"] for row in rows], cells, [_shots(row) for row in rows])
    return [{**row, "data_version": version} for row, version in zip(rows, versions, strict=True)]


def is_done(row: Row) -> bool:
    """Return whether a run finished."""
    return bool(row["status"] == "done")


def pair_labels(pairs: Sequence[tuple[Row, Row]]) -> list[str]:
    """Return the labels of pairs; those of runs that may not be averaged differ."""
    names = _names([row for pair in pairs for row in pair])
    ours, theirs = (_with_settings([pair[i] for pair in pairs], names[i::2]) for i in (0, 1))
    labels = [a if a == b else f"{a} → {b}" for a, b in zip(ours, theirs, strict=True)]
    cells = [(label, one["task"], one["seed"]) for label, (one, _) in zip(labels, pairs, strict=True)]
    times = Counter(cells)
    return [
        cell[0] if times[cell] == 1 else f"{cell[0]} [{one['run_id']}]"
        for cell, (one, _) in zip(cells, pairs, strict=True)
    ]


def _names(rows: Sequence[Row]) -> list[str]:
    """Return the name of every run with the parts of its identity in which the runs of its suite differ."""
    present: dict[tuple[str, ...], set[str]] = defaultdict(set)
    identities = [_identity(row) for row in rows]
    for identity in identities:
        for scope, text in identity.items():
            present[scope].add(text)
    return [
        ", ".join(filter(None, (run_name(row), *(text for scope, text in own.items() if len(present[scope]) > 1))))
        for row, own in zip(rows, identities, strict=True)
    ]


def _identity(row: Row) -> dict[tuple[str, ...], str]:
    """Return the parts of a run's identity as texts, by the scope in which they may differ."""
    suite, backbone, size = row["suite"], row["backbone"], row["image_size"]
    foreign = IMPORTED if row["kind"] == IMPORTED else ""
    by_class = row["headline_metric"] == MEAN_PER_CLASS
    # The data version of an evaluation is that of its run.
    version, images = row["data_version"], (suite, row["task"], row["kind"], row["parent_task"])
    return {
        ("suite",): suite_name(suite),
        ("protocol", suite): "trial of a tuning" if row["protocol"] == "tuning" else "",
        ("recipe", suite): f"{row['recipe']} recipe" if row["recipe"] else "",
        ("backbone", suite): backbone,
        ("weights", suite, backbone): f"weights {row['backbone_sha256'][:8]}" if row["backbone_sha256"] else "",
        ("image_size", suite): f"{size:g} px" if size > 0 else "",
        ("origin", suite): "" if row["origin"] == UNSEALED else origin_name(row["origin"]) or foreign,
        ("reference", suite, row["method"], row["origin"]): row["reference"],
        ("metric", suite, row["task"]): "mean per class" if by_class else "over images",
        ("draw", *images, str(_shots(row)), version.fingerprint): version.draw,
        ("resize", *images): f"resize {version.resize}" if version.resize else "",
        ("augment", *images): f"augment {version.augment}" if version.augment else "",
    }


def _with_settings(rows: Sequence[Row], names: Sequence[str]) -> list[str]:
    """Add the settings in which the runs of a name differ within a task, and the data where they do."""
    cells = [(name, row["task"]) for name, row in zip(names, rows, strict=True)]
    settings = [_settings(row) for row in rows]
    first: dict[tuple[str, str], dict[str, Any]] = {}
    varied: dict[str, set[str]] = defaultdict(set)
    data: dict[tuple[str, str], set[str]] = defaultdict(set)
    for cell, row, own in zip(cells, rows, settings, strict=True):
        reference = first.setdefault(cell, own)
        varied[cell[0]] |= {key for key in own.keys() | reference.keys() if own.get(key) != reference.get(key)}
        data[cell].add(row["data_fingerprint"])
    labels = []
    for cell, row, own in zip(cells, rows, settings, strict=True):
        values = [f"{setting_name(key)} {setting(own.get(key, 'none'))}" for key in sorted(varied[cell[0]])]
        images = f"data {row['data_fingerprint'][:8] or 'not stated'}" if len(data[cell]) > 1 else ""
        labels.append(", ".join(filter(None, (cell[0], *values, images))))
    return labels


def run_name(row: Row) -> str:
    """Return method, switches and shots, for an evaluation its images, and that its record has lost its seal."""
    name = method_name(row["method"])
    name = f"{name} [{row['switches']}]" if row["switches"] else name
    shots = _shots(row)
    unsealed = origin_name(UNSEALED) if row["origin"] == UNSEALED else ""
    return ", ".join(filter(None, (name, counted(shots, "shot") if shots else "", _images(row), unsealed)))


def _shots(row: Row) -> int:
    return int(row["shots"]) if row["shots"] == row["shots"] else 0


def _images(row: Row) -> str:
    """Return the images of an evaluation in words; empty for other runs."""
    if row["kind"] != EVALUATED:
        return ""
    corruption, parent = row["corruption"], row["parent_task"]
    images = f"{corruption_name(corruption)}, severity {row['severity']:g}" if corruption else "evaluated"
    return images if parent in ("", row["task"]) else f"{images}, trained on {task_name(parent)}"


def _pairing_key(named: Collection[str], kinds: Collection[str]) -> Callable[[Row], _Key]:
    """Return what two runs of a pair share.

    ``kinds`` are those of all runs: where there is only one, a selection that names it compares nothing by it.
    """
    filters = {"kind"} if kinds in ({TRAINED}, {EVALUATED}) else set()
    compared = set(named) - filters
    dropped = {*compared, *(column for name in compared for column in _IMPLIED.get(name, ()))}
    columns = [column for column in (*_PLACE, *_WHAT) if column not in dropped]
    treatment = [column for column in _TREATMENT if column not in dropped]

    def key(row: Row) -> _Key:
        settings = {} if "settings" in dropped else _settings(row)
        kept = sorted(name for name in settings if f"cfg.{name}" not in dropped)
        size = None if "image_size" in dropped or not row["image_size"] > 0 else row["image_size"]
        stated = [None if row[name] != row[name] else row[name] for name in columns]
        values = (*stated, *(getattr(row["data_version"], name) for name in treatment))
        # Two metrics do not compare, whatever a selection names.
        return (row["headline_metric"], *values, size, *((name, repr(settings[name])) for name in kept))

    return key


def _settings(row: Row) -> dict[str, Any]:
    return json_object(row["config"])


def _by_key(rows: Iterable[Row], key: Callable[[Row], _Key], side: str) -> dict[_Key, Row]:
    by_key: dict[_Key, Row] = {}
    for row in rows:
        other = by_key.setdefault(key(row), row)
        if other is not row:
            raise InputError(_ambiguous(other, row, side))
    return by_key


def _ambiguous(one: Row, other: Row, side: str) -> str:
    """Say which runs cannot be told apart, and by what they could be."""
    first, second = _settings(one), _settings(other)
    varied = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    # Records of other programs may lack numbers, and NaN differs from itself.
    weights, columns = ([n for n in names if str(one[n]) != str(other[n])] for names in (_WEIGHTS, _CIRCUMSTANCES))
    names = [*weights, *varied, *columns] or ["run_id"]
    return (
        f"{side} has two runs of the same pair, {one['run_id']} and {other['run_id']}; they differ in "
        f"{joined(names[:4])}: name one of these, as in DIR@{names[0]}=VALUE"
    )
