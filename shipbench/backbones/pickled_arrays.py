"""NumPy arrays in pickled files, built from checked parts.

A pickle may set the flags and the fields of a dtype at will, and NumPy believes them: it would take bytes of the file
for addresses of objects. Here a dtype is a type code and a byte order, and an array or a number takes bytes as values.
"""

from __future__ import annotations

from pickle import UnpicklingError
from typing import Any

import numpy as np

_KINDS = "biufcSUVO"


class PickledDtype:
    """A dtype as a pickle describes it."""

    def __init__(self, code: Any, *_: Any) -> None:
        dtype = np.dtype(code) if isinstance(code, str) else None
        if dtype is None or dtype.kind not in _KINDS or dtype.names is not None or dtype.subdtype is not None:
            raise UnpicklingError(f"{code!r} is not a dtype of plain values")
        self.dtype = dtype

    def __setstate__(self, state: Any) -> None:
        """Take the byte order from a dtype's state; raise ``UnpicklingError`` for one with fields."""
        _, order, subarray, names, fields, *_ = state
        if not (subarray is names is fields is None):
            raise UnpicklingError("a dtype has fields")
        self.dtype = self.dtype.newbyteorder(order)


class PickledArray(np.ndarray[Any, np.dtype[Any]]):
    """An array as a pickle describes it."""

    def __new__(cls, *_: Any) -> PickledArray:
        """Raise ``UnpicklingError``: NumPy would place the array on memory that the caller names."""
        raise UnpicklingError("an array is not built from its state")

    def __setstate__(self, state: Any, /) -> None:
        """Take shape, dtype and values from an array's state."""
        version, shape, dtype, fortran, values = state
        super().__setstate__((version, shape, _checked(dtype), fortran, values))


def pickled_scalar(dtype: Any, value: Any = b"") -> Any:
    """Return the number or text of a dtype that bytes hold."""
    checked = _checked(dtype)
    if checked.hasobject or not isinstance(value, bytes):
        raise UnpicklingError("a number is not stored as bytes")
    return np.ndarray((), checked, value)[()]


def _checked(dtype: Any) -> np.dtype[Any]:
    if not isinstance(dtype, PickledDtype):
        raise UnpicklingError(f"{type(dtype).__name__} is not a dtype")
    return dtype.dtype


reconstruct = np.zeros(0).__reduce__()[0]
"""NumPy's function that makes the empty array of a class, whose state follows."""
