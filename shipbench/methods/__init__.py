"""Methods: the interface that each of them has, and how they are found."""

from shipbench.methods.interface import (
    BuildContext,
    Built,
    FrozenFeatures,
    Grid,
    Method,
    SettingValue,
    Stackable,
    Tunable,
)
from shipbench.methods.registry import get_method, list_methods, parse_methods

__all__ = [
    "BuildContext",
    "Built",
    "FrozenFeatures",
    "Grid",
    "Method",
    "SettingValue",
    "Stackable",
    "Tunable",
    "get_method",
    "list_methods",
    "parse_methods",
]
