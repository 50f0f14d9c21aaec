"""Growth a call in whole runs: which tests are leaks, what is called again, and what cannot be."""

from __future__ import annotations

import re
import statistics

import pytest

from running import Test, read_by_name, read_log, run, run_here

TEN = """
    import functools
    import itertools
    import os
    import threading

    import pytest

    KEPT, TABLE, OPENED, TALLY, END = [], {}, [], itertools.count(), threading.Event()

    @pytest.fixture(scope="module", autouse=True)
    def all_closed():
        yield
        END.set()
        for descriptor in OPENED:
            os.close(descriptor)

    @functools.lru_cache(maxsize=2)
    def cached(number):
        return str(number) * 1000

    def test_clean():
        assert [str(number) for number in range(100)]

    def test_object():
        KEPT.append(object())

    def test_c():
        KEPT.append(bytearray(5000))

    def test_every_fourth_call():
        if next(TALLY) % 4 == 0:
            KEPT.append(bytearray(5000))

    def test_bounded_cache():
        cached(next(TALLY))

    def test_module_dict():
        number = next(TALLY)
        TABLE[number] = str(number) * 1000

    def test_descriptor():
        OPENED.append(os.open(os.devnull, os.O_RDONLY))

    def test_thread():
        threading.Thread(target=END.wait).start()

    def test_thread_that_ends():
        thread = threading.Thread(target=str)
        thread.start()
        thread.join()

    def test_circle():
        circle = [bytearray(5000)]
        circle.append(circle)

    def test_traceback():
        try:
            raise ValueError
        except ValueError as error:
            KEPT.append(error)
"""
LEAKS = {
    "test_object",
    "test_c",
    "test_every_fourth_call",
    "test_module_dict",
    "test_descriptor",
    "test_thread",
    "test_traceback",
}

AGAIN = """
    import logging
    import os
    import sys
    import unittest
    import warnings

    import pytest

    def test_logs(caplog):
        logging.getLogger("imu").warning("once")
        assert ["once"] == caplog.messages

    def test_prints(capsys):
        print("x" * 10_000)
        assert 10_001 == len(capsys.readouterr().out)

    def test_prints_more():
        print("seen once")
        print("seen once", file=sys.stderr)

    def test_warns(recwarn):
        warnings.warn("deprecated", DeprecationWarning)
        assert 1 == len(recwarn)

    def test_warns_pytest():
        warnings.warn("told once", DeprecationWarning)

    @pytest.fixture
    def patched(monkeypatch):
        monkeypatch.setenv("IMU_FIXTURE", "1")
        return monkeypatch

    def test_patches(patched, tmp_path):
        assert "1" == os.environ["IMU_FIXTURE"]
        patched.delenv("IMU_FIXTURE")
        patched.setattr(os, "sep", "!")
        patched.chdir(tmp_path)
        patched.syspath_prepend("imu")

    class TestUnit(unittest.TestCase):
        def setUp(self):
            self.values = []

        def test_set_up_again(self):
            self.values.append(1)
            self.assertEqual([1], self.values)
"""


def grown(test: Test) -> dict[str, set[int]]:
    """Return by how much the calls of a test grew, each amount once."""
    return {name: set(test["growth"][name]) for name in ("blocks", "c_bytes", "descriptors", "threads")}


def test_ten_cases(pytester: pytest.Pytester) -> None:
    """Of ten known cases exactly the leaks fail; the JSON file has what each call grew."""
    pytester.makepyfile(test_it=TEN)

    result = run(pytester, "--imu-leaks", "--imu-json=run.json", "--imu-log=run.jsonl")
    tests = read_by_name(pytester)

    result.assert_outcomes(passed=4, failed=7)
    assert {name for name, test in tests.items() if test["outcome"] == "failed"} == LEAKS
    result.stdout.fnmatch_lines(["growth a call: 11 of 11 tests called again, 7 grew"])
    lines = [line for line in result.outlines if line.startswith("grows by")]
    assert "grows by 1 block a call: 8 of 8 calls after 3 warm-ups" == lines[0]
    assert "grows by 4.9 KiB and 2 blocks a call: 8 of 8 calls after 3 warm-ups" == lines[1]
    assert re.search(r" a call: \d+ of 16 calls after 3 warm-ups", lines[2])
    assert "grows by 1 descriptor a call: 8 of 8 calls after 3 warm-ups" in lines
    nothing = {"blocks": {0}, "c_bytes": {0}, "descriptors": {0}, "threads": {0}}
    assert nothing == grown(tests["test_clean"]) == grown(tests["test_circle"])
    [budget] = tests["test_c"]["budgets"]
    assert ("max_growth_kib", 8, 3, "broken", "--imu-leaks") == tuple(
        budget[key] for key in ("name", "calls", "warmup", "verdict", "origin")
    )
    assert 4.9 < budget["actual"] < 5.1
    ends = {line["nodeid"].partition("::")[2]: line for line in read_log(pytester)[1::2]}
    assert tests["test_c"]["growth"] == ends["test_c"]["growth"]


