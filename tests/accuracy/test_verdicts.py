"""Budgets in any order: whatever ran before, each verdict is that of the test alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from tests.accuracy.test_order import CONFTEST

pytestmark = [
    pytest.mark.needs_kernel_peaks,
    pytest.mark.needs_malloc_trim,
    pytest.mark.needs_fork,
]

ORDERS = ("file", "reversed", "1", "2")
"""The last two are seeds."""
HEAVY_MODULE = """
TABLE = [bytes(1000) for _ in range(20_000)]
"""
"""Takes 20 MiB at its first import."""
SUITE = """
    import gc
    import threading
    from concurrent.futures import ThreadPoolExecutor

    import pytest

    kept, pool = [], ThreadPoolExecutor(1)
    collected = [bytes(200) for _ in range(200_000)]
    del collected[::2]  # what the collection leaves free: 20 MiB of small blocks

    def test_raises_the_mmap_threshold():
        bytes(31 * 2**20)

    def test_puts_off_full_collections():
        kept.append([[] for _ in range(500_000)])

    def test_leaves_holes_in_arenas():
        objects = [bytes(64) for _ in range(500_000)]
        kept.append(objects[::100])

    def test_leaves_a_thread_its_heap():
        pool.submit(lambda: [b"x" * 65_000 for _ in range(800)]).result()

    def budgets(kept, broken):
        # One that the test keeps alone, and one that it breaks.
        marks = pytest.mark.max_peak_mib
        breaks = [marks(broken), pytest.mark.xfail(strict=True)]
        values = [pytest.param(True, marks=marks(kept)), pytest.param(False, marks=breaks)]
        return pytest.mark.parametrize("keeps", values, ids=["kept", "broken"])

    @budgets(40, 25)
    def test_threshold(keeps):
        one, other = bytearray(), bytearray()
        for _ in range(256):
            one += bytes(2**16)
            other += bytes(2**16)

    @budgets(26, 10)
    def test_collector(keeps):
        for _ in range(50):
            nodes = [{"next": None} for _ in range(2_000)]
            for node, following in zip(nodes, nodes[1:] + nodes[:1]):
                node["next"] = following
                node["data"] = bytes(200)

    @budgets(40, 25)
    def test_reuse_in_arenas(keeps):
        assert [bytes(64) for _ in range(300_000)]

    @budgets(26, 15)
    def test_leftover_of_the_collection(keeps):
        assert [bytes(200) for _ in range(80_000)]

    @budgets(65, 40)
    def test_heaps_of_threads(keeps):
        with ThreadPoolExecutor(1) as own:
            own.submit(lambda: [b"x" * 65_000 for _ in range(800)]).result()

    @budgets(5, 0.4)
    def test_first_import(keeps):
        import heavy
        assert [bytes(100) for _ in range(10_000)]
"""


@pytest.mark.parametrize("order", ORDERS)
def test_every_verdict_is_right(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    """In each order all that is kept alone is kept, all else is broken, and nothing is unchecked."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_suite=SUITE, heavy=HEAVY_MODULE)
    monkeypatch.setenv("KNOWN_ORDER", order)

    result = pytester.runpytest_subprocess("-p", "imu", "--imu-json=run.json", "-p", "no:cacheprovider")

    text = pytester.path.joinpath("run.json").read_text(encoding="ascii")
    tests: list[Mapping[str, Any]] = json.loads(text)["tests"]
    wrong = {
        test["nodeid"]: (verdict["verdict"], verdict["actual"], verdict["first"], verdict["reason"])
        for test in tests
        for verdict in test["budgets"]
        if not test["nodeid"].endswith(f"[{verdict['verdict']}]")
    }
    assert {} == wrong
    result.assert_outcomes(passed=10, xfailed=6)
