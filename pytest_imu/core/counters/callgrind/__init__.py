"""Counting in caches that callgrind simulates."""
