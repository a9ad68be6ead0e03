"""The variants of an ablation study, and of a sweep over one setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from shipbench.errors import InputError, did_you_mean
from shipbench.methods import Method, SettingValue
from shipbench.planning.grid import overrides_by_method

MODES = ("leave-one-out", "add-one-in", "all")


def make_variants(
    method: Method, values: Mapping[str, Any], switch: str | None, mode: str, sweeps: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the overrides of every variant of ``method``: ``values``, which hold for all, and its own.

    ``sweeps`` are ``KEY=V1,V2`` texts. With a sweep, switches are varied only if ``switch`` names some. Raises
    ``InputError`` for unknown names and for a key that is both swept and in ``values``.
    """
    common = overrides_by_method([method], values)[method.name]
    settings = [variant for text in sweeps for variant in parse_sweep(text)]
    variants = [overrides_by_method([method], variant, "--sweep")[method.name] for variant in settings]
    for key in (key for variant in variants for key in variant if key in common):
        raise InputError(f"{key} is given twice: by --sweep and by --set or --epochs")
    if not variants or switch is not None:
        variants += [variant_settings(names, method) for names in switch_sets(parse_switches(switch, method), mode)]
    return [common | variant for variant in variants]


def parse_switches(text: str | None, method: Method) -> tuple[str, ...]:
    """Read a comma list of the method's switches; None means all of them."""
    if text is None:
        return tuple(method.switches)
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in names:
        if name not in method.switches:
            raise InputError(
                f"unknown switch {name!r} for {method.name}{did_you_mean(name, list(method.switches))}; "
                "see 'shipbench list ablations'"
            )
    if not names:
        raise InputError("--switch is empty; name switches, as in --switch no-hierarchy, or leave it out for all")
    return names


def switch_sets(switches: Sequence[str], mode: str) -> list[tuple[str, ...]]:
    """Return the sets of active switches to run, the empty set (the full method) among them.

    ``leave-one-out`` activates one switch at a time. ``add-one-in`` starts with all active and deactivates them one
    after the other in the given order. ``all`` is every combination.
    """
    if mode not in MODES:
        raise InputError(f"unknown mode {mode!r}{did_you_mean(mode, list(MODES))}; choose one of {', '.join(MODES)}")
    if mode == "leave-one-out":
        return [(), *((switch,) for switch in switches)]
    if mode == "add-one-in":
        return [tuple(switches[start:]) for start in range(len(switches) + 1)]
    return [active for size in range(len(switches) + 1) for active in combinations(switches, size)]


def variant_settings(switches: Sequence[str], method: Method) -> dict[str, SettingValue]:
    """Return the settings of the method that activate ``switches``."""
    return {key: value for name in switches for key, value in method.switches[name].items()}


def parse_sweep(text: str) -> list[dict[str, str]]:
    """Read ``KEY=V1,V2,...`` and return the settings of one variant per value."""
    key, separator, values = text.partition("=")
    parts = [value.strip() for value in values.split(",") if value.strip()]
    if not separator or not key.strip() or not parts:
        raise InputError(f"--sweep {text!r} is not KEY=V1,V2,..., as in --sweep prompt_length=5,10,50")
    return [{key.strip(): value} for value in dict.fromkeys(parts)]
