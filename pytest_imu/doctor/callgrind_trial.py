"""A trial of callgrind: a tiny program under it, which counts itself, as the doctor does."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from pytest_imu.core.counters.asking import ask
from pytest_imu.core.counters.callgrind.command import USUAL_CACHES, callgrind_command
from pytest_imu.core.counters.source import CannotCountError

TRIAL_TIMEOUT_S = 30
CHILD = Path(__file__).with_name("callgrind_child.py")
LONGEST_TEXT = 200


def count_simulated(valgrind: str, event: str) -> float:
    """Return how often *event* happens while a Python under *valgrind* reads 1 MiB; takes seconds."""
    # Isolated and without site, which take seconds, it finds the package by the folder that it is told.
    words = ["-I", "-S", "-B", str(CHILD), str(CHILD.parents[2]), event]
    with tempfile.TemporaryDirectory(prefix="imu-") as folder:
        command = callgrind_command(
            valgrind, python=[sys.executable, *words], caches=USUAL_CACHES, out_folder=Path(folder)
        )
        try:
            status, said = ask(command, timeout_s=TRIAL_TIMEOUT_S)
        except OSError as error:
            raise CannotCountError(str(error)) from None
    try:
        return float(said)
    except ValueError:
        said = said[-LONGEST_TEXT:]
        raise CannotCountError(
            f"status {status}: {said}" if status else said or "it said nothing"
        ) from None
