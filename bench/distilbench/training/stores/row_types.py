"""How a store keeps the teacher's rows: as they were computed, or in fewer bytes. Pure functions.

float32   as computed, 4 bytes a value
float16   rounded to 11 bits, 2 bytes a value
int8      one scale for the row, its largest absolute value / 127, and steps of it: 1 byte a value and 4 a row

Shapes: B rows, W values each, in X bytes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from distilbench.core.errors import UserError
from distilbench.study.sections.training import RowType

SCALE_BYTES = 4
STEPS = 127


def row_bytes(kind: RowType, width: int) -> int:
    """Bytes of a row of `width` values."""
    return width * np.dtype(kind).itemsize + (SCALE_BYTES if kind == "int8" else 0)


def encode(kind: RowType, values_BW: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Rows as bytes, [B, X]. Raises `UserError` for finite values that are beyond float16."""
    if kind == "int8":
        scales_B1 = np.abs(values_BW).max(axis=1, keepdims=True).astype(np.float32) / np.float32(STEPS)
        steps_BW = np.rint(values_BW / np.where(scales_B1 == 0, 1, scales_B1)).astype(np.int8)
        return np.concatenate([scales_B1.view(np.uint8), steps_BW.view(np.uint8)], axis=1)
    with np.errstate(over="ignore"):
        stored_BW = np.ascontiguousarray(values_BW, dtype=kind)
    if np.isinf(stored_BW).any() and not np.isinf(values_BW).any():
        raise UserError("a value of the teacher is too large for float16; set train.signals to float32 or int8")
    return stored_BW.view(np.uint8)


def decode(kind: RowType, rows_BX: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The values of some rows, [B, W]; of float32, without a copy."""
    if kind == "int8":
        scales_B1 = rows_BX[:, :SCALE_BYTES].view(np.float32)
        values: NDArray[np.float32] = rows_BX[:, SCALE_BYTES:].view(np.int8) * scales_B1
        return values
    return rows_BX.view(kind).astype(np.float32, copy=False)
