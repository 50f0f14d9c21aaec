"""Requests to valgrind, made where there is none: what changes nothing, and what is not known."""

from __future__ import annotations

import os

import pytest

from pytest_imu.core.counters.callgrind.requests import ORDERS, Requests
from pytest_imu.core.counters.source import CannotCountError


@pytest.mark.skipif(
    not hasattr(os, "uname") or os.uname().machine != "x86_64",
    reason="how a request is made is known for other processors too, but only valgrind may run it there",
)
def test_processor_takes_no_order() -> None:
    """Without valgrind the instructions of a request do nothing: the program goes on."""
    Requests()(*ORDERS)


def test_other_machine_is_a_reason() -> None:
    """A processor for which the instructions are not known says so."""
    with pytest.raises(CannotCountError, match="is not known for this riscv64 process"):
        Requests(machine="riscv64")
