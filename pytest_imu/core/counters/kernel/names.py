"""What the kernel knows events by: perf's names, as the numbers that `perf_event_open` takes.

The layout of `struct perf_event_attr` and all numbers are those of linux/perf_event.h.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

DEVICES = Path("/sys/bus/event_source/devices")
ATTR_BYTES = 112
"""Of kernel 4.1 and newer; what came later is not needed."""
READ_FORMAT = 1 | 2 | 8
"""Time enabled, time running, and all events of the group in one read."""
DISABLED, INHERIT, EXCLUDE_USER, EXCLUDE_KERNEL, EXCLUDE_HV = (1 << bit for bit in (0, 1, 4, 5, 6))
INHERIT_THREAD = 1 << 35
"""Threads are counted and child processes are not; since kernel 5.13."""

TYPE_HARDWARE, TYPE_SOFTWARE, TYPE_CACHE = 0, 1, 3
PMU_SHIFT = 32
"""In a hardware event's number, these bits and up name one kind of core of a hybrid CPU."""

HARDWARE: Mapping[str, int] = {
    "cycles": 0,
    "cpu-cycles": 0,
    "instructions": 1,
    "cache-references": 2,
    "cache-misses": 3,
    "branches": 4,
    "branch-instructions": 4,
    "branch-misses": 5,
    "bus-cycles": 6,
    "stalled-cycles-frontend": 7,
    "stalled-cycles-backend": 8,
    "ref-cycles": 9,
}
SOFTWARE: Mapping[str, int] = {
    "cpu-clock": 0,
    "task-clock": 1,
    "page-faults": 2,
    "faults": 2,
    "context-switches": 3,
    "cs": 3,
    "cpu-migrations": 4,
    "migrations": 4,
    "minor-faults": 5,
    "major-faults": 6,
    "alignment-faults": 7,
    "emulation-faults": 8,
}
CLOCKS = frozenset({0, 1})
"""The software events that count nanoseconds, which perf prints as milliseconds."""
IN_THE_KERNEL = frozenset({3, 4})
"""The software events that happen inside the kernel only: where it is left out they are always 0."""

_CACHES = ("L1-dcache", "L1-icache", "LLC", "dTLB", "iTLB", "branch", "node")
_ACCESSES = ("loads", "load-misses", "stores", "store-misses", "prefetches", "prefetch-misses")
CACHE_EVENTS: Mapping[str, int] = {
    f"{cache}-{access}": number | kind // 2 << 8 | kind % 2 << 16
    for number, cache in enumerate(_CACHES)
    for kind, access in enumerate(_ACCESSES)
}

