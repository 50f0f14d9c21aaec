"""What numpy operations cost: in place against copies, and the temporary that nobody sees.

Every array here is 64 MiB: 2**23 numbers of 8 bytes. Run `pytest --imu examples` and compare the
column `peak` with what each docstring says.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pytest_imu.recording.fixture import ImuFixture

Array = npt.NDArray[np.float64]

NUMBERS = 2**23
ARRAY_MIB = 64


@pytest.fixture(scope="module", autouse=True)
def warm_numpy() -> None:
    """Use each operation once: its code is read from disk then, and would count for the first test."""
    small = np.ones(100_000)
    np.sqrt(small * 2 + small, out=small)


@pytest.fixture
def a() -> Array:
    """Make an array of 64 MiB; what it costs is the setup's, not the test's."""
    return np.ones(NUMBERS)


@pytest.fixture(scope="module")
def b() -> Array:
    """Make a second array, shared: it is in the setup of the first test that asks for it."""
    return np.full(NUMBERS, 2.0)


@pytest.fixture(scope="module")
def c() -> Array:
    """Make a third array, shared."""
    return np.full(NUMBERS, 3.0)


@pytest.mark.max_peak_mib(ARRAY_MIB + 1)
def test_multiply_into_a_copy(a: Array) -> None:
    """`b = a * 2` makes a second array: peak 64.0."""
    doubled = a * 2
    assert doubled[0] == 2


@pytest.mark.max_peak_mib(1)
def test_multiply_in_place(a: Array) -> None:
    """`a *= 2` needs no array at all: peak 0.0."""
    a *= 2
    assert a[0] == 2


@pytest.mark.max_peak_mib(ARRAY_MIB + 1)
def test_square_root_into_a_copy(a: Array) -> None:
    """`np.sqrt(a)` makes a second array, also where its name is used again: peak 64.0."""
    a = np.sqrt(a)
    assert a[0] == 1


@pytest.mark.max_peak_mib(1)
def test_square_root_in_place(a: Array) -> None:
    """`np.sqrt(a, out=a)` writes where it reads: peak 0.0."""
    np.sqrt(a, out=a)
    assert a[0] == 1


@pytest.mark.max_peak_mib(2 * ARRAY_MIB + 1)
def test_hidden_temporary(a: Array, b: Array, c: Array, imu: ImuFixture) -> None:
    """`d = a * b + c` holds `a * b` while it makes `d`: peak 128.0, of which 64.0 are kept.

    Written as a call here, because numpy sees through the plain expression: the next test.
    """
    with imu.measure("d = a * b + c") as m:
        d = np.add(a * b, c)
    assert d[0] == 5
    assert m.delta_bytes is not None
    assert round(m.delta_bytes / 2**20) == ARRAY_MIB


@pytest.mark.max_peak_mib(2 * ARRAY_MIB + 1)
def test_temporary_that_numpy_reuses(a: Array, b: Array, c: Array) -> None:
    """The plain `d = a * b + c` writes the sum over the temporary: peak 64.0 on Linux with glibc.

    numpy does so since 1.13 where it can see that nobody else holds the temporary; elsewhere 128.0.
    """
    d = a * b + c
    assert d[0] == 5


@pytest.mark.max_peak_mib(ARRAY_MIB + 1)
def test_no_hidden_temporary(a: Array, b: Array, c: Array, imu: ImuFixture) -> None:
    """`d = a * b; d += c` gives the same numbers without the temporary: peak 64.0."""
    with imu.measure("d = a * b; d += c") as m:
        d = a * b
        d += c
    assert d[0] == 5
    assert m.delta_bytes is not None
    assert round(m.delta_bytes / 2**20) == ARRAY_MIB


@pytest.mark.max_peak_mib(45)
def test_a_million_numbers_in_a_list() -> None:
    """A list of a million ints: 7.6 for the list, 30.5 for the ints, peak about 38.2."""
    numbers = list(range(1000, 1_001_000))
    assert len(numbers) == 1_000_000


@pytest.mark.max_peak_mib(9)
def test_a_million_numbers_in_an_array() -> None:
    """The same numbers in an array of 8 bytes each: peak 7.6."""
    numbers = np.arange(1000, 1_001_000)
    assert len(numbers) == 1_000_000


@pytest.mark.max_peak_mib(1)
def test_memory_that_nobody_touched() -> None:
    """`np.zeros` only reserves its 64 MiB: what is not written to is not resident, peak 0.0."""
    untouched: Any = np.zeros(NUMBERS)
    assert untouched.nbytes == ARRAY_MIB * 2**20
