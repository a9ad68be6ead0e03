"""Which variants an ablation study or a sweep of one setting consists of."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from shipbench.errors import InputError, did_you_mean
from shipbench.methods.ship.method import SWITCHES

MODES = ("leave-one-out", "add-one-in", "all")


def parse_switches(text: str | None) -> tuple[str, ...]:
    """Read a comma list of switches; all of them if nothing is given."""
    if text is None:
        return tuple(SWITCHES)
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in names:
        if name not in SWITCHES:
            raise InputError(
                f"unknown switch {name!r}{did_you_mean(name, list(SWITCHES))}; see 'shipbench list ablations'"
            )
    if not names:
        raise InputError("--switch is empty; name switches, as in --switch no-hierarchy, or leave it out for all")
    return names


def switch_sets(switches: Sequence[str], mode: str) -> list[tuple[str, ...]]:
    """Return the sets of switches to run, full SHIP (none) among them.

    ``leave-one-out`` turns on one at a time; ``add-one-in`` begins with all of them and takes them away in the order
    given; ``all`` is every combination.
    """
    if mode not in MODES:
        raise InputError(f"unknown mode {mode!r}{did_you_mean(mode, list(MODES))}; choose one of {', '.join(MODES)}")
    if mode == "leave-one-out":
        return [(), *((switch,) for switch in switches)]
    if mode == "add-one-in":
        return [tuple(switches[start:]) for start in range(len(switches) + 1)]
    return [chosen for size in range(len(switches) + 1) for chosen in combinations(switches, size)]


def variant_settings(switches: Sequence[str]) -> dict[str, Any]:
    """Return the settings that turn on ``switches``."""
    return {key: value for name in switches for key, value in SWITCHES[name].items()}


def parse_sweep(text: str) -> list[dict[str, str]]:
    """Read ``KEY=V1,V2,...``: one variant for each value."""
    key, separator, values = text.partition("=")
    parts = [value.strip() for value in values.split(",") if value.strip()]
    if not separator or not key.strip() or not parts:
        raise InputError(f"--sweep {text!r} is not KEY=V1,V2,..., as in --sweep prompt_length=5,10,50")
    return [{key.strip(): value} for value in dict.fromkeys(parts)]
