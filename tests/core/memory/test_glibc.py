"""What was asked of C's allocator and not freed: exact, whatever it keeps for the thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pytest_imu.core.memory.glibc import cached_blocks

SCRIPT = """if True:
    import json
    from pytest_imu.core.memory.glibc import find_given_out, find_malloc
    malloc, free = find_malloc()
    given_out = find_given_out()

    def change(act):
        before = given_out()
        act()
        return given_out() - before

    def freed(size, count):
        for block in [malloc(size) for _ in range(count)]:
            free(block)
"""


@pytest.mark.needs_mallinfo2
@pytest.mark.parametrize(
    ("size_bytes", "chunk_bytes"), [(1, 32), (100, 112), (1000, 1008), (2000, 2016)]
)
def test_each_block_shows(
    size_bytes: int, chunk_bytes: int, run_python: Callable[..., list[int]]
) -> None:
    """One block more is its chunk more; a few that are freed again are none, though they are kept."""
    found = run_python(
        SCRIPT
        + f"""
    freed({size_bytes}, 3)
    changes = [change(lambda: malloc({size_bytes})) for _ in range(3)]
    changes.append(change(lambda: freed({size_bytes}, 5)))
    print(json.dumps(changes))
    """
    )
    assert [chunk_bytes] * 3 + [0] == found


@pytest.mark.needs_mallinfo2
def test_holes_of_the_next_size(run_python: Callable[..., list[int]]) -> None:
    """Blocks that take such a hole whole go to the next size when they are freed: nothing changes."""
    found = run_python(
        SCRIPT
        + """
    between = [(malloc(232), malloc(2000)) for _ in range(40)]
    for hole, _ in between:
        free(hole)
    malloc(5000)  # sorts the holes by size
    print(json.dumps([change(lambda: freed(216, count)) for count in (1, 5, 10, 1)]))
    """
    )
    assert [0] * 4 == found


@pytest.mark.parametrize(
    ("version", "blocks"), [("2.36", 7), ("2.42.9000", 7), ("2.43", 16), ("3.0", 16)]
)
def test_versions_keep_so_many(version: str, blocks: int) -> None:
    """It keeps more of each size from 2.43 on."""
    assert blocks == cached_blocks(version)


@pytest.mark.needs_mallinfo2
def test_this_version_keeps_as_many(run_python: Callable[..., Any]) -> None:
    """What is kept counts as given out for glibc itself: so many blocks, of all that are freed."""
    found = run_python(
        """if True:
        import json, os
        from pytest_imu.core.memory.glibc import cached_blocks, find_malloc, find_mallinfo
        malloc, free = find_malloc()
        mallinfo = find_mallinfo()
        blocks = [malloc(1000) for _ in range(40)]
        counts = [mallinfo().uordblks]
        for block in blocks:
            free(block)
            counts.append(mallinfo().uordblks)
        kept = sum(before == after for before, after in zip(counts, counts[1:]))
        print(json.dumps([cached_blocks(os.confstr("CS_GNU_LIBC_VERSION")), kept]))
        """
    )
    assert found[0] == found[1]
