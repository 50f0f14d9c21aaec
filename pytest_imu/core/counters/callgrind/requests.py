"""Requests to the valgrind around this process, made as its own header valgrind.h makes them.

A request is a handful of instructions that change nothing on a processor, and that valgrind, which
translates every instruction before it runs, takes as a call. It takes microseconds and no other
program, so what is counted of it is the same every time.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Mapping

from pytest_imu.core.counters.source import CannotCountError

PROCEDURES: Mapping[str, str] = {
    "x86_64": (
        "48 89 f8"  # mov rax, rdi     the request: the procedure's first argument
        "48 89 f2"  # mov rdx, rsi     the answer where nobody answers: its second
        "48 c1 c7 03  48 c1 c7 0d  48 c1 c7 3d  48 c1 c7 33"  # rol rdi by 3, 13, 61, 51: twice round
        "48 87 db"  # xchg rbx, rbx    valgrind puts the answer into rdx
        "48 89 d0"  # mov rax, rdx
        "c3"  # ret
    ),
    "aarch64": (
        "e4 03 00 aa"  # mov x4, x0        the request
        "e3 03 01 aa"  # mov x3, x1        the answer where nobody answers
        "8c 0d cc 93  8c 35 cc 93  8c cd cc 93  8c f5 cc 93"  # ror x12 by 3, 13, 51, 61: twice round
        "4a 01 0a aa"  # orr x10, x10, x10 valgrind puts the answer into x3
        "e0 03 03 aa"  # mov x0, x3
        "c0 03 5f d6"  # ret
    ),
}
"""The procedure that makes a request, for each 64-bit processor; from valgrind.h."""

_CALLGRIND = 0x43540000  # "CT", as callgrind.h numbers its own
ORDERS: Mapping[str, int] = {
    "dump": _CALLGRIND + 0,
    "zero": _CALLGRIND + 1,
    "start": _CALLGRIND + 4,
    "stop": _CALLGRIND + 5,
}
"""What callgrind can be told to do: to write its counts into a file, to forget them, to count or not."""
WORDS = 6
"""A request is its number and five arguments, of which these take none."""


Sender = Callable[..., None]
"""Gives orders, each a text, to the valgrind around this process, and returns when they were obeyed."""


class Requests:
    """Gives orders to the callgrind around this process; each is obeyed before the call returns."""

    def __init__(self, *, machine: str | None = None) -> None:
        # Here and not above: 4 ms, and a Python may have been built without it.
        import ctypes

        machine = os.uname().machine if machine is None else machine
        code = PROCEDURES.get(machine)
        if code is None or ctypes.sizeof(ctypes.c_void_p) != ctypes.sizeof(ctypes.c_uint64):
            raise CannotCountError(
                f"how to make a request of valgrind is not known for this {machine} process"
            )
        # Writable and executable: valgrind itself does not run where that is refused.
        self._page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._page.write(bytes.fromhex(code))
        # The procedure keeps the lock of the interpreter: no other thread gets into the counted part.
        procedure = ctypes.PYFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64)
        self._call = procedure(ctypes.addressof(ctypes.c_char.from_buffer(self._page)))
        self._requests = {order: (ctypes.c_uint64 * WORDS)(number) for order, number in ORDERS.items()}

    def __call__(self, *orders: str) -> None:
        """Give the orders, one after the other."""
        for order in orders:
            self._call(self._requests[order], 0)
