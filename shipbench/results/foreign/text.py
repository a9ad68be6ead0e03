"""Read what the formats have in common: numbers, JSON, YAML and the literals of Python."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path
from typing import Any


def read_text(path: Path) -> str:
    """Return the text of a file; bytes that are not UTF-8 are replaced, and a byte-order mark is left out."""
    return path.read_bytes().decode("utf-8-sig", errors="replace")


def number(value: Any) -> float | None:
    """Return a number from a file, or None if ``value`` is none or not finite."""
    try:
        result = float(value)
    except (TypeError, ValueError):
        return None
    return result if math.isfinite(result) and not isinstance(value, bool) else None


def whole(value: Any) -> int | None:
    """Return a whole number from a file, or None if ``value`` is none."""
    result = number(value)
    return None if result is None or not result.is_integer() else int(result)


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
    """Return the mapping in a YAML file, empty if there is no such file; raises ``ValueError`` if it holds none."""
    import yaml

    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is not YAML: {' '.join(str(error).split())}") from error
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
