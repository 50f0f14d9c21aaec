"""Which packages a block was the first to import: what they take is in its numbers, not its need."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from pytest_imu.core.system import System
from pytest_imu.core.units import MIB

WORTH_BYTES = MIB
"""How much a block must have kept for its imports to be worth a word."""
HEAVY_FILE_BYTES = MIB // 4
"""How large the files of a package's new modules must be: in memory they take several times that."""
MOST_NAMED = 3

_MODULES = sys.modules


def count_modules() -> int:
    """Return how many modules there are."""
    return len(_MODULES)


def new_modules(count_before: int) -> list[str]:
    """Return the names of the modules that came since there were so many, in their order."""
    return list(_MODULES)[count_before:]  # a copy: another thread may import


def imported(count_before: int, before_bytes: int | None, after_bytes: int | None) -> tuple[str, ...]:
    """Return the large packages that a block was the first to import, where it kept enough for one.

    *count_before* is what `count_modules()` said as it began.
    """
    if len(_MODULES) == count_before or before_bytes is None or after_bytes is None:
        return ()
    if after_bytes - before_bytes < WORTH_BYTES:
        return ()
    try:
        return heavy_packages(new_modules(count_before))
    except Exception:  # noqa: BLE001 - what a test has put among the modules raises what it likes
        return ()


def heavy_packages(names: Iterable[str]) -> tuple[str, ...]:
    """Return the top packages of these modules whose files are large, the largest first."""
    sizes: dict[str, int] = {}
    for name in names:
        package = name.partition(".")[0]
        sizes[package] = sizes.get(package, 0) + _file_bytes(name)
    heavy = [package for package, size_bytes in sizes.items() if size_bytes >= HEAVY_FILE_BYTES]
    return tuple(sorted(heavy, key=sizes.__getitem__, reverse=True)[:MOST_NAMED])


def _file_bytes(name: str) -> int:
    """Return the size of a module's byte code, or of its library; 0 where it comes from no file."""
    spec = getattr(_MODULES.get(name), "__spec__", None)
    for path in (getattr(spec, "cached", None), getattr(spec, "origin", None)):
        if isinstance(path, str):
            try:
                return System.stat(path).st_size
            except (OSError, ValueError):
                continue
    return 0
