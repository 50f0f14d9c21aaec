"""What is left when a test's call has ended: by its teardown, and by the failures of its subtests."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from pytest_imu.core.units import MIB

LIMIT_S = 120


def run(pytester: pytest.Pytester, *args: str) -> tuple[pytest.RunResult, list[dict[str, Any]]]:
    """Run pytest with this plugin; return the result and the tests of its JSON file."""
    files = ("-p", "imu", "--imu", "--imu-json=run.json")
    result = pytester.runpytest_subprocess(*files, *args, timeout=LIMIT_S)
    text = pytester.path.joinpath("run.json").read_text(encoding="ascii")
    return result, json.loads(text)["tests"]


def by_name(tests: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the tests by their names, without file and class."""
    return {test["nodeid"].rpartition("::")[2]: test for test in tests}


UNITTEST = """
    import unittest

    class TestIt(unittest.TestCase):
        def test_1_first(self):
            pass

        def test_2_fails(self):
            with self.subTest(number=1):
                held = b"x" * (30 << 20)
                try:
                    self.assertEqual(1, len(held))
                except AssertionError as error:
                    circle = error  # holds its frame, which holds it
                    raise

        def test_3_next(self):
            b"x" * (20 << 20)

        def test_4_last(self):
            pass
"""
SUBTESTS = """
    def test_1_first():
        pass

    def test_2_fails(subtests):
        with subtests.test("holds"):
            held = b"x" * (30 << 20)
            try:
                raise AssertionError(len(held))
            except AssertionError as error:
                circle = error  # holds its frame, which holds it
                raise

    def test_3_next():
        b"x" * (20 << 20)

    def test_4_last():
        pass
"""


@pytest.mark.needs_kernel_peaks
@pytest.mark.parametrize(
    "source",
    [
        pytest.param(UNITTEST, id="unittest"),
        pytest.param(
            SUBTESTS,
            id="pytest",
            marks=pytest.mark.skipif(
                pytest.version_tuple < (9,), reason="pytest has subtests since 9.0"
            ),
        ),
    ],
)
def test_failed_subtest_is_charged_to_its_test(pytester: pytest.Pytester, source: str) -> None:
    """What a failed subtest's traceback keeps is in its own test, and gone before the next begins."""
    pytester.makepyfile(test_it=source)

    result, found = run(pytester)

    assert pytest.ExitCode.TESTS_FAILED == result.ret
    first, failed, following, last = (
        by_name(found)[name]["phases"]["call"]
        for name in ("test_1_first", "test_2_fails", "test_3_next", "test_4_last")
    )
    assert abs(failed["peak_bytes"] - 30 * MIB) < 2 * MIB
    assert abs(failed["delta_bytes"] - 30 * MIB) < 2 * MIB
    assert abs(following["before_bytes"] - first["after_bytes"]) < 3 * MIB
    assert abs(following["peak_bytes"] - 20 * MIB) < MIB
    assert abs(following["delta_bytes"]) < MIB / 2
    assert abs(last["delta_bytes"]) < MIB / 2


TEARDOWNS = """
    import pytest

    kept = []

    @pytest.fixture
    def keeps():
        yield
        kept.append(b"x" * (10 << 20))

    @pytest.fixture
    def keeps_nothing():
        yield
        b"x" * (10 << 20)

    def test_warm_up():
        pass

    def test_keeps(keeps):
        pass

    def test_keeps_nothing(keeps_nothing):
        pass

    def test_last():
        pass
"""


@pytest.mark.needs_kernel_peaks
@pytest.mark.parametrize("args", [(), ("-p", "xdist", "-n1")], ids=["alone", "xdist"])
def test_teardown_that_keeps(pytester: pytest.Pytester, args: tuple[str, ...]) -> None:
    """A teardown that keeps memory has a row, in xdist's workers too; one that keeps none has none."""
    pytester.makepyfile(test_it=TEARDOWNS)

    result, found = run(pytester, *args)

    result.assert_outcomes(passed=4)
    tests = by_name(found)
    kept = {name: test["teardown_kept_bytes"] for name, test in tests.items()}
    assert abs(kept.pop("test_keeps") - 10 * MIB) < MIB
    assert {"test_warm_up": None, "test_keeps_nothing": None, "test_last": None} == kept
    rows = re.findall(r"^ *~?(\S+) .*s  .*::(\w+) \(teardown\)$", str(result.stdout), re.MULTILINE)
    assert ["test_keeps"] == [name for _, name in rows]
    assert 9 < float(rows[0][0]) < 11


@pytest.mark.needs_kernel_peaks
def test_teardown_that_is_measured(pytester: pytest.Pytester) -> None:
    """A teardown that a budget has measured shows its own numbers, with what it needed too."""
    marker = '@pytest.mark.max_delta_mib(50, phase="all")'
    pytester.makepyfile(test_it=TEARDOWNS.replace("def test_k", f"{marker}\n    def test_k"))

    result, found = run(pytester)

    result.assert_outcomes(passed=4)
    test = by_name(found)["test_keeps"]
    assert test["teardown_kept_bytes"] is None
    assert abs(test["phases"]["teardown"]["delta_bytes"] - 10 * MIB) < MIB
    rows = re.findall(r"^ *~?\S+ .*s  .*::(\w+) \(teardown\)$", str(result.stdout), re.MULTILINE)
    assert ["test_keeps", "test_keeps_nothing"] == sorted(rows)
