"""Bodies whose memory is known by construction: what they touch is counted, not measured.

Both the tests and `benchmarks/accuracy.py` run them. A body gets a list, its *hold*: what stands in it
outlives the window, and what it held before, `before` has put there.
"""

from __future__ import annotations

import asyncio
import functools
import mmap
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy import typing as npt

MIB = 2**20
BOUND_MIB = 0.5
"""How far the kernel's numbers may be off."""
BLOCK_BYTES = MIB // 16
BYTES_OF_A_BLOCK = BLOCK_BYTES - 64
"""The length of a bytes object that fills a block with its header and the allocator's."""
INT_BYTES = 32
"""What an int takes: 28 bytes, in steps of 16."""
POINTER_BYTES = 8
INTS = 1_000_000
FIRST_OWN_INT = 257
"""The ints under this are always there."""
ARRAY_MIB = 40
"""Above 32 MiB glibc never makes it on a heap, which may hold room from before."""
CHILD_TOUCHES = f"len(b'x' * {100 * MIB})"

Hold = list[object]
Array = npt.NDArray[np.uint8]
Body = Callable[[Hold], object]


def nothing(_hold: Hold) -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A body, and the truth about it in MiB."""

    name: str
    run: Body
    peak_mib: float
    """The highest RSS inside the window, above the RSS at its start."""
    delta_mib: float
    """The RSS at the window's end, above the one at its start."""
    why: str
    """What it is about, in a few words."""
    before: Body = nothing
    """What is done before the window opens."""
    bound_mib: float = BOUND_MIB


def touched(mib: int) -> Array:
    """Return memory that is touched MiB by MiB: other threads may run in between."""
    memory = np.empty(mib * MIB, np.uint8)
    for start in range(0, memory.size, MIB):
        memory[start : start + MIB] = 1
    return memory


def spike(_hold: Hold, *, mib: int = 100, seconds: float = 0.0) -> None:
    """Hold memory for a moment."""
    held = touched(mib)
    time.sleep(seconds)
    del held


def spike_in_c(_hold: Hold) -> None:
    """Make and drop 100 MiB in one C function, which never lets another thread run."""
    len(b"x" * (100 * MIB))


