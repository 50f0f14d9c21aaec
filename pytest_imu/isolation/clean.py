"""Makes a process clean: what the next code needs is then what it would need in a fresh one."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterable

from pytest_imu.core.memory.ballast import Ballast
from pytest_imu.core.memory.platforms import rss_reader
from pytest_imu.core.memory.reusable import process_gauge
from pytest_imu.core.memory.trim import find_malloc_trim
from pytest_imu.core.system import System
from pytest_imu.isolation.file_pages import FilePages, resident_file_pages

YOUNG = 1
"""The generation up to which a child collects: older objects are the server's, and were collected."""


class CleanMemory:
    """The memory of a process that forks, and of its children: all that is free in it is filled."""

    def __init__(self, file_pages: FilePages) -> None:
        """*file_pages* are those of the process that this one was forked from."""
        self._file_pages = file_pages
        self._ballast = Ballast()

    def begin_in_child(self) -> None:
        """In a process that was just forked: map the file pages, and let the collector begin anew."""
        self._file_pages.map_again()  # or their first use would count as the test's memory
        System.collect(YOUNG)

    def clean(self) -> None:
        """Give back and fill what is free, and remember what children have to map."""
        System.collect()
        malloc_trim = find_malloc_trim()
        if malloc_trim is not None:
            malloc_trim()
        self._ballast.fill()
        self._file_pages = resident_file_pages()
        process_gauge.cache_clear()  # what was free is so no more


def import_modules(names: Iterable[str]) -> dict[str, int]:
    """Import modules in their order; return the bytes of RSS that each top package took.

    Those that fail are left out: a test may have made them up.
    """
    read_rss = rss_reader()
    sizes: dict[str, int] = {}
    for name in names:
        before_bytes = read_rss()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # they were said where it was imported first
                importlib.import_module(name)
        except BaseException:  # noqa: BLE001, S112 - whatever a module does as it is imported
            continue
        package = name.partition(".")[0]
        sizes[package] = sizes.get(package, 0) + read_rss() - before_bytes
    return sizes