def test_own_call_is_the_only_one_that_shows(pytester: pytest.Pytester) -> None:
    """Later calls find what the first did; peak, blocks, output and warnings are those of the first."""
    pytester.makepyfile(
        test_it=AGAIN
        + """
    CALLS = []

    @pytest.mark.max_peak_mib(10)
    @pytest.mark.max_growth_kib(1, calls=4, warmup=2)
    def test_peak(imu):
        CALLS.append(1)
        with imu.measure("block"):
            assert bytearray(2**20 if len(CALLS) == 1 else 20 * 2**20)

    def test_called():
        assert 2 + 4 == len(CALLS)
    """
    )
    pytester.makeini("[pytest]\nimu_leaks = 2:4\n")

    result = run(pytester, "-rP", "--imu-json=run.json")
    tests = read_by_name(pytester)

    result.assert_outcomes(passed=9, warnings=1)
    assert 2 == str(result.stdout).count("seen once")
    verdicts = {one["name"]: one["verdict"] for one in tests["test_peak"]["budgets"]}
    assert {"max_peak_mib": "kept", "max_growth_kib": "kept"} == verdicts
    assert ["block"] == [block["name"] for block in tests["test_peak"]["blocks"]]
    for name, test in tests.items():
        assert test["growth"] is not None, (name, test["budgets"])
        assert [0, 0] == test["growth"]["blocks"][-2:], name


def test_warm_up_does_not_show(pytester: pytest.Pytester) -> None:
    """The call that counts finds what the warm-ups of a budget on events did."""
    marker = 'pytest.mark.max_events("page-faults", 10**9)'
    pytester.makepyfile(test_it=f"{AGAIN}\n    pytestmark = {marker}\n")
    pytester.makeini("[pytest]\nimu_warmup = 2\n")

    result = run(pytester, "-rP")

    result.assert_outcomes(passed=7, warnings=1)
    assert 2 == str(result.stdout).count("seen once")


def test_what_cannot_be_called_again(pytester: pytest.Pytester) -> None:
    """Who asks for all tests hears which cannot be; who marks a test sees it fail by its later call."""
    pytester.makepyfile(
        """
        import unittest

        import pytest

        @pytest.fixture
        def rows():
            return (number for number in range(3))

        def test_generator(rows):
            assert 3 == sum(1 for _ in rows)

        def test_folder(tmp_path):
            tmp_path.joinpath("a").mkdir()

        @pytest.mark.max_growth_kib(1)
        def test_marked(tmp_path):
            tmp_path.joinpath("a").mkdir()

        class TestUnit(unittest.TestCase):
            calls = []

            def test_once(self):
                self.calls.append(1)
                self.assertEqual([1], self.calls)

        class TestMarked(unittest.TestCase):
            calls = []

            @pytest.mark.max_growth_kib(1)
            def test_once_marked(self):
                self.calls.append(1)
                self.assertEqual([1], self.calls)

        CALLS = []

        @pytest.mark.max_growth_kib(1)
        def test_skips():
            CALLS.append(1)
            if len(CALLS) == 3:
                pytest.skip("no more")

        def test_fails():
            assert not CALLS

        @pytest.mark.max_growth_kib(None)
        def test_lifted():
            CALLS.append(bytearray(5000))
        """
    )

    result = run(pytester, "--imu-leaks", "--imu-json=run.json")
    tests = read_by_name(pytester)

    result.assert_outcomes(passed=5, failed=3)
    failed = {name for name, test in tests.items() if test["outcome"] == "failed"}
    assert {"test_marked", "test_once_marked", "test_fails"} == failed
    result.stdout.fnmatch_lines(
        [
            "E * FileExistsError: *",
            "E * in call 2 of its body, for max_growth_kib(1)",
            "E * AssertionError: Lists differ: *",
            "E * in call 2 of its body, for max_growth_kib(1)",
        ]
    )
    reasons = {name: budget["reason"] for name, test in tests.items() for budget in test["budgets"]}
    again = "its body cannot be called again: "
    ended = "the test did not run to its end"
    assert {
        "test_generator": again
        + "the fixture 'rows' is a generator, and its first call has consumed it",
        "test_folder": again + "call 2 of its body raised FileExistsError",
        "test_marked": ended,
        "test_once": again + "call 2 of its body raised AssertionError",
        "test_once_marked": again + "call 2 of its body raised AssertionError",
        "test_skips": again + "call 3 of its body raised Skipped",
        "test_fails": ended,
    } == reasons
    assert {"unchecked"} == {one["verdict"] for test in tests.values() for one in test["budgets"]}
    result.stdout.fnmatch_lines(["*budget* not checked: its body cannot be called again: *"])