def memory_map(_hold: Hold) -> None:
    """Touch a mapping that no allocator knows of, as C libraries make them too."""
    # The kernel counts shared memory apart, in batches of its own.
    with mmap.mmap(-1, 100 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for start in range(0, len(memory), mmap.PAGESIZE):
            memory[start] = 1


def untouched(hold: Hold) -> None:
    """Ask for 300 MiB of zeros, in three ways, and touch none of it."""
    hold += [bytes(100 * MIB), np.zeros(100 * MIB, np.uint8), np.empty(100 * MIB, np.uint8)]


def temporaries(_hold: Hold) -> None:
    """Add two products: the operand, both products and the sum are there at once."""
    array = np.ones(ARRAY_MIB * MIB // 8)
    # Called by name: the operators would write the sum over one of the products.
    np.add(np.multiply(array, 2.0), np.multiply(array, 3.0))


def ints(hold: Hold, *, count: int) -> None:
    """Keep a list of ints. Done before, with a few, it fills the room that imports have left free."""
    hold.append(list(range(FIRST_OWN_INT, FIRST_OWN_INT + count)))


def ints_mib(count: int) -> float:
    """Return what so many ints take, and the list of them."""
    return count * INT_BYTES / MIB + pointers_mib(count)


def pointers_mib(count: int) -> float:
    """Return what a list of this length takes, without what is in it."""
    return (sys.getsizeof([]) + count * POINTER_BYTES) / MIB


def one_int_in_100(hold: Hold) -> None:
    """Drop 99 of 100 ints: of every page that they lie on, one is still alive."""
    numbers = list(range(FIRST_OWN_INT, FIRST_OWN_INT + INTS))
    hold.append(numbers[::100])


def every_second_small_block(hold: Hold) -> None:
    """Make 100 MiB in small blocks and drop every second one."""
    made = [b"x" * BYTES_OF_A_BLOCK for _ in range(1600)]
    hold.append(made[::2])


def keep(hold: Hold, *, mib: int = 100) -> None:
    """Keep memory."""
    hold.append(touched(mib))


def release(hold: Hold) -> None:
    """Drop what was held before."""
    hold.clear()


def exchange(hold: Hold) -> None:
    """Drop the 60 MiB that were held before, and keep 100."""
    hold.clear()
    keep(hold)


def in_threads(_hold: Hold, *, threads: int, mib: int) -> None:
    """Let each of these threads hold memory, all at once."""
    together = threading.Barrier(threads)

    def hold_together() -> None:
        held = touched(mib)
        together.wait()
        del held

    workers = [threading.Thread(target=hold_together) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def in_tasks(_hold: Hold, *, tasks: int, mib: int) -> None:
    """Let each of these tasks hold memory, all at once."""

    async def hold_together(together: asyncio.Barrier) -> None:
        held = touched(mib)
        await together.wait()
        del held

    async def main() -> None:
        together = asyncio.Barrier(tasks)
        await asyncio.gather(*(hold_together(together) for _ in range(tasks)))

    asyncio.run(main())


def forked_child(_hold: Hold, *, mib: int = 100) -> None:
    """Let a forked child touch memory, which is not this process's."""
    with warnings.catch_warnings():
        # Python 3.12 and newer warn of threads, those of an array library among them.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        touched(mib)
        os._exit(0)
    os.waitpid(child, 0)


def spawned_child(_hold: Hold) -> None:
    """Let a program of its own touch memory."""
    subprocess.run([sys.executable, "-S", "-c", CHILD_TOUCHES], check=True)


def warm_up() -> None:
    """Use once, with next to no memory, whatever loads code at its first use; call it before all."""
    hold: Hold = []
    spike(hold, mib=1)
    in_threads(hold, threads=2, mib=0)
    in_tasks(hold, tasks=2, mib=0)
    np.add(np.multiply(np.ones(8), 2.0), np.multiply(np.ones(8), 3.0))
    subprocess.run([sys.executable, "-S", "-c", ""], check=True)
    if hasattr(os, "fork"):
        forked_child(hold, mib=0)


def known(
    name: str, why: str, run: Body, peak_mib: float, *, delta_mib: float = 0, before: Body = nothing
) -> Case:
    """Return a case."""
    return Case(name=name, why=why, run=run, peak_mib=peak_mib, delta_mib=delta_mib, before=before)


def with_sizes(body: Callable[..., object], **sizes: float) -> Body:
    """Return a body that has its sizes."""
    return functools.partial(body, **sizes)


FILLS_ROOM = with_sizes(ints, count=100_000)
INTS_MIB = ints_mib(INTS)
KEPT_INTS_MIB = pointers_mib(INTS // 100)
PINNED_MIB = INTS * INT_BYTES / MIB + KEPT_INTS_MIB
HALF_MIB = 800 * (BLOCK_BYTES + mmap.PAGESIZE) / MIB
"""Each block that is kept reaches into one page more."""

CASES = (
    known("spike_0_ms", "100 MiB in pieces, held 0 ms", spike, 100),
    known("spike_1_ms", "100 MiB in pieces, held 1 ms", with_sizes(spike, seconds=0.001), 100),
    known("spike_10_ms", "100 MiB in pieces, held 10 ms", with_sizes(spike, seconds=0.01), 100),
    known("spike_100_ms", "100 MiB in pieces, held 100 ms", with_sizes(spike, seconds=0.1), 100),
    known("c_call", "100 MiB inside one C call that keeps the GIL", spike_in_c, 100),
    known(
        "second_spike", "100 MiB after an earlier 150 MiB", spike, 100, before=with_sizes(spike, mib=150)
    ),
    known("memory_map", "100 MiB in a memory map", memory_map, 100),
    known("untouched", "300 MiB of zeros, never touched", untouched, 0),
    known("temporaries", "four arrays of 40 MiB in one numpy expression", temporaries, 4 * ARRAY_MIB),
    known("keep", "100 MiB kept", keep, 100, delta_mib=100),
    known("release", "100 MiB from before, released", release, 0, delta_mib=-100, before=keep),
    known(
        "exchange",
        "60 MiB from before released, then 100 MiB kept",
        exchange,
        40,
        delta_mib=40,
        before=with_sizes(keep, mib=60),
    ),
    known(
        "held_before",
        "20 MiB while 100 MiB from before stay",
        with_sizes(spike, mib=20),
        20,
        before=keep,
    ),
    known("thread", "100 MiB in another thread", with_sizes(in_threads, threads=1, mib=100), 100),
    known(
        "two_threads",
        "50 MiB in each of two threads at once",
        with_sizes(in_threads, threads=2, mib=50),
        100,
    ),
    known(
        "two_tasks",
        "50 MiB in each of two asyncio tasks at once",
        with_sizes(in_tasks, tasks=2, mib=50),
        100,
    ),
    known("forked_child", "100 MiB in a forked child", forked_child, 0),
    known("spawned_child", "100 MiB in a new program", spawned_child, 0),
    known(
        "half_the_blocks",
        "100 MiB in blocks of 64 KiB, every second one kept",
        every_second_small_block,
        100,
        delta_mib=HALF_MIB,
    ),
    known(
        "a_million_ints",
        "a list of a million ints, kept",
        with_sizes(ints, count=INTS),
        INTS_MIB,
        delta_mib=INTS_MIB,
        before=FILLS_ROOM,
    ),
    known(
        "one_int_in_100",
        "a million ints, one in a hundred kept: their pages stay",
        one_int_in_100,
        INTS_MIB + KEPT_INTS_MIB,
        delta_mib=PINNED_MIB,
        before=FILLS_ROOM,
    ),
)
