"""Where the memory of a run went: what the tests of each folder and file kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_imu.core.units import MIB, format_mib, plural
from pytest_imu.report.kept import kept_by_file
from pytest_imu.report.rows import Row

LEAST_BYTES = MIB // 2
NAMED_FILES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A folder or a file, and how much its tests kept."""

    name: str
    kept: str
    percent: float
    tests: str
    is_folder: bool = False


def bars_of(rows: Sequence[Row]) -> list[Bar]:
    """Return the folders that kept most, each with its files; empty where little was kept."""
    kept, tests = kept_by_file(rows)
    largest = [name for name, size in kept.most_common(NAMED_FILES) if size >= LEAST_BYTES]
    if not largest:
        return []
    by_folder: defaultdict[str, list[str]] = defaultdict(list)
    for name in largest:
        by_folder[_folder_of(name)].append(name)
    folder_bytes = {
        folder: sum(size for name, size in kept.items() if _folder_of(name) == folder)
        for folder in by_folder
    }
    scale_bytes = max(*folder_bytes.values(), *(kept[name] for name in largest))

    def bar(name: str, size: int, count: int, *, is_folder: bool) -> Bar:
        return Bar(
            name=name,
            kept=format_mib(size),
            percent=round(max(0, size) / scale_bytes * 100, 1),
            tests=plural(count, "test"),
            is_folder=is_folder,
        )

    bars = []
    for folder in sorted(by_folder, key=lambda folder: -folder_bytes[folder]):
        count = sum(number for name, number in tests.items() if _folder_of(name) == folder)
        bars.append(bar(folder, folder_bytes[folder], count, is_folder=True))
        bars += [
            bar(name.rpartition("/")[2], kept[name], tests[name], is_folder=False)
            for name in by_folder[folder]
        ]
    return bars


def _folder_of(name: str) -> str:
    folder, slash, _ = name.rpartition("/")
    return folder + slash if slash else "./"
