"""--imu-isolate, whatever a test has mocked as its reports are sent: none is lost, and none changes."""

from __future__ import annotations

import importlib.util

import pytest

from running import read_tests, run_isolated

pytestmark = pytest.mark.needs_fork

PASSED_AND_FAILED = """
    import os

    import pytest

    @pytest.mark.max_peak_mib(50)
    def test_passes(mocked):
        pass

    @pytest.mark.max_peak_mib(50)
    def test_fails(mocked):
        assert False, "as it should"

    def test_plain():
        pass
"""


def outcomes(pytester: pytest.Pytester) -> list[str]:
    """Return the outcomes of the JSON file's tests, sorted."""
    return sorted(test["outcome"] for test in read_tests(pytester))


MOCKED = """
    import importlib

    import pytest

    MOCKS = {
        "os.write": lambda descriptor, data: len(data),
        "os.read": lambda descriptor, size: b"data",
        "os.fork": lambda: 0,
        "os.getppid": lambda: 1,
        "os.kill": lambda pid, number: None,
        "os._exit": lambda status: None,
        "os.waitpid": lambda pid, options: (0, 0),
        "json.dumps": lambda value, **options: "{}",
        "json.loads": lambda text, **options: {},
        "pickle.dumps": lambda value, **options: b"",
        "pickle.loads": lambda data, **options: None,
        "marshal.dumps": lambda value: b"",
        "struct.pack": lambda form, *values: b"",
        "select.poll": lambda: None,
        "select.select": lambda *lists: ([], [], []),
        "signal.pthread_sigmask": lambda how, mask: None,
        "logging.shutdown": lambda: 1 / 0,
        "time.monotonic": lambda: 0.0,
    }

    @pytest.fixture(params=MOCKS)
    def until_teardown(request, monkeypatch):
        monkeypatch.setattr(request.param, MOCKS[request.param])

    @pytest.fixture(params=MOCKS)
    def for_good(request):
        module, _, name = request.param.rpartition(".")
        setattr(importlib.import_module(module), name, MOCKS[request.param])

    def test_passes(until_teardown):
        pass

    def test_fails(until_teardown):
        assert False

    def test_passes_for_good(for_good):
        pass

    def test_fails_for_good(for_good):
        assert False
"""
MOCKS = 18


def test_functions_that_a_test_mocks(pytester: pytest.Pytester) -> None:
    """Functions that channels are made of, mocked until the teardown or for good, change no outcome."""
    pytester.makepyfile(MOCKED)

    result = run_isolated(pytester, "--tb=no")

    result.assert_outcomes(passed=2 * MOCKS, failed=2 * MOCKS)
    assert ["failed"] * 2 * MOCKS + ["passed"] * 2 * MOCKS == outcomes(pytester)


@pytest.mark.parametrize("isolate", ["budgets", "all"])
@pytest.mark.parametrize(
    "conftest",
    [
        pytest.param(
            """
            import os
            import pytest

            @pytest.fixture
            def mocked(monkeypatch):
                monkeypatch.setattr(os, "getpid", lambda: 4)
            """,
            id="test",
        ),
        pytest.param(
            """
            import os
            import pytest

            @pytest.fixture(scope="session", autouse=True)
            def mocked():
                real, os.getpid = os.getpid, lambda: 4
                yield
                os.getpid = real
            """,
            id="session",
        ),
        pytest.param(
            """
            import os
            import pytest

            os.getpid = lambda: 4

            @pytest.fixture
            def mocked():
                pass
            """,
            id="import",
        ),
    ],
)
def test_getpid_is_mocked(pytester: pytest.Pytester, conftest: str, isolate: str) -> None:
    """A patched os.getpid, for one test, for the session or from the import on, loses no report."""
    pytester.makeconftest(conftest)
    pytester.makepyfile(PASSED_AND_FAILED)

    result = run_isolated(pytester, isolate=isolate)

    assert pytest.ExitCode.TESTS_FAILED == result.ret
    result.assert_outcomes(passed=2, failed=1)
    assert ["failed", "passed", "passed"] == outcomes(pytester)


def test_report_that_is_not_sent(pytester: pytest.Pytester) -> None:
    """A phase that was announced, and whose report was not sent, is that test's failure."""
    pytester.makeconftest(
        """
        import pytest

        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_protocol(item):
            if item.name == "test_lost":
                item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
                item.ihook.pytest_runtest_setup(item=item)
                item.ihook.pytest_runtest_call(item=item)
                item.ihook.pytest_runtest_teardown(item=item, nextitem=None)
                return True
        """
    )
    pytester.makepyfile("def test_lost(): pass\ndef test_next(): pass")

    # Without a plugin of its own in the way, a session never comes to see its tests' phases.
    result = run_isolated(pytester)

    assert pytest.ExitCode.TESTS_FAILED == result.ret
    result.stdout.fnmatch_lines(["the child process that ran this test sent no report of its setup"])
    assert ["crashed", "passed"] == outcomes(pytester)


@pytest.mark.skipif(importlib.util.find_spec("pyfakefs") is None, reason="pyfakefs is not installed")
def test_fake_file_system(pytester: pytest.Pytester) -> None:
    """With pyfakefs a test fails or passes as it does without isolation, and so does the next."""
    pytester.makeconftest("import pytest\n\n@pytest.fixture\ndef mocked(fs): fs.create_file('/there')")
    pytester.makepyfile(PASSED_AND_FAILED)

    result = run_isolated(pytester, "-p", "pyfakefs.pytest_plugin")

    result.assert_outcomes(passed=2, failed=1)


GEVENT = """
    import os
    import subprocess
    import threading

    import gevent

    def test_greenlets():
        greenlets = [gevent.spawn(gevent.sleep, 0.001) for _ in range(3)]
        assert greenlets == gevent.joinall(greenlets, timeout=60)

    def test_thread():
        event = threading.Event()
        thread = threading.Thread(target=event.set)
        thread.start()
        thread.join(60)
        assert event.is_set()

    def test_process():
        assert 0 == subprocess.run(["true"], timeout=60).returncode

    def test_fails():
        assert False

    def test_dies():
        os._exit(1)
"""


@pytest.mark.needs_gevent
@pytest.mark.parametrize(
    "patch",
    [
        "monkey.patch_all()",
        "monkey.patch_os()",
        "monkey.patch_all(); import gevent; gevent.sleep(0.001)",  # its loop runs before the fork
    ],
)
def test_gevent(pytester: pytest.Pytester, patch: str) -> None:
    """Gevent's own fork, waitpid, poll and sockets hang nothing, and its loop runs in each child."""
    pytester.makeconftest(f"from gevent import monkey; {patch}")
    pytester.makepyfile(GEVENT)

    run_isolated(pytester).assert_outcomes(passed=3, failed=2)
