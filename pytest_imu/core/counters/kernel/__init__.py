"""Counting with the kernel's own call, `perf_event_open`."""
