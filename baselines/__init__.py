"""The methods that papers compare with, registered like a method of any other package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shipbench.runtime.lazy import names_from

if TYPE_CHECKING:
    from .official import OfficialModel, load_official

__all__ = ["OfficialModel", "load_official"]

# Lazy, because listing and planning import the descriptions of the methods without torch.
__getattr__ = names_from(__name__, {"OfficialModel": "official", "load_official": "official"})
