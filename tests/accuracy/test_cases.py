"""Known answers: what is measured is what was touched, in a process of its own and in a whole run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import steadying
from pytest_imu.isolation.file_pages import find_madvise

if TYPE_CHECKING:
    from tests.accuracy.cases import Case
    from tests.accuracy.conftest import RunPlugin

pytestmark = [pytest.mark.needs_kernel_peaks, pytest.mark.needs_malloc_trim]

needs_populate = pytest.mark.skipif(
    find_madvise() is None,
    reason="needs_populate: this kernel cannot map a child's file pages: not Linux 5.14 or newer",
)
MIB = 2**20
MEASURED = """
import json
import os
import sys

from pytest_imu import measure

folders, names = json.loads(sys.argv[1]), json.loads(sys.argv[2])
os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path += folders
import cases
from steadying import map_files_again

def measured(case):
    hold = []
    case.before(hold)
    with measure() as m:
        case.run(hold)
    return [m.source, m.peak_bytes, m.delta_bytes]

def measured_in_fork(case):
    receiving, sending = os.pipe()
    if os.fork() == 0:
        map_files_again()
        os.write(sending, json.dumps(measured(case)).encode())
        os._exit(0)
    os.close(sending)
    with open(receiving) as answer:
        return json.load(answer)

cases.warm_up()
measure_one = measured if len(names) == 1 else measured_in_fork
print(json.dumps({case.name: measure_one(case) for case in cases.CASES if case.name in names}))
"""
SUITE = """
    import pytest

    import cases

    cases.warm_up()

    @pytest.fixture
    def hold(case):
        room = []
        cases.ints(room, count=cases.INTS)  # fills all that the cases before have left free
        hold = []
        case.before(hold)
        yield hold
        hold.clear()

    @pytest.mark.parametrize("case", cases.CASES, ids=[case.name for case in cases.CASES])
    def test(case, hold):
        case.run(hold)
"""


def within(expected_mib: float, bound_mib: float) -> Any:
    """Return what equals every number of bytes that is this many MiB, within the bound."""
    return pytest.approx(expected_mib * MIB, abs=bound_mib * MIB)


@pytest.fixture(scope="module")
def measured(
    request: pytest.FixtureRequest, cases: Mapping[str, Case], run_python: Callable[..., Any]
) -> Mapping[str, Any]:
    """Return what each case measured, in a fork of a fresh process, or in one started for it."""
    folders = json.dumps([str(request.path.parent), str(Path(steadying.__file__).parent)])
    together = [[*cases]] if find_madvise() is not None else [[name] for name in cases]
    numbers = [run_python(MEASURED, folders, json.dumps(names)) for names in together]
    return {name: one for found in numbers for name, one in found.items()}


def test_measure(case: Case, measured: Mapping[str, Any]) -> None:
    """A block in a fresh process has the peak that it touched, and keeps what it kept."""
    source, peak_bytes, delta_bytes = measured[case.name]

    assert "kernel" == source
    assert within(case.peak_mib, case.bound_mib) == peak_bytes
    assert within(case.delta_mib, case.bound_mib) == delta_bytes


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param((), id="one process"),
        pytest.param(
            ("--imu-isolate=all",),
            id="isolated",
            marks=[pytest.mark.needs_fork, needs_populate],
        ),
    ],
)
def test_plugin(
    pytester: pytest.Pytester,
    run_plugin: RunPlugin,
    cases: Mapping[str, Case],
    arguments: tuple[str, ...],
) -> None:
    """In one run of all cases, one after the other, each call has its own peak and delta."""
    pytester.makepyfile(SUITE)

    tests = run_plugin(*arguments)

    assert [f"test[{name}]" for name in cases] == list(tests)
    calls = {name: tests[f"test[{name}]"]["phases"]["call"] for name in cases}
    assert {"kernel"} == {call["source"] for call in calls.values()}
    errors_mib = {
        name: (call["peak_bytes"] / MIB - case.peak_mib, call["delta_bytes"] / MIB - case.delta_mib)
        for (name, case), call in zip(cases.items(), calls.values(), strict=True)
    }
    off = {
        name: errors
        for name, errors in errors_mib.items()
        if max(map(abs, errors)) > cases[name].bound_mib
    }
    assert {} == off
