"""YAML that others have written, read as plain values and within bounds.

An alias is a few characters that stand for a whole value. Merged or printed aliases of aliases would fill the memory.
"""

from __future__ import annotations

from typing import Any

import yaml

_LONGEST = 4_000_000
_MOST_VALUES = 500_000
# What the constructors of yaml raise for a value that is no date, no number or no switch, besides their own errors.
_ODD = (ValueError, LookupError, AttributeError, TypeError, ArithmeticError)


def parse_yaml(text: str) -> Any:
    """Return the value in a YAML text; raise ``ValueError`` with one clause if there is none or it is too large.

    No object of Python is built: its tag is left out, so that a tuple becomes a list.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"it has more than {_LONGEST} characters")
    try:
        return _Loader(text).get_single_data()
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error
    except _TooManyError as error:
        raise ValueError(f"its aliases stand for more than {_MOST_VALUES} values") from error
    except _ODD as error:
        raise ValueError(f"one of its values cannot be read: {error}") from error


class _TooManyError(Exception):
    """The text stands for too many values."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Counts values as if every alias were written out."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values = 0
        self._size_of: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Return the next node; raise ``_TooManyError`` if there are too many."""
        is_alias = self.check_event(yaml.AliasEvent)
        before = self._values
        node = super().compose_node(parent, index)
        if is_alias:
            # The size of a value is unknown as long as it is read, and one that holds itself never ends.
            self._values += self._size_of.get(id(node), _MOST_VALUES)
        else:
            self._values += 1
            self._size_of[id(node)] = self._values - before
        if self._values > _MOST_VALUES:
            raise _TooManyError
        return node


def _untagged(loader: Any, suffix: str, node: Any) -> Any:
    """Return the value of a node as if it had no tag."""
    match node.id:
        case "mapping":
            return loader.construct_mapping(node, deep=True)
        case "sequence":
            return loader.construct_sequence(node, deep=True)
        case _:
            return node.value


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", _untagged)
