"""The formats by name."""

from __future__ import annotations

from shipbench.errors import InputError, unknown
from shipbench.results.foreign.adapter_plus import ADAPTER_PLUS
from shipbench.results.foreign.noah import NOAH
from shipbench.results.foreign.osu import OSU
from shipbench.results.foreign.plain_csv import CSV
from shipbench.results.foreign.result import Harness
from shipbench.results.foreign.ship import SHIP
from shipbench.results.foreign.timm import TIMM
from shipbench.results.foreign.vpetl import VPETL
from shipbench.results.foreign.vpt import VPT

HARNESSES: tuple[Harness, ...] = (OSU, VPT, NOAH, SHIP, ADAPTER_PLUS, VPETL, TIMM, CSV)
_REFUSED = {"peft": "the method comparison of peft is about language and image generation, not classification"}


def harness_names() -> list[str]:
    """Return the names of all formats."""
    return [harness.name for harness in HARNESSES]


def get_harness(name: str) -> Harness:
    """Return a format by name; raises ``InputError`` for an unknown one, and for one that is refused."""
    plain = name.lower().replace("_", "-").replace("v-petl", "vpetl")
    for harness in HARNESSES:
        if harness.name == plain:
            return harness
    if plain in _REFUSED:
        raise InputError(f"{name} cannot be imported: {_REFUSED[plain]}")
    raise unknown("format", name, harness_names())
