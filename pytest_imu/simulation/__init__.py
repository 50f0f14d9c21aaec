"""Runs pytest again under valgrind, which simulates caches."""
