"""How stored rows are encoded: worked by hand, and how far they can be off."""

from __future__ import annotations

import numpy as np
import pytest

from distilbench.core.errors import UserError
from distilbench.study.sections.training import RowType
from distilbench.training.stores.row_types import decode, encode, row_bytes

KINDS: tuple[RowType, ...] = ("float32", "float16", "int8")


def test_an_int8_row_is_its_scale_and_its_steps() -> None:
    rows = encode("int8", np.array([[1.27, -0.64, 0.0], [0.0, 0.0, 0.0]], dtype=np.float32))
    assert rows.shape == (2, 7)
    assert rows[0, :4].view(np.float32) == np.float32(0.01)
    assert rows[0, 4:].view(np.int8).tolist() == [127, -64, 0]
    np.testing.assert_allclose(decode("int8", rows), [[1.27, -0.64, 0.0], [0.0, 0.0, 0.0]], rtol=1e-6)


def test_a_float16_row_is_rounded_to_eleven_bits() -> None:
    rows = encode("float16", np.array([[1 / 3, -2049.0]], dtype=np.float32))
    assert rows.tolist() == [[0x55, 0x35, 0x00, 0xE8]]
    assert decode("float16", rows).tolist() == [[1365 / 4096, -2048.0]]


@pytest.mark.parametrize(("kind", "most"), [("float32", 0.0), ("float16", 2**-11), ("int8", 0.5 / 127)])
def test_no_value_is_off_by_more_than_half_a_step(kind: RowType, most: float) -> None:
    values = np.random.default_rng(0).normal(size=(50, 33)).astype(np.float32)
    rows = encode(kind, values)
    assert rows.dtype == np.uint8 and rows.shape == (50, row_bytes(kind, 33))
    off = np.abs(decode(kind, rows) - values)
    unit = np.abs(values) if kind == "float16" else np.abs(values).max(axis=1, keepdims=True)
    assert (off <= most * unit * (1 + 1e-5)).all()
    assert most == 0 or off.max() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_its_neighbours(kind: RowType) -> None:
    scales = np.array([[1], [100], [0.01], [0]], dtype=np.float32)
    values = np.random.default_rng(1).normal(size=(4, 8)).astype(np.float32) * scales
    alone = np.concatenate([encode(kind, values[row : row + 1]) for row in range(4)])
    assert np.array_equal(encode(kind, values), alone)
    assert np.array_equal(decode(kind, alone), np.concatenate([decode(kind, alone[row : row + 1]) for row in range(4)]))


def test_what_float16_cannot_hold_is_refused() -> None:
    with pytest.raises(UserError, match=r"too large for float16; set train\.signals to float32 or int8"):
        encode("float16", np.array([[1.0, 70000.0]], dtype=np.float32))
