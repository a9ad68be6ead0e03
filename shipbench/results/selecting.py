"""Select runs of a results folder in one word: ``DIR@method=ship,lr=0.01``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shipbench.errors import InputError, did_you_mean
from shipbench.record import is_null
from shipbench.results.lookup import list_runs_command

if TYPE_CHECKING:
    import pandas as pd

_ALIASES = {"commit": "git_commit", "version": "shipbench_version"}
_PREFIXES = ("git_commit", "run_id", "data_fingerprint", "backbone_sha256")
_EXAMPLE = "as in results@method=ship,lr=0.01"


@dataclass(frozen=True)
class Selector:
    """A results folder, and the values that a run must have: columns of the record and settings, by name.

    Alternatives of one value are separated by ``|``. Hashes and commits match by their first characters.
    """

    text: str
    folder: Path
    values: Mapping[str, tuple[str, ...]]

    def select(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the rows that match; raises ``InputError`` for an unknown name, or if no row matches."""
        for name, wanted in self.values.items():
            column = self.column(name, frame.columns)
            matching = [_matches(column, value, wanted) for value in frame[column]]
            # By number: an empty list of truth values would choose no columns instead of no rows.
            frame = frame.iloc[[position for position, matches in enumerate(matching) if matches]]
        if not len(frame):
            raise InputError(f"{self.text}: no run matches; see: {list_runs_command(self.folder)}")
        return frame

    def columns(self, names: Iterable[str]) -> set[str]:
        """Return the columns that the selector restricts."""
        present = list(names)
        return {self.column(name, present) for name in self.values}

    def column(self, name: str, names: Iterable[str]) -> str:
        """Return the column that ``name`` stands for: a column of the record, or a setting without its ``cfg.``."""
        present = set(names)
        for candidate in (_ALIASES.get(name, name), f"cfg.{name}"):
            if candidate in present:
                return candidate
        choices = sorted([*present, *(column.removeprefix("cfg.") for column in present), *_ALIASES])
        raise InputError(
            f"{self.text}: there is no column or setting {name!r}{did_you_mean(name, choices)}; see "
            "'shipbench list runs --json'"
        )


def parse_selector(text: str, default: Path) -> Selector:
    """Read ``DIR``, ``DIR@NAME=VALUE,...`` or ``@NAME=VALUE,...``, whose folder is ``default``.

    Raises ``InputError`` if a part has no ``=`` or a name occurs twice.
    """
    folder, at, rest = (text, "", "") if _is_folder(text) else text.partition("@")
    if at and not rest:
        raise InputError(f"{text}: nothing follows the @; name columns or settings, {_EXAMPLE}")
    values: dict[str, tuple[str, ...]] = {}
    for part in rest.split(",") if rest else ():
        name, equals, value = part.partition("=")
        if not equals or not name.strip():
            raise InputError(f"{text}: {part!r} is not NAME=VALUE, {_EXAMPLE}")
        if name.strip() in values:
            raise InputError(f"{text}: {name.strip()} is given twice; separate alternatives with |")
        values[name.strip()] = tuple(alternative.strip() for alternative in value.split("|"))
    return Selector(text, Path(folder) if folder else default, values)


def _is_folder(text: str) -> bool:
    try:
        return Path(text).is_dir()
    except OSError:
        # A selection of many runs is longer than the name of a file may be.
        return False


def _matches(column: str, value: Any, wanted: Iterable[str]) -> bool:
    text = "" if is_null(value) else str(value)
    return any(_equal(column, text, alternative) for alternative in wanted)


def _equal(column: str, text: str, wanted: str) -> bool:
    if column in _PREFIXES:
        return text.startswith(wanted) if wanted else not text
    if text in ("True", "False"):
        return text.lower() == wanted.lower()
    try:
        return float(text) == float(wanted)
    except ValueError:
        plain = re.sub(r"\s", "", text)
        return plain == re.sub(r"\s", "", wanted)
