"""Threads that a library has started by itself, and which library that is: a fork copies none of them.

Python's own threads are no danger to a fork that only runs Python. A library's threads are: it goes on
waiting for them in the child, for ever. Those that begin anew in a child (`pthread_atfork`) are known.
"""

from __future__ import annotations

import bisect
import os
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

BEGIN_ANEW = ("python", "openblas", "scipy_openblas", "omp", "iomp5", "mkl_", "arrow")
"""What starts its threads again in a forked child, or does without, by the beginning of its name."""
STACK_BYTES = 2**16
"""How much of a waiting thread's stack is looked at: it has called next to nothing."""
WORD_BYTES = 8
PATIENCE_S = 0.1
"""How long it is waited for a thread that runs to come to rest; OpenBLAS's run on for some 25 ms."""
LOOK_S = 0.005
SYSTEM_LIBRARIES = ("c", "pthread", "m", "gcc_s", "stdc++", "ld")
"""Their code lies on every stack, and starts no threads of its own."""

_MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) ", re.MULTILINE)
_CODE = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) r-xp \S+ \S+ \d+ +(/.*)$", re.MULTILINE)


def unsafe_threads() -> dict[str, int]:
    """Return the libraries whose threads would be missed in a forked child, and how many each has.

    Read from /proc (Linux); elsewhere nothing is known, and nothing returned. A thread whose library
    cannot be told is "an unknown library"'s.
    """
    try:
        tasks = {int(name) for name in os.listdir("/proc/self/task")}  # noqa: PTH208 - names alone
    except OSError:
        return {}
    tasks -= {thread.native_id for thread in threading.enumerate() if thread.native_id}
    tasks -= {threading.main_thread().native_id or os.getpid(), os.getpid()}
    if not tasks:
        return {}
    code = Code(Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace"))
    owners = Counter(library for task in tasks if (library := _library_of(task, code)) is not None)
    return {library: count for library, count in owners.items() if not library.startswith(BEGIN_ANEW)}


def in_words(threads: Mapping[str, int]) -> str:
    """Return them as a text: "3 of gomp, 1 of an unknown library"."""
    return ", ".join(f"{count} of {library}" for library, count in sorted(threads.items()))


class Code:
    """Where the code of which library lies, by a text of /proc/PID/maps."""

    def __init__(self, maps: str) -> None:
        self._places = sorted(
            (int(start, 16), int(end, 16), library_name(path))
            for start, end, path in _CODE.findall(maps)
        )
        self._starts = [start for start, _, _ in self._places]
        self._mappings = [(int(start, 16), int(end, 16)) for start, end in _MAPPING.findall(maps)]

    def library_at(self, address: int) -> str | None:
        """Return the library whose code stands at an address; None where there is none."""
        place = bisect.bisect_right(self._starts, address) - 1
        if place < 0:
            return None
        _, end, library = self._places[place]
        return library if address < end else None

    def stack_bytes(self, pointer: int) -> int:
        """Return how much there is from a stack's pointer to its end; 0 where it points nowhere."""
        return next((end - pointer for start, end in self._mappings if start <= pointer < end), 0)


def library_name(path: str) -> str:
    """Return a library's short name: "gomp" for /usr/lib/libgomp-a34b3233.so.1.0.0."""
    name = path.rpartition("/")[2].removesuffix(" (deleted)")
    return re.split(r"[-.]", name.removeprefix("lib"))[0] or name


def _library_of(task: int, code: Code) -> str | None:
    """Return the library that started a thread: the outermost on its stack. None if it has ended."""
    try:
        stack_pointer = _stack_pointer(task)
        with Path("/proc/self/mem").open("rb", buffering=0) as memory:
            memory.seek(stack_pointer)
            stack = memory.read(min(STACK_BYTES, code.stack_bytes(stack_pointer)))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):  # it runs on, or may not be read
        return "an unknown library"
    words = (
        int.from_bytes(stack[at : at + WORD_BYTES], sys.byteorder)
        for at in range(0, len(stack) - WORD_BYTES + 1, WORD_BYTES)
    )
    found = [library for word in words if (library := code.library_at(word)) is not None]
    own = [library for library in found if library not in SYSTEM_LIBRARIES]
    return own[-1] if own else "an unknown library"


def _stack_pointer(task: int) -> int:
    """Return where the stack of a thread that waits ends; ValueError where it goes on running."""
    until = time.monotonic() + PATIENCE_S
    while True:
        fields = Path(f"/proc/self/task/{task}/syscall").read_text(encoding="ascii").split()
        if len(fields) > 1:
            return int(fields[-2], 16)
        if time.monotonic() > until:
            raise ValueError(f"thread {task} runs")
        time.sleep(LOOK_S)
