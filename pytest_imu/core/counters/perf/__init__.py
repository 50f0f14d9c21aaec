"""Counting with `perf stat`."""
