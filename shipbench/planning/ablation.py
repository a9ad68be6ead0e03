"""The variants of an ablation study, and of a sweep over one setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, combinations, product
from typing import Any

from shipbench.errors import InputError, did_you_mean, unknown
from shipbench.methods import Method, SettingValue
from shipbench.planning.grid import overrides_by_method, refuse_fixed, refuse_idle
from shipbench.settings import comma_list

MODES = ("leave-one-out", "add-one-in", "all")


def make_variants(
    method: Method,
    values: Mapping[str, Any],
    switch: str | None,
    mode: str,
    sweeps: Sequence[str],
    *,
    multiply: bool = False,
) -> list[dict[str, Any]]:
    """Return the overrides of every variant of ``method``: ``values``, which hold for all, and those that vary.

    ``sweeps`` are ``KEY=V1,V2`` texts. With a sweep, switches are varied only if ``switch`` names some. Each sweep, and
    the set of switches, is varied by itself; with ``multiply``, every value of one is combined with every value of all
    others, and a switch takes precedence over a swept value. Raises ``InputError`` for unknown names, for a key that is
    both swept and in ``values``, for a key that is swept twice in a product, and for a ``mode`` or a product that has
    nothing to work on.
    """
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    if sweeps and switch is None and mode != MODES[0]:
        raise InputError(f"--mode {mode} is for switches, and a sweep varies none; name some with --switch")
    if multiply and not sweeps:
        raise InputError("--product combines sweeps; give at least one with --sweep, or --mode all for every switch")
    common = overrides_by_method([method], values)[method.name]
    axes = [_sweep_axis(text, method, common) for text in sweeps]
    if multiply:
        _refuse_repeated([axis[0] for axis in axes])
    if not axes or switch is not None:
        axes.append([variant_settings(names, method) for names in switch_sets(parse_switches(switch, method), mode)])
    combined = product(*axes) if multiply else ((variant,) for axis in axes for variant in axis)
    return [dict(chain(common.items(), *(part.items() for part in parts))) for parts in combined]


def _sweep_axis(text: str, method: Method, common: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the overrides of each value of a sweep; raise ``InputError`` if its key is in ``common``."""
    axis = [overrides_by_method([method], variant, "--sweep")[method.name] for variant in parse_sweep(text)]
    refuse_fixed(axis[0], common, "--sweep")
    return axis


def _refuse_repeated(axes: Sequence[Mapping[str, Any]]) -> None:
    keys = [key for axis in axes for key in axis]
    for key in keys:
        if keys.count(key) > 1:
            raise InputError(f"--product: {key} is swept twice; give all of its values in one --sweep")


def parse_switches(text: str | None, method: Method) -> tuple[str, ...]:
    """Read a comma list of the method's switches; None means all but the optional ones.

    Raises ``InputError`` for an unknown switch, and if there is none.
    """
    if text is None:
        return _default_switches(method)
    names = tuple(comma_list(text))
    if not names:
        raise InputError("--switch is empty; name switches, as in --switch no-hierarchy, or leave it out for all")
    for name in names:
        if name not in method.all_switches:
            raise InputError(
                f"unknown switch {name!r} for {method.name}{did_you_mean(name, method.all_switches)}; "
                f"see 'shipbench list ablations --method {method.name}'"
            )
    return names


def _default_switches(method: Method) -> tuple[str, ...]:
    if not method.switches:
        raise InputError(
            f"{method.name} has no ablation switches; vary its settings, as in --sweep lr=0.001,0.01, "
            "or choose another method with --method"
        )
    return tuple(method.switches)


def switch_sets(switches: Sequence[str], mode: str) -> list[tuple[str, ...]]:
    """Return the sets of active switches to run, the empty set (the full method) among them.

    ``leave-one-out`` activates one switch at a time. ``add-one-in`` starts with all active and deactivates them one
    after the other in the given order. ``all`` is every combination.
    """
    if mode == "leave-one-out":
        return [(), *((switch,) for switch in switches)]
    if mode == "add-one-in":
        return [tuple(switches[start:]) for start in range(len(switches) + 1)]
    return [active for size in range(len(switches) + 1) for active in combinations(switches, size)]


def variant_settings(switches: Sequence[str], method: Method) -> dict[str, SettingValue]:
    """Return the settings of the method that activate ``switches``."""
    return {key: value for name in switches for key, value in method.all_switches[name].items()}


def parse_sweep(text: str) -> list[dict[str, str]]:
    """Read ``KEY=V1,V2,...`` and return the settings of one variant per value."""
    key, _, listed = text.partition("=")
    values = comma_list(listed)
    if not key.strip() or not values:
        raise InputError(f"--sweep {text!r} is not KEY=V1,V2,..., as in --sweep prompt_length=5,10,50")
    refuse_idle([key.strip()], "--sweep")
    return [{key.strip(): value} for value in values]
