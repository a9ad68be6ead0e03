"""Methods: the interface that each of them has, and how they are found."""

from shipbench.methods.interface import BuildContext, Built, FrozenFeatures, Method, SettingValue
from shipbench.methods.registry import get_method, list_methods, parse_methods

__all__ = [
    "BuildContext",
    "Built",
    "FrozenFeatures",
    "Method",
    "SettingValue",
    "get_method",
    "list_methods",
    "parse_methods",
]
