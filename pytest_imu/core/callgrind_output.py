"""What callgrind dumps, as counts: text in, numbers out. Pure.

A dump is a header, the costs of every function, and at its end the sum of them all:

    creator: callgrind-3.19.0
    events: Ir Dr Dw I1mr D1mr D1mw ILmr DLmr DLmw
    summary: 0
    totals: 35827 10163 6116 1390 456 109 1071 414 100

Only `totals` is read: `summary` is 0 once the instrumentation has been switched off. The forms are
those of "Callgrind Format Specification" in valgrind's manual.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

# A last-level reference is a miss of a first level; there is no other way to get there.
PUBLIC_EVENTS: Mapping[str, tuple[str, ...]] = {
    "instructions": ("Ir",),
    "cache-misses": ("ILmr", "DLmr", "DLmw"),
    "cache-references": ("I1mr", "D1mr", "D1mw"),
    "L1-dcache-load-misses": ("D1mr",),
    "L1-icache-load-misses": ("I1mr",),
    "branch-misses": ("Bcm", "Bim"),
}
"""The names that perf users know, and the costs of callgrind that add up to each."""

NOT_SUPPORTED = "not supported by callgrind"
NO_BRANCHES = "not counted: callgrind runs without --branch-sim=yes"
NO_CACHES = "not counted: callgrind runs without --cache-sim=yes"

# At most 20 digits: a 64-bit count has no more.
_NUMBERS = re.compile(r"[0-9]{1,20}(?: [0-9]{1,20})*")
_VERSION = re.compile(r"callgrind-([0-9]{1,4})\.([0-9]{1,4})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dump:
    """What one dump says."""

    version: tuple[int, int]
    """The valgrind that wrote it."""
    costs: Mapping[str, int]
    """The sum over all functions of each cost, named as callgrind names it."""


def parse_dump(text: str) -> Dump:
    """Return the version and the total costs of a dump.

    Raises ValueError that names the line which is missing, or which is not as callgrind writes it.
    """
    lines = text.splitlines()
    version = _VERSION.match(_field(lines, "creator"))
    if version is None:
        message = "the dump's line 'creator:' names no version of callgrind"
        raise ValueError(message)
    names = _field(lines, "events").split()
    totals = _field(lines, "totals")
    if not names or _NUMBERS.fullmatch(totals) is None:
        message = "the dump's line 'totals:' holds no counts"
        raise ValueError(message)
    numbers = [int(number) for number in totals.split()]
    if len(numbers) > len(names):
        message = f"the dump has {len(names)} events and {len(numbers)} totals"
        raise ValueError(message)
    # callgrind leaves out the zeros at the end of a line of costs.
    numbers += [0] * (len(names) - len(numbers))
    return Dump(version=(int(version[1]), int(version[2])), costs=dict(zip(names, numbers, strict=True)))


def _field(lines: list[str], name: str) -> str:
    for line in lines:
        if line.startswith(f"{name}:"):
            return line.partition(":")[2].strip()
    message = f"the dump has no line '{name}:'"
    raise ValueError(message)


def public_count(event: str, costs: Mapping[str, int]) -> int | str:
    """Return the count of an event in perf's name, or the reason why there is none.

    perf's modifier for user space (`:u`) says what callgrind does anyway: it never sees the kernel.
    """
    parts = PUBLIC_EVENTS.get(event.removesuffix(":u"))
    if parts is None:
        return NOT_SUPPORTED
    if not costs.keys() >= set(parts):
        return NO_BRANCHES if event.startswith("branch") else NO_CACHES
    return sum(costs[part] for part in parts)
