"""First imports are no test's need: named where they count, and measured away in isolated tests."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_imu.core.imports import count_modules, heavy_packages, imported, new_modules
from running import Test, run_and_read

pytestmark = [pytest.mark.needs_kernel_peaks, pytest.mark.needs_fork]

MIB = 2**20
HEAVY = f"TABLE = [bytes(1000) for _ in range(20_000)]\nTEXT = '{'x' * 400_000}'\n"
SUITE = """
    import os

    import pytest

    def note():
        with open("ran", "a") as file:
            print(os.getpid(), file=file)

    def test_first():
        note()
        import heavy
        bytearray(8 * 2**20)

    @pytest.mark.max_peak_mib(10)
    def test_second():
        note()
        import heavy
        bytearray(8 * 2**20)

    @pytest.mark.imu_no_rerun
    def test_other():
        note()
        import other
"""


def run_suite(pytester: pytest.Pytester, *args: str) -> tuple[pytest.RunResult, dict[str, Test]]:
    """Run the suite; return the result and the call of each test by its name."""
    pytester.makepyfile(test_it=SUITE, heavy=HEAVY, other=HEAVY)
    result, tests = run_and_read(pytester, "-p", "no:cacheprovider", "--imu", *args)
    return result, {name: test["phases"]["call"] for name, test in tests.items()}


def test_a_row_names_what_it_imported(pytester: pytest.Pytester) -> None:
    """In the suite's own process the first to import a large package says so."""
    result, calls = run_suite(pytester)

    result.assert_outcomes(passed=3)
    assert [["heavy"], [], ["other"]] == [call["imports"] for call in calls.values()]
    result.stdout.fnmatch_lines(["*test_first (imports heavy)"])
    assert calls["test_first"]["peak_bytes"] > 27 * MIB


@pytest.mark.parametrize("workers", [(), ("-n", "1", "-p", "xdist")], ids=["here", "xdist"])
def test_isolated_rows_hold_no_first_import(pytester: pytest.Pytester, workers: tuple[str, ...]) -> None:
    """Isolated, it is measured once more with the package there, and what that takes is said once."""
    if workers:
        pytest.importorskip("xdist")
    result, calls = run_suite(pytester, "--imu-isolate=all", *workers)

    result.assert_outcomes(passed=3)
    for name in ("test_first", "test_second"):
        assert [] == calls[name]["imports"]
        assert abs(calls[name]["peak_bytes"] - 8 * MIB) <= MIB / 2
    assert ["other"] == calls["test_other"]["imports"]  # it must not run twice
    result.stdout.re_match_lines([r"first imports: heavy 2\d\.\d$"])
    assert 4 == len(Path("ran").read_text(encoding="ascii").split())


def test_what_counts_as_heavy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only packages whose new modules have large files are named, and only if the block kept enough."""
    monkeypatch.syspath_prepend(tmp_path)
    for name, text in {"imu_heavy": HEAVY, "imu_light": "x = 1"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("", encoding="ascii")
        (tmp_path / name / "part.py").write_text(text, encoding="ascii")
    count = count_modules()
    for name in ("imu_heavy.part", "imu_light.part"):
        importlib.import_module(name)

    assert ["imu_heavy", "imu_heavy.part", "imu_light", "imu_light.part"] == new_modules(count)
    assert ("imu_heavy",) == heavy_packages(new_modules(count))
    assert ("imu_heavy",) == imported(count, 0, MIB)
    assert () == imported(count, 0, MIB - 1) == imported(count, None, None)
    assert () == imported(count_modules(), 0, MIB)


def test_what_stands_among_the_modules_may_be_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lazy module that raises, or a name that is none, is no package; nothing reaches the block."""

    class Lazy:
        def __getattr__(self, name: str) -> object:
            raise RuntimeError(name)

    count = count_modules()
    modules: dict[Any, Any] = sys.modules
    monkeypatch.setitem(modules, "imu_lazy", Lazy())
    assert () == imported(count, 0, MIB)
    monkeypatch.setitem(modules, 7, Lazy())
    assert () == imported(count, 0, MIB)