SUBTESTS = """
    import unittest

    import pytest

    class TestUnit(unittest.TestCase):
        def test_sub(self):
            for number in range(2):
                with self.subTest(number=number):
                    self.assertLess(number, 2)

        @pytest.mark.max_events("page-faults", 10**9, warmup=3)
        def test_warm(self):
            for number in range(2):
                with self.subTest(number=number):
                    self.assertLess(number, 2)

        def test_plain(self):
            self.assertTrue(self)
"""


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="pytest has subtests since 9.0")
def test_subtests_are_reported_once(pytester: pytest.Pytester) -> None:
    """Neither a warm-up reports them again nor a further call, which is not made."""
    pytester.makepyfile(SUBTESTS)

    result = run(pytester, "-q", "--imu-leaks", "--imu-json=run.json")

    result.stdout.re_match_lines([r"3 passed, 4 subtests passed in .*"])
    tests = read_by_name(pytester)
    assert {"passed"} == {test["outcome"] for test in tests.values()}
    reason = "its body cannot be called again: each call would report its subtests once more"
    unchecked = {
        name: budget["reason"]
        for name, test in tests.items()
        for budget in test["budgets"]
        if budget["verdict"] == "unchecked"
    }
    assert {"test_sub": reason, "test_warm": reason} == unchecked


@pytest.mark.parametrize(
    ("marker", "expected"),
    [
        ("max_growth_kib()", "one limit without a name, and optionally calls= and warmup="),
        ("max_growth_kib('1')", "a number of KiB, 0 or more, or None"),
        ("max_growth_kib(-1)", "a number of KiB, 0 or more, or None"),
        ("max_growth_kib(1, calls=1)", "calls to be a whole number, 2 to 1000000"),
        ("max_growth_kib(1, calls=10**9)", "calls to be a whole number, 2 to 1000000"),
        ("max_growth_kib(1, warmup=0)", "warmup to be a whole number, 1 or more"),
        ("max_growth_kib(1, warmup=True)", "warmup to be a whole number, 1 or more"),
    ],
)
def test_marker_at_fault(pytester: pytest.Pytester, marker: str, expected: str) -> None:
    """A marker that makes no sense is refused before any test runs."""
    pytester.makepyfile(test_it=f"import pytest\n@pytest.mark.{marker}\ndef test_it(): ...")
    result = run_here(pytester)
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines(
        [f"ERROR: test_it.py::test_it: invalid max_growth_kib(*): expected {expected}"]
    )


@pytest.mark.parametrize("value", ["8", "0:8", "3:1", "3:8:1", "3:-8", "a:b", "3:99999999", ""])
def test_option_at_fault(pytester: pytest.Pytester, value: str) -> None:
    """So is a value of the option."""
    pytester.makepyfile("def test_it(): ...")
    result = run_here(pytester, f"--imu-leaks={value}")
    expected = "expected WARMUP:CALLS, 1 or more and 2 or more, such as 3:8"
    result.stderr.fnmatch_lines([f"ERROR: invalid value '{value}' for --imu-leaks: {expected}*"])


def test_why_names_line_and_objects(pytester: pytest.Pytester) -> None:
    """With --imu-why the failure shows the lines that allocated what stays, and the kinds of objects."""
    pytester.makepyfile(
        test_it="""
        import pytest

        class Node:
            def __init__(self):
                self.data = {"a": [1, 2]}

        KEPT = []

        @pytest.mark.max_growth_kib(0.1)
        def test_nodes():
            KEPT.append(Node())
        """
    )
    result = run(pytester, "--imu-why", "--imu-json=run.json")
    why = read_by_name(pytester)["test_nodes"]["growth"]["why"]

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "grows by * a call, over max_growth_kib(0.1): 8 of 8 calls after 3 warm-ups",
            "*imu: growth call*",
            "allocated in each call, and still there:",
            "* bytes in 4 blocks  test_it.py:5  self.data = {*",
            "objects that the garbage collector knows, a call: *test_it.Node +1*",
        ]
    )
    result.stdout.no_fnmatch_line("*imu: why*")
    assert 5 == why["lines"][0]["line"]
    assert {"kind": "test_it.Node", "objects_a_call": 1.0} in why["kinds"]


