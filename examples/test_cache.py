"""What the order of memory costs: rows of a matrix against its columns.

The matrix is C-ordered: a row's numbers stand side by side, eight to a line of the cache, and each
number of a column is in a line of its own. Run `pytest examples/test_cache.py --imu-simulate`: the
caches are simulated, so that the counts, and these budgets, are the same on every machine.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

Matrix = npt.NDArray[np.float64]

SIDE = 2000
MANY = 200
"""So many rows, or columns, are added up: their misses are many more than those of everything around."""
LINE_NUMBERS = 8
"""A line of the cache has 64 bytes."""
AROUND = 70_000
"""More than what numpy, Python and pytest themselves miss."""


@pytest.fixture(scope="module")
def matrix() -> Matrix:
    """Make a matrix of 30.5 MiB."""
    return np.ones((SIDE, SIDE))


@pytest.mark.max_events("L1-dcache-load-misses", MANY * SIDE // LINE_NUMBERS + AROUND, warmup=1)
def test_rows(matrix: Matrix) -> None:
    """Every eighth number misses the cache: 50,000 misses, and some around them."""
    assert sum(matrix[i].sum() for i in range(MANY)) == MANY * SIDE


@pytest.mark.max_events("L1-dcache-load-misses", MANY * SIDE + AROUND, warmup=1)
def test_columns(matrix: Matrix) -> None:
    """Every number misses the cache: 400,000 misses, five times as many and more."""
    assert sum(matrix[:, i].sum() for i in range(MANY)) == MANY * SIDE
