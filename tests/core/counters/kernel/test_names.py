"""Events by the names that perf uses, as the numbers that the kernel takes."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from pytest_imu.core.counters.kernel.names import (
    DISABLED,
    EXCLUDE_HV,
    EXCLUDE_KERNEL,
    EXCLUDE_USER,
    INHERIT,
    INHERIT_THREAD,
    Attr,
    attrs_of,
)

USER = EXCLUDE_KERNEL | EXCLUDE_HV
KERNEL = EXCLUDE_USER | EXCLUDE_HV


@pytest.fixture
def devices(tmp_path: Path) -> Path:
    """Return a folder as /sys/bus/event_source/devices is on a machine with one kind of core."""
    put(tmp_path / "cpu/type", "4")
    put(tmp_path / "cpu/format/event", "config:0-7,32-35")
    put(tmp_path / "cpu/format/umask", "config:8-15")
    put(tmp_path / "cpu/format/ldlat", "config1:0-15")
    put(tmp_path / "cpu/format/edge", "config:18")
    put(tmp_path / "cpu/events/mem-loads", "event=0xcd,umask=0x1,ldlat=3")
    put(tmp_path / "cpu/events/slots", "event=0x00,umask=0x4")
    put(tmp_path / "power/type", "12")
    put(tmp_path / "power/cpumask", "0")
    put(tmp_path / "power/events/energy-pkg", "event=0x02")
    put(tmp_path / "odd/type", "13")
    put(tmp_path / "odd/format/event", "config:0-7")
    put(tmp_path / "odd/events/joules", "event=0x02")
    put(tmp_path / "odd/events/joules.scale", "0.5")
    put(tmp_path / "odd/events/asks", "event=?")
    return tmp_path


def put(path: Path, text: str) -> None:
    """Write a file with all of its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n", encoding="ascii")


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ("cycles", Attr(type=0, config=0)),
        ("cache-misses", Attr(type=0, config=3)),
        ("stalled-cycles-backend", Attr(type=0, config=8)),
        ("ref-cycles", Attr(type=0, config=9)),
        ("instructions:u", Attr(type=0, config=1, flags=USER)),
        ("instructions:k", Attr(type=0, config=1, flags=KERNEL)),
        ("instructions:uk", Attr(type=0, config=1, flags=EXCLUDE_HV)),
        ("cpu-clock", Attr(type=1, config=0)),
        ("page-faults", Attr(type=1, config=2)),
        ("context-switches", Attr(type=1, config=3)),
        ("major-faults", Attr(type=1, config=6)),
        ("L1-dcache-loads", Attr(type=3, config=0)),
        ("L1-dcache-load-misses", Attr(type=3, config=0x10000)),
        ("LLC-store-misses", Attr(type=3, config=0x10102)),
        ("dTLB-load-misses:u", Attr(type=3, config=0x10003, flags=USER)),
        ("mem-loads", Attr(type=4, config=0x1CD, config1=3)),
        ("cpu/mem-loads/u", Attr(type=4, config=0x1CD, config1=3, flags=USER)),
        ("cpu/event=0x1cd/", Attr(type=4, config=0x1000000CD)),  # its ninth bit lies higher
        ("cpu/edge/", Attr(type=4, config=1 << 18)),
        ("cpu/config=0x7/:k", Attr(type=4, config=7, flags=KERNEL)),
    ],
)
def test_named_by_the_kernel(devices: Path, event: str, expected: Attr) -> None:
    """Generic events, those of the caches, software events, and what a device's own files name."""
    assert (expected,) == attrs_of(event, devices=devices)


@pytest.mark.parametrize(
    "event",
    [
        "nonsense",
        "sched:sched_switch",
        "r1cd",
        "cycles:pp",
        "cycles:",
        "cpu/nonsense/",
        "cpu/event=0x1000/",  # does not fit
        "nowhere/event=1/",
        "energy-pkg",  # counts whole processors
        "power/energy-pkg/",
        "joules",  # would have to be multiplied
        "asks",  # wants a number
        "../event=1/",
    ],
)
def test_left_to_perf(devices: Path, event: str) -> None:
    """What only perf can name, or count, is empty."""
    assert () == attrs_of(event, devices=devices)


def test_hybrid_cpu(tmp_path: Path) -> None:
    """Where there are two kinds of cores an event is one of each; one kind can be named."""
    for name, kind in (("cpu_core", 4), ("cpu_atom", 10)):
        put(tmp_path / name / "type", str(kind))
        put(tmp_path / name / "cpus", "0-3")
        put(tmp_path / name / "format/event", "config:0-7")
        put(tmp_path / name / "events/own", f"event={kind}")
    atom, core = Attr(type=0, config=10 << 32 | 3), Attr(type=0, config=4 << 32 | 3)
    assert (atom, core) == attrs_of("cache-misses", devices=tmp_path)
    assert (core,) == attrs_of("cpu_core/cache-misses/", devices=tmp_path)
    assert (Attr(type=10, config=10), Attr(type=4, config=4)) == attrs_of("own", devices=tmp_path)
    assert (Attr(type=1, config=2),) == attrs_of("page-faults", devices=tmp_path)
    assert [10, 4] == [one.group for one in (atom, core)]


def test_bytes_as_the_kernel_takes_them() -> None:
    """The struct has its 112 bytes, in the places that linux/perf_event.h gives them."""
    attr = Attr(type=4, config=0x1CD, config1=3, config2=5, flags=USER)
    plain = attr.to_bytes(DISABLED | INHERIT | INHERIT_THREAD)
    assert 112 == len(plain)
    assert (4, 112, 0x1CD) == struct.unpack_from("<IIQ", plain, 0)
    assert 0b1011 == struct.unpack_from("<Q", plain, 32)[0]  # times and group, and no ids
    assert 1 << 35 | 0b1100011 == struct.unpack_from("<Q", plain, 40)[0]
    assert (3, 5) == struct.unpack_from("<QQ", plain, 56)
    assert bytes(40) == plain[72:]
