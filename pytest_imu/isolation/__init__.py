"""Runs a test in a forked child of a process that has run none."""