_NAME = re.compile(
    r"(?:(?P<pmu>[A-Za-z0-9_]+)/(?P<terms>[^/:]+)/:?(?P<outer>[uk]*)"
    r"|(?P<base>[^/:]+)(?::(?P<inner>[uk]+))?)"
)
_FIELD = re.compile(r"(config[12]?):([0-9]+(?:-[0-9]+)?(?:,[0-9]+(?:-[0-9]+)?)*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Attr:
    """One event, as the kernel is asked for it."""

    type: int
    config: int = 0
    config1: int = 0
    config2: int = 0
    flags: int = 0
    """What is left out: some of EXCLUDE_USER, EXCLUDE_KERNEL and EXCLUDE_HV."""

    @property
    def is_software(self) -> bool:
        """Whether the kernel counts it without any hardware."""
        return self.type == TYPE_SOFTWARE

    @property
    def is_clock(self) -> bool:
        """Whether it counts nanoseconds."""
        return self.is_software and self.config in CLOCKS

    @property
    def is_user_only(self) -> bool:
        """Whether what the kernel does for the process is left out."""
        return bool(self.flags & EXCLUDE_KERNEL)

    @property
    def is_always_0(self) -> bool:
        """Whether nothing is left to be counted."""
        return self.is_user_only and self.is_software and self.config in IN_THE_KERNEL

    @property
    def group(self) -> int:
        """What it may be counted together with: the events with the same number."""
        pmu = self.config >> PMU_SHIFT if self.type in (TYPE_HARDWARE, TYPE_CACHE) else 0
        return pmu or (self.type if self.is_software or self.type > TYPE_CACHE else TYPE_HARDWARE)

    def in_user_space(self) -> Attr:
        """Return it as those may count it who may not look into the kernel."""
        return replace(self, flags=self.flags | EXCLUDE_KERNEL | EXCLUDE_HV)

    def to_bytes(self, flags: int) -> bytes:
        """Return the kernel's `struct perf_event_attr`, with these flags besides its own."""
        head = struct.pack(
            "<IIQQQQQ", self.type, ATTR_BYTES, self.config, 0, 0, READ_FORMAT, self.flags | flags
        )
        return (head + struct.pack("<IIQQ", 0, 0, self.config1, self.config2)).ljust(ATTR_BYTES, b"\0")


def attrs_of(event: str, *, devices: Path = DEVICES) -> tuple[Attr, ...]:
    """Return what adds up to an event, by the name that perf uses; empty where the kernel has none.

    It is one, but on a hybrid CPU one for each kind of core.
    """
    match = _NAME.fullmatch(event)
    if match is None:
        return ()
    flags = _flags((match["outer"] or "") + (match["inner"] or ""))
    if match["pmu"] is not None:
        found = _of_device(devices / match["pmu"], match["terms"])
        return () if found is None else (replace(found, flags=flags),)
    return tuple(replace(attr, flags=flags) for attr in _named(match["base"], devices))


def _flags(modifiers: str) -> int:
    if not modifiers:
        return 0
    return EXCLUDE_HV | ("u" not in modifiers) * EXCLUDE_USER | ("k" not in modifiers) * EXCLUDE_KERNEL


def _named(name: str, devices: Path) -> tuple[Attr, ...]:
    if name in SOFTWARE:
        return (Attr(type=TYPE_SOFTWARE, config=SOFTWARE[name]),)
    generic = _generic(name)
    if generic is not None:
        # Each kind of core of a hybrid CPU is a device of its own, with a list of its CPUs.
        kinds = [_number(path.parent / "type") for path in sorted(devices.glob("*/cpus"))]
        if len(kinds) > 1 and None not in kinds:
            configs = [generic.config | kind << PMU_SHIFT for kind in kinds if kind is not None]
            return tuple(replace(generic, config=config) for config in configs)
        return (generic,)
    parts = [_of_device(path.parent.parent, name) for path in sorted(devices.glob(f"*/events/{name}"))]
    return tuple(part for part in parts if part is not None) if None not in parts else ()


def _generic(name: str) -> Attr | None:
    if name in HARDWARE:
        return Attr(type=TYPE_HARDWARE, config=HARDWARE[name])
    return Attr(type=TYPE_CACHE, config=CACHE_EVENTS[name]) if name in CACHE_EVENTS else None


def _of_device(device: Path, terms: str) -> Attr | None:
    """Return an event of one device: one that it names, or terms such as "event=0x3c"."""
    kind = _number(device / "type")
    # What counts whole processors, and what has to be multiplied, is left to perf.
    if kind is None or (device / "cpumask").exists() or (device / "events" / f"{terms}.scale").exists():
        return None
    text = _text(device / "events" / terms)
    generic = _generic(terms)
    if text is None and generic is not None and (device / "cpus").exists():
        return replace(generic, config=generic.config | kind << PMU_SHIFT)
    configs = {"config": 0, "config1": 0, "config2": 0}
    for term in (terms if text is None else text).split(","):
        name, _, value = term.partition("=")
        try:
            field, bits = _placed(device, name, int(value, 0) if value else 1)
        except ValueError:
            return None
        configs[field] |= bits
    return Attr(type=kind, **configs)


def _placed(device: Path, name: str, value: int) -> tuple[str, int]:
    """Return which of the kernel's numbers a term goes into, and as which bits; ValueError if none."""
    form = f"{name}:0-63" if name.startswith("config") else _text(device / "format" / name)
    match = _FIELD.fullmatch(form or "")
    if match is None:
        raise ValueError
    placed = 0
    for bit in _bits(match[2]):
        placed |= (value & 1) << bit
        value >>= 1
    if value:
        raise ValueError
    return match[1], placed


def _bits(ranges: str) -> Iterator[int]:
    for one in ranges.split(","):
        first, _, last = one.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text is not None and text.isdecimal() else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
