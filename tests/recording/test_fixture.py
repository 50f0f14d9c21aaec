"""The `imu` fixture: named blocks inside a test, with and without a report."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., pytest.RunResult]

SPIKES = """
    import mmap

    # The kernel counts shared memory apart: with private, shared and file pages the mark may read
    # over half a MiB low, and the tests hold it to that.
    PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}

    def touched(mib):
        block = mmap.mmap(-1, mib << 20, **PRIVATE)
        block[::4096] = b"x" * (mib << 8)
        return block
"""
BLOCKS = """
    import pytest
    from spikes import touched

    MIB = 2**20
    kept = []

    def test_numbers(imu):
        with imu.measure("load") as m:
            kept.append(touched(8))
            touched(16).close()
        assert pytest.approx(24, abs=0.5) == m.peak_bytes / MIB
        assert pytest.approx(8, abs=0.5) == m.delta_bytes / MIB
        assert m.after_bytes - m.before_bytes == m.delta_bytes
        assert m.rss_peak_bytes - m.before_bytes == m.peak_bytes
        assert m.duration_ns > 0
        assert "kernel" == m.source

    def test_nested(imu):
        with imu.measure("outer") as outer:
            touched(16).close()
            with imu.measure("inner") as inner:
                touched(8).close()
        assert pytest.approx(16, abs=0.5) == outer.peak_bytes / MIB
        assert pytest.approx(8, abs=0.5) == inner.peak_bytes / MIB
        assert inner.duration_ns < outer.duration_ns

    def test_raising(imu):
        with pytest.raises(ZeroDivisionError), imu.measure("raises") as m:
            touched(8).close()
            1 / 0
        assert pytest.approx(8, abs=0.5) == m.peak_bytes / MIB

    def test_numbers_of_a_running_block(imu):
        with imu.measure("running") as m:
            with pytest.raises(RuntimeError, match="has not ended yet"):
                m.peak_bytes

    @pytest.fixture
    def data(imu):
        with imu.measure("build"):
            block = touched(8)
        yield block
        with imu.measure("close"):
            block.close()

    def test_fixture(data, imu):
        with imu.measure("use"):
            pass

    def test_twice(imu):
        for _ in range(2):
            with imu.measure("same"):
                pass
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs pytest in 80 columns, with this plugin and no other."""
    monkeypatch.setenv("COLUMNS", "80")
    pytester.makepyfile(spikes=SPIKES)
    return functools.partial(pytester.runpytest_subprocess, "-p", "imu")


@pytest.mark.needs_kernel_peaks
@pytest.mark.parametrize("options", [[], ["--imu"], ["--no-imu"]], ids=["idle", "on", "off"])
def test_numbers_are_there_whatever_is_reported(
    run: Run, pytester: pytest.Pytester, options: list[str]
) -> None:
    """A block has its numbers with `--imu`, without, with `--no-imu`: nested, raising, in fixtures."""
    pytester.makepyfile(test_blocks=BLOCKS)

    run(*options).assert_outcomes(passed=6)


@pytest.mark.needs_kernel_peaks
def test_blocks_appear_under_their_test_in_json_and_verbose_section(
    run: Run, pytester: pytest.Pytester
) -> None:
    """Each block is in its test's `blocks`, in the order in which they ended, and below it with `-v`."""
    pytester.makepyfile(test_blocks=BLOCKS)

    result = run("--imu", "-v", "--imu-sort=name", "--imu-json=run.json")

    tests = json.loads((pytester.path / "run.json").read_text(encoding="utf-8"))["tests"]
    blocks: dict[str, list[dict[str, Any]]] = {
        test["nodeid"].partition("::")[2]: test["blocks"] for test in tests
    }
    assert {
        "test_numbers": ["load"],
        "test_nested": ["inner", "outer"],
        "test_raising": ["raises"],
        "test_numbers_of_a_running_block": ["running"],
        "test_fixture": ["build", "use", "close"],
        "test_twice": ["same", "same"],
    } == {name: [block["name"] for block in own] for name, own in blocks.items()}
    [load] = blocks["test_numbers"]
    assert pytest.approx([24, 8], abs=0.5) == [
        load["peak_bytes"] / 2**20,
        load["delta_bytes"] / 2**20,
    ]
    result.stdout.re_match_lines(
        [
            r".*s  test_blocks\.py::test_fixture$",
            r".*s    block build$",
            r".*s    block use$",
            r".*s    block close$",
            r".*s  test_blocks\.py::test_nested$",
            r".*s    block inner$",
            r".*s    block outer$",
        ],
        consecutive=True,
    )


def test_name_that_is_none_is_a_type_error(run: Run, pytester: pytest.Pytester) -> None:
    """A block's name is not empty; the error shows what was given and says so."""
    pytester.makepyfile(
        test_names="""
            import re
            import pytest

            @pytest.mark.parametrize("name", ["", None, 3, b"load", ["load"], len])
            def test_bad_name(imu, name):
                said = f"invalid imu.measure({name!r}): expected a name that is not empty"
                with pytest.raises(TypeError, match="^" + re.escape(said) + "$"):
                    imu.measure(name)

            def test_no_name(imu):
                with pytest.raises(TypeError, match="name"):
                    imu.measure()
        """
    )

    run("--imu").assert_outcomes(passed=7)


@pytest.mark.needs_kernel_peaks
def test_budget_counts_what_its_blocks_count(run: Run, pytester: pytest.Pytester) -> None:
    """Measuring a block inside does not hide its peak from the budget of the test around it."""
    pytester.makepyfile(
        test_budget="""
            import pytest
            from spikes import touched

            @pytest.mark.max_peak_mib(4)
            def test_over(imu):
                touched(8).close()
                with imu.measure("little"):
                    pass
        """
    )

    result = run()

    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines([r"peak (7\.[5-9]|8\.\d) MiB is over max_peak_mib\(4\) by .*"])


def test_fixture_is_listed_with_its_use(run: Run, pytester: pytest.Pytester) -> None:
    """`pytest --fixtures` shows how the fixture is used; a session fixture cannot ask for it."""
    pytester.makepyfile(
        test_scope="""
            import pytest

            @pytest.fixture(scope="session")
            def data(imu):
                pass

            def test_scope(data):
                pass
        """
    )

    listed = run("--fixtures")
    mismatch = run()

    listed.stdout.fnmatch_lines(["imu -- *", '*`with imu.measure("load") as m: ...`*'])
    mismatch.assert_outcomes(errors=1)
    mismatch.stdout.fnmatch_lines(["ScopeMismatch: *imu*"])


def test_decorated_function_is_a_block_a_call(pytester: pytest.Pytester, run: Run) -> None:
    """`@imu.measure(name)` records a block of that name for each call of the function."""
    pytester.makepyfile(
        """
        def test_calls(imu):
            @imu.measure("load")
            def load():
                return 5

            assert 5 == load() == load()
        """
    )
    result = run("--imu-json=out.json")
    result.assert_outcomes(passed=1)
    [test] = json.loads(pytester.path.joinpath("out.json").read_text(encoding="ascii"))["tests"]
    assert ["load", "load"] == [block["name"] for block in test["blocks"]]
