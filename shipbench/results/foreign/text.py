"""Read what the formats have in common: numbers, JSON, YAML and the literals of Python."""

from __future__ import annotations

import ast
import codecs
import json
import math
import re
import stat
from pathlib import Path
from typing import Any

# The largest logs of these harnesses have a few megabytes.
_MOST_BYTES = 200_000_000
# From here on, floats leave out whole numbers.
_INEXACT = 2**53
# What a terminal reads as a colour or as a movement of its cursor.
_TERMINAL_CODE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def read_text(path: Path) -> str:
    """Return the text of a file with ``\\n`` at the end of each line, without a byte-order mark and terminal colours.

    The mark tells UTF-16 from UTF-8; bytes that are no text are replaced. Raises ``ValueError`` unless it is a regular
    file of at most 200 MB.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file")
    if status.st_size > _MOST_BYTES:
        raise ValueError(f"it has {status.st_size / 1e6:.0f} MB, more than {_MOST_BYTES / 1e6:.0f}")
    content = path.read_bytes()
    is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    text = content.decode("utf-16" if is_utf16 else "utf-8-sig", errors="replace")
    return _TERMINAL_CODE.sub("", text).replace("\r\n", "\n").replace("\r", "\n")


def folders_above(path: Path, count: int) -> tuple[str, ...]:
    """Return the names of the ``count`` folders above a file, outermost first; those that it lacks are empty."""
    return (*[""] * count, *path.resolve().parts[:-1])[-count:]


def number(value: Any) -> float | None:
    """Return a number from a file, or None if ``value`` is none or not finite."""
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return result if math.isfinite(result) and not isinstance(value, bool) else None


def whole(value: Any) -> int | None:
    """Return a whole number from a file, or None if ``value`` is none or beyond what floats hold exactly."""
    result = number(value)
    return int(result) if result is not None and result.is_integer() and abs(result) < _INEXACT else None


def percent(value: Any, where: str) -> float | None:
    """Return an accuracy in percent as a fraction, None if it is absent; raises ``ValueError`` outside [0, 100]."""
    result = number(value)
    if result is not None and not 0 <= result <= 100:
        raise ValueError(f"{where} is {result:g}, not a percentage")
    return None if result is None else result / 100


def fraction(value: Any, where: str) -> float | None:
    """Return an accuracy that is written as a fraction, None if it is absent; raises ``ValueError`` outside [0, 1]."""
    result = number(value)
    if result is not None and not 0 <= result <= 1:
        raise ValueError(f"{where} is {result:g}, not a fraction from 0 to 1")
    return result


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; raises ``ValueError`` if it holds none."""
    content = json.loads(read_text(path))
    if not isinstance(content, dict):
        raise ValueError("it holds no JSON object")
    return content


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, empty if there is no such file; raises ``ValueError`` if it holds none.

    No object of Python is built: its tag is left out, so that a tuple becomes a list.
    """
    # Imported late: most results come without YAML.
    from shipbench.runtime.yaml_text import parse_yaml

    if not path.is_file():
        return {}
    text = read_text(path)
    try:
        content = parse_yaml(text)
    except ValueError as error:
        raise ValueError(f"{path.name} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds no settings")
    return content


def call_arguments(text: str) -> dict[str, Any]:
    """Return the literal keyword arguments in the text of a call, such as ``Namespace(seed=42, lr=0.1)``."""
    call = ast.parse(text.strip(), mode="eval").body
    if not isinstance(call, ast.Call):
        raise ValueError(f"{text[:40]!r} is not a list of arguments")
    arguments = {}
    for keyword in call.keywords:
        if keyword.arg is not None and isinstance(keyword.value, (ast.Constant, ast.UnaryOp)):
            arguments[keyword.arg] = ast.literal_eval(keyword.value)
    return arguments
