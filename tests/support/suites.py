"""Suites that several tests run."""

from __future__ import annotations

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
