"""The interface of a method, and the registry of installed methods."""

from shipbench.methods.adapted import AdaptedMethod
from shipbench.methods.interface import (
    SMALL_GRID,
    BuildContext,
    Built,
    FrozenFeatures,
    Grid,
    Learned,
    Mergeable,
    Method,
    MethodFamily,
    NoSettings,
    SettingValue,
    Stackable,
    Switches,
    as_frozen_features,
)
from shipbench.methods.registry import (
    find_method,
    get_method,
    list_methods,
    method_names,
    package_of,
    parse_methods,
    releases_of,
)

__all__ = [
    "SMALL_GRID",
    "AdaptedMethod",
    "BuildContext",
    "Built",
    "FrozenFeatures",
    "Grid",
    "Learned",
    "Mergeable",
    "Method",
    "MethodFamily",
    "NoSettings",
    "SettingValue",
    "Stackable",
    "Switches",
    "as_frozen_features",
    "find_method",
    "get_method",
    "list_methods",
    "method_names",
    "package_of",
    "parse_methods",
    "releases_of",
]