@pytest.mark.parametrize("how", ["workers", "isolated"])
def test_workers_and_children(pytester: pytest.Pytester, how: str) -> None:
    """What the calls grew comes home from an xdist worker, and from a test's own process."""
    pytester.makepyfile(
        test_it="""
        import pytest

        KEPT = []

        @pytest.mark.parametrize("size", [10, 5000])
        @pytest.mark.max_growth_kib(1)
        def test_sizes(size):
            KEPT.append(bytearray(size))
        """
    )
    pytest.importorskip("xdist")
    args = {"workers": ["-p", "xdist", "-n1"], "isolated": ["--imu-isolate"]}[how]

    result = run(pytester, "--imu-json=run.json", *args)
    tests = read_by_name(pytester)

    result.assert_outcomes(passed=1, failed=1)
    assert (how == "isolated") == tests["test_sizes[5000]"]["isolated"]
    assert "broken" == tests["test_sizes[5000]"]["budgets"][0]["verdict"]
    found = tests["test_sizes[5000]"]["growth"]
    assert 8 == len(found["c_bytes"])
    assert 4500 < found["bytes_a_call"] < 5500  # a worker has threads of its own
    assert "kept" == tests["test_sizes[10]"]["budgets"][0]["verdict"]


ASYNC = """
    import pytest

    KEPT = []

    @pytest.mark.{mark}
    @pytest.mark.max_growth_kib(0)
    async def test_clean():
        assert await double(2) == 4

    @pytest.mark.{mark}
    @pytest.mark.max_growth_kib(0)
    async def test_leak():
        KEPT.append(bytearray(5000))

    async def double(number):
        return 2 * number

    @pytest.fixture
    def anyio_backend():
        return "asyncio"
"""


@pytest.mark.parametrize(("plugin", "mark"), [("asyncio", "asyncio"), ("anyio", "anyio")])
def test_coroutines(pytester: pytest.Pytester, plugin: str, mark: str) -> None:
    """A coroutine is called again by the plugin that runs it; its clean calls grow nothing at all."""
    pytest.importorskip({"asyncio": "pytest_asyncio"}.get(plugin, plugin))
    scope = "asyncio_default_fixture_loop_scope = function" if plugin == "asyncio" else ""
    pytester.makeini(f"[pytest]\n{scope}\n")
    pytester.makepyfile(test_it=ASYNC.format(mark=mark))

    result = run(pytester, "-p", plugin, "--imu-json=run.json")
    tests = read_by_name(pytester)

    result.assert_outcomes(passed=1, failed=1)
    assert "broken" == tests["test_leak"]["budgets"][0]["verdict"]
    assert "kept" == tests["test_clean"]["budgets"][0]["verdict"]
    assert 0 == statistics.median(tests["test_clean"]["growth"]["blocks"])


def test_hypothesis(pytester: pytest.Pytester) -> None:
    """A call of such a test is a whole run of its examples; what hypothesis keeps is bounded."""
    pytest.importorskip("hypothesis")
    pytester.makepyfile(
        test_it="""
        import pytest
        from hypothesis import given, settings, strategies

        KEPT = []

        @pytest.mark.max_growth_kib(1)
        @settings(max_examples=5, database=None, derandomize=True, deadline=None)
        @given(strategies.integers())
        def test_clean(number):
            assert number == number

        @pytest.mark.max_growth_kib(1)
        @settings(max_examples=5, database=None, derandomize=True, deadline=None)
        @given(strategies.integers())
        def test_leak(number):
            KEPT.append(bytearray(5000))
        """
    )
    result = run(pytester, "-p", "_hypothesis_pytestplugin")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["grows by 2?.? KiB*over max_growth_kib(1): 8 of 8 calls*"])


def test_timeout_is_each_calls_own(pytester: pytest.Pytester) -> None:
    """Twelve calls have twelve times the time."""
    pytest.importorskip("pytest_timeout")
    pytester.makepyfile(
        """
        import threading

        import pytest

        @pytest.mark.timeout(3)
        @pytest.mark.max_growth_kib(1)
        def test_waits():
            threading.Event().wait(0.3)
        """
    )
    result = run(pytester, "-p", "pytest_timeout")
    result.assert_outcomes(passed=1)


