"""Where no other process can be had, a test's lines are followed in its own, and that is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytestmark = [pytest.mark.needs_kernel_peaks, pytest.mark.needs_malloc_trim]

NO_FORK = """
    import sys, types

    from pytest_imu.isolation import confirm

    confirm.sys = types.SimpleNamespace(platform="another", modules=sys.modules)
"""
SUITE = """
    import logging, unittest, warnings

    import pytest

    RUNS = []

    def block(mib):
        return bytearray(mib * 2**20)

    @pytest.mark.max_peak_mib(10)
    def test_broken(record_property):
        RUNS.append("broken")
        print("printed", len(RUNS))
        warnings.warn(f"warned {len(RUNS)}")
        logging.error(f"logged {len(RUNS)}")
        record_property("ran", len(RUNS))
        block(40)

    @pytest.mark.max_peak_mib(10)
    def test_fails_then():
        RUNS.append("then")
        block(40)
        assert RUNS.count("then") == 1, "only once"

    @pytest.mark.max_peak_mib(10)
    def test_skips_then():
        RUNS.append("skips")
        block(40)
        if RUNS.count("skips") == 2:
            pytest.skip("not twice")

    @pytest.mark.max_peak_mib(10, phase="all")
    def test_whole():
        block(40)

    @pytest.mark.max_peak_mib(10)
    @pytest.mark.imu_no_rerun
    def test_once():
        RUNS.append("once")
        block(40)

    class TestCase(unittest.TestCase):
        @pytest.mark.max_peak_mib(10)
        def test_case(self):
            RUNS.append("case")
            block(40)

    def test_how_often():
        assert [RUNS.count(name) for name in ("broken", "then", "once", "case")] == [2, 2, 1, 1]
"""
WHY = "only Linux can fork a clean process"


def test_in_the_same_process(pytester: pytest.Pytester) -> None:
    """Its lines are told; what it prints, warns of and notes the second time is not."""
    pytester.makeconftest(NO_FORK)
    pytester.makepyfile(test_it=SUITE)
    flags = ["--imu-why", "--imu-json=run.json", "--junit-xml=junit.xml", "-p", "no:cacheprovider"]
    result = pytester.runpytest_subprocess("-p", "imu", *flags)
    result.assert_outcomes(passed=1, failed=6, warnings=2)
    result.stdout.re_match_lines(
        [
            r"peak (39|40)\.\d MiB is over max_peak_mib\(10\) by .*; not run alone: only Linux.*",
            r"-+ Captured stdout call -+",
            r"printed 1",
            r"-+ Captured log call -+",
            r"ERROR .* logged 1",
            r"-+ imu: why -+",
            r"where the peak was reached, in a second run in the same process \(peak 40\.\d\):",
            r"  kept    peak",
            r"   0\.0    40\.\d  test_it\.py:17  block\(40\)",
            r"  40\.0    40\.\d  test_it\.py:8   return bytearray\(mib \* 2\*\*20\)",
            rf"in the same process: {WHY}",
            r"in the second run it failed: only once.*",
            r"in the second run it was skipped: not twice",
            rf"the lines are not known: {WHY}, and here only a test's call can run again",
            r"the lines are not known: it is marked imu_no_rerun",
            rf"the lines are not known: {WHY}, and here no unittest\.TestCase can run again",
        ],
    )
    shown = result.stdout.str()
    for told in ("printed", "warned", "logged"):
        assert f"{told} 2" not in shown
    junit = Path("junit.xml").read_text(encoding="utf-8")
    assert 1 == junit.count('name="ran"')
    [broken, *_] = json.loads(Path("run.json").read_text(encoding="ascii"))["tests"]
    assert 40 == round(broken["why"]["profile"]["peak_bytes"] / 2**20)
