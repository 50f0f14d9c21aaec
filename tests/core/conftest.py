"""What all tests of this folder have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from steadying import collecting_only_new


@pytest.fixture(autouse=True, scope="module")
def collecting_only_what_is_new() -> Iterator[None]:
    """Let collections leave out what pytest, its plugins and numpy have made: each is 0.06 s else."""
    with collecting_only_new():
        yield
