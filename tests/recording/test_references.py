"""The plugin keeps nothing alive: not what a test made, no exception, no test, and little of its own."""

from __future__ import annotations

import json
from typing import Any

import pytest

PLUGIN_BYTES_PER_TEST = 3 * 1024
"""What the plugin may keep of a test until the run ends: its row with three measurements."""

CONFTEST = """
    import gc
    import json
    import weakref
    from pathlib import Path

    import pytest

    gc.disable()  # collections come when they are asked for, and never by chance

    class Thing:
        pass

    class CustomError(Exception):
        pass

    made = {}
    alive = {}

    def names_alive():
        return sorted(name for name, thing in made.items() if thing() is not None)

    @pytest.fixture
    def make(request):
        def make(name, kind=Thing):
            thing = kind(name) if kind is CustomError else kind()
            made[f"{request.node.name}: {name}"] = weakref.ref(thing)
            return thing
        return make

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(item):
        at_once = names_alive()
        gc.collect()
        alive[item.name] = {"at once": at_once, "collected": names_alive()}

    def pytest_sessionfinish(session):
        items = [weakref.ref(item) for item in session.items]
        session.items.clear()
        gc.collect()
        alive["items after the run"] = len([item for item in items if item() is not None])
        Path("alive.json").write_text(json.dumps(alive))
"""

TESTS = """
    import unittest

    import pytest
    from conftest import CustomError

    def test_local(make):
        local = make("local")

    @pytest.fixture
    def value(make):
        yield make("fixture value")
        make("local of teardown")

    def test_fixture(value):
        pass

    def test_raises(make):
        with pytest.raises(CustomError) as raised:
            local = make("local")
            raise make("exception", CustomError)
        del raised

    @pytest.mark.filterwarnings("ignore")
    def test_block(make, request):
        imu = request.getfixturevalue("imu") if request.config.pluginmanager.has_plugin("imu") else None
        if imu is not None:
            with imu.measure("block"):
                local = make("local of a block")

    @pytest.mark.max_peak_mib(1000)
    @pytest.mark.max_delta_mib(1000, phase="all")
    def test_kept(make, value):
        local = make("local")

    @pytest.mark.max_peak_mib(10)
    def test_over_its_budget(make, value):
        local = make("local")
        b"x" * (20 << 20)

    def test_failed(make, value):
        local = make("local")
        raise make("exception", CustomError)

    def test_skipped(make, value):
        local = make("local")
        pytest.skip("inside")

    @pytest.mark.xfail
    def test_xfailed(make, value):
        local = make("local")
        raise make("exception", CustomError)

    def test_passed():
        pass

    class TestCase(unittest.TestCase):
        @pytest.fixture(autouse=True)
        def set_make(self, make):
            self.make = make

        def setUp(self):
            self.held = self.make("attribute")

        @pytest.mark.max_peak_mib(1000)
        def test_case(self):
            pass

        @pytest.mark.max_peak_mib(1000)
        def test_case_failed(self):
            local = self.make("local")
            self.assertEqual(1, 2)

        def test_case_skipped(self):
            local = self.make("local")
            self.skipTest("inside")

    def test_last():
        pass
"""


def test_nothing_outlives_its_test(pytester: pytest.Pytester) -> None:
    """What a test made dies as early with the plugin, measuring or not, as it does without it: for a
    test that passed, or was over its budget, at once.
    """
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TESTS)

    def alive(*args: str, passed: int, failed: int) -> dict[str, Any]:
        result = pytester.runpytest_subprocess("-p", "no:cacheprovider", *args)
        result.assert_outcomes(passed=passed, failed=failed, skipped=2, xfailed=1)
        found: dict[str, Any] = json.loads(pytester.path.joinpath("alive.json").read_text("ascii"))
        return found

    files = ("--imu-json=run.json", "--imu-log=run.jsonl", "--junit-xml=junit.xml")
    without = alive("-p", "no:imu", passed=9, failed=2)
    measured = alive("-p", "imu", "--imu", *files, passed=8, failed=3)
    idle = alive("-p", "imu", passed=8, failed=3)

    order = list(measured)
    for name in ("test_fixture", "test_raises", "test_block", "test_kept", "test_over_its_budget"):
        after = order[order.index(name) + 1]
        assert {"at once": [], "collected": []} == measured[after]
    assert 0 == measured["items after the run"]
    assert without == measured
    assert without == idle


def test_memory_per_test_is_bounded(pytester: pytest.Pytester) -> None:
    """What the plugin itself keeps grows by no more than 3 KiB a test, and no faster later on."""
    pytester.makeconftest(
        """
        import gc
        import json
        import tracemalloc
        from pathlib import Path

        import pytest_imu

        FOLDER = str(Path(pytest_imu.__file__).parent)
        kept_bytes = []

        def pytest_runtest_logfinish(nodeid):
            # What the first test costs comes once and is not counted.
            number = int(nodeid.partition("[")[2].rstrip("]"))
            if number == 0:
                tracemalloc.start(4)
            elif number in (50, 150):
                gc.collect()
                kept_bytes.append(plugin_bytes())

        def plugin_bytes():
            # All that is allocated in a function of the plugin, or right below one.
            return sum(
                trace.size
                for trace in tracemalloc.take_snapshot().traces
                if any(frame.filename.startswith(FOLDER) for frame in trace.traceback)
            )

        def pytest_unconfigure():
            Path("kept.json").write_text(json.dumps(kept_bytes))
        """
    )
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.max_peak_mib(1000)
        @pytest.mark.parametrize("number", range(151))
        def test_trivial(number):
            pass
        """
    )

    result = pytester.runpytest_subprocess(
        *("-p", "imu", "-p", "no:cacheprovider", "--imu", "--imu-json=run.json", "--imu-log=run.jsonl")
    )
    kept_bytes = json.loads(pytester.path.joinpath("kept.json").read_text("ascii"))

    result.assert_outcomes(passed=151)
    first_50_bytes, all_150_bytes = kept_bytes
    assert 0 < first_50_bytes <= 50 * PLUGIN_BYTES_PER_TEST
    assert first_50_bytes < all_150_bytes <= first_50_bytes + 100 * PLUGIN_BYTES_PER_TEST
