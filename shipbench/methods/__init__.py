"""The interface of a method, and the registry of installed methods."""

from shipbench.methods.interface import (
    BuildContext,
    Built,
    FrozenFeatures,
    Grid,
    Method,
    NoSettings,
    SettingValue,
    Stackable,
    Switches,
)
from shipbench.methods.registry import find_method, get_method, list_methods, parse_methods

__all__ = [
    "BuildContext",
    "Built",
    "FrozenFeatures",
    "Grid",
    "Method",
    "NoSettings",
    "SettingValue",
    "Stackable",
    "Switches",
    "find_method",
    "get_method",
    "list_methods",
    "parse_methods",
]
