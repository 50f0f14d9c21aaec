"""Suites that several tests run."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

SUITE = """
import mmap

PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}

def touch(mib):
    block = mmap.mmap(-1, mib << 20, **PRIVATE)
    block[::4096] = b"x" * (mib << 8)
    block.close()

def test_large():
    touch(30)

def test_small():
    touch(5)
"""
"""One test that touches 30 MiB, and one that touches 5."""


def make_odd_tests(pytester: pytest.Pytester, names: Sequence[str]) -> None:
    """Make a suite of tests that pass, named by any text."""
    pytester.makeconftest(
        f"""
        import pytest

        class OddItem(pytest.Item):
            def runtest(self):
                pass

        class OddFile(pytest.File):
            def collect(self):
                return [OddItem.from_parent(self, name=name) for name in {names!a}]

        def pytest_collect_file(file_path, parent):
            if file_path.suffix == ".odd":
                return OddFile.from_parent(parent, path=file_path)
        """
    )
    pytester.makefile(".odd", ids="")
