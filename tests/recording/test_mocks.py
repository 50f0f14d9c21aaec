"""Mocks that are still active at a test's end change no outcome, lose no number and hang nothing."""

from __future__ import annotations

import importlib.util

import pytest

from pytest_imu.core.units import MIB
from running import run_and_read

ARGS = [(), ("--imu-children", "-o", "imu_gc=true")]


MOCKED = """
    import importlib
    import subprocess
    import sys

    import pytest

    def refuse(*args, **options):
        raise OSError("mocked")

    MOCKS = {
        "os.write": lambda descriptor, data: len(data),
        "os.read": lambda descriptor, size: b"data",
        "os.open": refuse,
        "os.close": lambda descriptor: None,
        "os.pread": lambda descriptor, size, offset: b"data",
        "os.listdir": lambda path=".": ["here"],
        "os.getpid": lambda: 4,
        "os.waitid": refuse,
        "os.path.exists": lambda path: False,
        "json.dumps": lambda value, **options: "{}",
        "time.perf_counter_ns": lambda: 0,
        "time.thread_time_ns": lambda: 0,
        "gc.collect": refuse,
        "resource.getrusage": refuse,
        "threading.Thread": None,
        "threading.Event": None,
        "sys.getallocatedblocks": refuse,
    }

    @pytest.fixture(params=MOCKS)
    def before_the_call(request, monkeypatch):
        monkeypatch.setattr(request.param, MOCKS[request.param])

    @pytest.fixture(params=MOCKS)
    def in_the_call(request, monkeypatch):
        return lambda: monkeypatch.setattr(request.param, MOCKS[request.param])

    @pytest.fixture(scope="session", autouse=True)
    def child():  # lives as long as the tests
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
            yield
            process.communicate(b"\\n")

    @pytest.mark.max_peak_mib(15)
    def test_passes(before_the_call):
        b"x" * (6 << 20)

    @pytest.mark.max_peak_mib(15)
    def test_passes_too(in_the_call):
        b"x" * (6 << 20)
        in_the_call()

    @pytest.mark.max_peak_mib(3)
    def test_breaks(in_the_call):
        b"x" * (6 << 20)
        in_the_call()

    def test_fails(in_the_call):
        b"x" * (6 << 20)
        in_the_call()
        assert False

    def test_last():
        b"x" * (6 << 20)
"""
MOCKS = 17


@pytest.mark.needs_kernel_peaks
@pytest.mark.parametrize(
    "args", [(), ("--imu-children", "-o", "imu_gc=true")], ids=["plain", "children"]
)
def test_what_tests_mock(pytester: pytest.Pytester, args: tuple[str, ...]) -> None:
    """What measuring is made of, mocked around the call or at its end, with a child process alive."""
    pytester.makepyfile(test_it=MOCKED)

    result, tests = run_and_read(pytester, "--imu", *args, "--tb=no")

    result.assert_outcomes(passed=2 * MOCKS + 1, failed=2 * MOCKS)
    assert 4 * MOCKS + 1 == len(tests)
    for name, test in tests.items():
        call = test["phases"]["call"]
        assert ("kernel", None) == (call["source"], call["reason"]), name
        assert abs(call["peak_bytes"] - 6 * MIB) < MIB, name
        if args:  # a thread cannot do without an Event
            assert ("passes[threading.Event]" in name) == (call["children_memory"]["samples"] == 0), name
        expected = "kept" if "passes" in name else "broken" if "breaks" in name else None
        assert [expected] * (expected is not None) == [one["verdict"] for one in test["budgets"]], name


REFUSED = """
    import threading

    import pytest

    def refuse(*args, **options):
        raise RuntimeError("can't start new thread")

    @pytest.fixture(params=[refuse, lambda self: None], ids=["raises", "does nothing"])
    def refused(request, monkeypatch):
        monkeypatch.setattr(threading.Thread, "start", request.param)

    @pytest.mark.max_peak_mib(50)
    def test_passes(refused):
        b"x" * (20 << 20)

    def test_fails(refused):
        assert False

    def test_last():
        pass
"""


@pytest.mark.needs_kernel_peaks
def test_threads_are_refused(pytester: pytest.Pytester) -> None:
    """Where no thread can be started the children alone are n/a, with the reason."""
    pytester.makepyfile(test_it=REFUSED)

    result, tests = run_and_read(pytester, "--imu", "--imu-children", "--tb=no")

    result.assert_outcomes(passed=3, failed=2)
    assert abs(tests["test_passes[raises]"]["phases"]["call"]["peak_bytes"] - 20 * MIB) < MIB
    reasons = {name: test["phases"]["call"]["children_memory"]["reason"] for name, test in tests.items()}
    assert {
        "test_passes[raises]": "RuntimeError: can't start new thread",
        "test_fails[raises]": "RuntimeError: can't start new thread",
        "test_passes[does nothing]": "RuntimeError: the thread was not started",
        "test_fails[does nothing]": "RuntimeError: the thread was not started",
        "test_last": None,
    } == {name: reason and reason.partition(": ")[2] for name, reason in reasons.items()}


@pytest.mark.needs_kernel_peaks
@pytest.mark.skipif(importlib.util.find_spec("pyfakefs") is None, reason="pyfakefs is not installed")
@pytest.mark.parametrize("args", ARGS, ids=["plain", "children"])
def test_fake_file_system(pytester: pytest.Pytester, args: tuple[str, ...]) -> None:
    """A budget is checked in pyfakefs's file system too, and the next test is measured as ever."""
    pytester.makepyfile(
        test_it="""
        import os

        import pytest

        @pytest.mark.max_peak_mib(50)
        def test_keeps(fs):
            fs.create_file("/there")
            assert not os.path.exists("/proc")
            b"x" * (20 << 20)

        @pytest.mark.max_peak_mib(10)
        def test_breaks(fs):
            b"x" * (20 << 20)

        @pytest.mark.max_peak_mib(50)
        def test_plain():
            b"x" * (20 << 20)
        """
    )

    result, tests = run_and_read(pytester, "--imu", "-p", "pyfakefs.pytest_plugin", *args)

    result.assert_outcomes(passed=2, failed=1)
    found = {name: [budget["verdict"] for budget in test["budgets"]] for name, test in tests.items()}
    assert {"test_keeps": ["kept"], "test_breaks": ["broken"], "test_plain": ["kept"]} == found
    for test in tests.values():
        assert abs(test["phases"]["call"]["peak_bytes"] - 20 * MIB) < MIB
