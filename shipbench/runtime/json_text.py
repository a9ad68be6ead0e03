"""JSON that others have written, read as plain values."""

from __future__ import annotations

import json
from typing import Any


def parse_json(text: str | bytes) -> Any:
    """Return the value in a JSON text; raise ``ValueError`` with one clause if there is none or it nests too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("its values are nested too deeply") from error
