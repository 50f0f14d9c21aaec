"""Known answers in any order: isolated tests have theirs, and the others say what they may lack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.accuracy.cases import Case
    from tests.accuracy.conftest import RunPlugin

pytestmark = [
    pytest.mark.needs_kernel_peaks,
    pytest.mark.needs_malloc_trim,
    pytest.mark.needs_fork,
]

MIB = 2**20
SPREAD_MIB = 1.0
ORDERS = ("file", "reversed", "1", "2")
"""The last two are seeds."""
# They leave holes of all kinds, and need what earlier ones left.
NAMES = (
    "one_int_in_100",
    "spike_0_ms",
    "a_million_ints",
    "c_call",
    "half_the_blocks",
    "temporaries",
    "two_tasks",
)
CONFTEST = """
    import os
    import random

    def pytest_collection_modifyitems(items):
        order = os.environ["KNOWN_ORDER"]
        if order == "reversed":
            items.reverse()
        elif order != "file":
            random.Random(order).shuffle(items)
"""
SUITE = f"""
    import pytest

    import cases

    cases.warm_up()
    CASES = {{case.name: case for case in cases.CASES}}
    KEPT = []

    @pytest.fixture
    def hold(name):
        hold = []
        CASES[name].before(hold)
        KEPT.append(hold)  # until the run ends
        return hold

    @pytest.mark.parametrize("name", {NAMES})
    def test(name, hold):
        CASES[name].run(hold)
"""

Runs = Sequence[Mapping[str, Mapping[str, Any]]]


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    """Write a suite of known answers that can be run in any order."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(SUITE)
    return pytester


def calls_in_every_order(
    run_plugin: RunPlugin, monkeypatch: pytest.MonkeyPatch, *arguments: str
) -> Mapping[str, list[Mapping[str, Any]]]:
    """Return what each test's call measured, in each of the orders."""
    found: dict[str, list[Mapping[str, Any]]] = {name: [] for name in NAMES}
    seen = set()
    for order in ORDERS:
        monkeypatch.setenv("KNOWN_ORDER", order)
        tests = run_plugin(*arguments)
        seen.add(tuple(tests))
        for name in NAMES:
            found[name].append(tests[f"test[{name}]"]["phases"]["call"])
    assert len(ORDERS) == len(seen)
    return found


@pytest.mark.usefixtures("suite")
def test_isolated_tests_do_not_depend_on_order(
    run_plugin: RunPlugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With isolation, the peaks of a test in all orders lie within 1 MiB."""
    calls = calls_in_every_order(run_plugin, monkeypatch, "--imu-isolate=all")

    spreads = {}
    for name in NAMES:
        peaks = [call["peak_bytes"] / MIB for call in calls[name]]
        spreads[name] = max(peaks) - min(peaks)
    assert {} == {name: spread for name, spread in spreads.items() if spread > SPREAD_MIB}


@pytest.mark.usefixtures("suite")
def test_others_say_what_they_may_have_reused(
    run_plugin: RunPlugin, monkeypatch: pytest.MonkeyPatch, cases: Mapping[str, Case]
) -> None:
    """Without isolation, a peak is never too high, and one that is too low has a note that covers it."""
    calls = calls_in_every_order(run_plugin, monkeypatch)

    off, noted = [], 0
    for name in NAMES:
        bound, truth = cases[name].bound_mib, cases[name].peak_mib
        for order, call in zip(ORDERS, calls[name], strict=True):
            peak, reusable = call["peak_bytes"] / MIB, (call["reusable_bytes"] or 0) / MIB
            is_low = peak < truth - SPREAD_MIB
            noted += is_low
            if peak > truth + bound or (is_low and peak + reusable < truth - bound):
                off.append((name, order, truth, peak, reusable))
    assert [] == off
    assert noted  # or this suite would prove nothing


def test_heaps_of_threads(pytester: pytest.Pytester, run_plugin: RunPlugin) -> None:
    """What an earlier test's thread has freed and glibc keeps is told to the next test that uses it."""
    pytester.makepyfile(
        """
        from concurrent.futures import ThreadPoolExecutor

        import pytest

        # Freed once: from now on glibc keeps twice as much at the top of each heap.
        len(b"x" * (31 << 20))

        # One thread: a second one would have a heap of its own, if the first still lived.
        pool = ThreadPoolExecutor(1)

        def work():
            [b"x" * 65_000 for _ in range(800)]

        @pytest.mark.parametrize("name", ["first", "second"])
        def test(name):
            pool.submit(work).result()
        """
    )

    tests = run_plugin()

    for name in ("first", "second"):
        call = tests[f"test[{name}]"]["phases"]["call"]
        lowest, highest = 800 * 65_000 - MIB // 2, 800 * 65_536 + MIB // 2
        assert call["peak_bytes"] <= highest
        assert lowest <= call["peak_bytes"] + (call["reusable_bytes"] or 0)