def test_warning_instead_of_failure(pytester: pytest.Pytester) -> None:
    """imu_on_breach holds for this budget as for the others."""
    pytester.makepyfile(
        """
        import pytest

        KEPT = []

        @pytest.mark.max_growth_kib(1)
        def test_it():
            KEPT.append(bytearray(5000))
        """
    )
    result = run(pytester, "-o", "imu_on_breach=warn")
    result.assert_outcomes(passed=1, warnings=1)
    result.stdout.fnmatch_lines(["*BudgetWarning: grows by 4.9 KiB and 2 blocks a call, over *"])


def test_mocks_of_a_test_reach_no_count(pytester: pytest.Pytester) -> None:
    """What tests put in the place of the system's functions, and a debugger's hook, change nothing."""
    pytester.makepyfile(
        """
        import gc
        import os
        import sys
        import threading
        from unittest import mock

        import pytest

        KEPT = []

        @pytest.fixture
        def broken():
            names = ("os.listdir", "os.read", "gc.get_objects", "threading.active_count", "gc.collect")
            names += ("gc.freeze", "gc.unfreeze", "gc.get_freeze_count")
            patches = [mock.patch(name, side_effect=AssertionError) for name in names]
            patches += [mock.patch("sys.getallocatedblocks", side_effect=AssertionError)]
            for patch in patches:
                patch.start()
            yield
            for patch in patches:
                patch.stop()

        @pytest.mark.max_growth_kib(0)
        def test_clean(broken):
            pass

        @pytest.mark.max_growth_kib(1)
        def test_leak(broken):
            KEPT.append(bytearray(5000))
        """
    )
    result = run(pytester, "--imu-why")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        ["grows by 4.9 KiB and 2 blocks a call, over max_growth_kib(1): 8 of 8 *"]
    )


HARMS = """
    import io
    import sys
    import tracemalloc

    import pytest

    KEPT = []

    class Lazy:
        @property
        def __class__(self):
            raise RuntimeError("made up only when it is asked for")

    @pytest.fixture
    def lazy():
        return Lazy()

    @pytest.mark.max_growth_kib(0)
    def test_notes(record_property):
        record_property("a", 1)

    @pytest.mark.max_growth_kib(0)
    def test_closes_its_output():
        sys.stdout = io.StringIO()
        sys.stdout.close()

    @pytest.mark.max_growth_kib(0)
    def test_lazy(lazy):
        pass

    @pytest.mark.max_growth_kib(1)
    def test_traces_itself():
        tracemalloc.start()
        KEPT.append(bytearray(5050))  # to which tracing itself adds up to 90 bytes
        tracemalloc.stop()
"""


def test_what_a_body_does_to_our_own_tools(pytester: pytest.Pytester) -> None:
    """No fault of ours fails a test: it is said, and a leak that was counted is still one."""
    pytester.makepyfile(test_it=HARMS)
    result = run(pytester, "--imu-why", "-p", "no:faulthandler", "--junit-xml=out.xml")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        [
            "grows by 5.0 KiB and 2 blocks a call, over max_growth_kib(1): 8 of 8 *",
            "the lines are not known: RuntimeError: the tracemalloc module must be tracing*",
        ]
    )
    assert 1 == pytester.path.joinpath("out.xml").read_text(encoding="utf-8").count('name="a"')


def test_what_a_warm_up_does_to_our_own_tools(pytester: pytest.Pytester) -> None:
    """A warm-up of such a test is undone as far as that goes, and fails nothing: a fault is told."""
    marker = 'max_events("page-faults", 10**9, warmup=2)'
    mocks = """
    @pytest.fixture
    def broken(monkeypatch):
        monkeypatch.setattr("warnings.catch_warnings", None)

    @pytest.mark.max_growth_kib(0)
    def test_mocks(broken):
        pass
"""
    pytester.makepyfile(test_it=re.sub(r"max_growth_kib\(.\)", marker, HARMS + mocks))
    result = run(pytester, "-p", "no:faulthandler")
    result.assert_outcomes(passed=5, warnings=1)
    result.stdout.fnmatch_lines(["*imu: a warm-up could not be undone: TypeError: *"])


def test_each_call_has_the_whole_time(pytester: pytest.Pytester) -> None:
    """Eight calls that warm up take longer together than one may."""
    pytest.importorskip("pytest_timeout")
    pytester.makepyfile(
        test_it="""
        import time
        import pytest

        @pytest.mark.timeout(2)
        @pytest.mark.max_growth_kib(0, warmup=8, calls=2)
        def test_slow():
            time.sleep(0.3)
        """
    )
    run(pytester, "-p", "pytest_timeout").assert_outcomes(passed=1)
