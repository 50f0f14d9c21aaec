"""Gives the tests of this folder their cases: `cases.py`, which is in no package."""

from __future__ import annotations

import functools
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.accuracy.cases import Case

CASES_FILE = Path(__file__).with_name("cases.py")
MIB = 2**20
RunPlugin = Callable[..., Mapping[str, Mapping[str, Any]]]


@functools.cache
def load_cases() -> Mapping[str, Case]:
    """Return the cases by name; they are loaded once, as numpy can be."""
    spec = importlib.util.spec_from_file_location("imu_known_answers", CASES_FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return {case.name: case for case in module.CASES}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that wants a `case` once with each of them.

    For those that want all they are loaded here too: pytester forgets what is imported in a test.
    """
    cases = load_cases() if {"case", "cases"} & {*metafunc.fixturenames} else {}
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", cases.values(), ids=cases.keys())


@pytest.fixture(scope="session")
def cases() -> Mapping[str, Case]:
    """Return the cases by name."""
    return load_cases()


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no array library's threads allocate in between."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")


@pytest.fixture
def run_plugin(pytester: pytest.Pytester) -> RunPlugin:
    """Return a function that runs the folder's tests measured; it takes further arguments for pytest.

    It returns the tests as the JSON file has them, by their names.
    """
    pytester.path.joinpath("cases.py").write_bytes(CASES_FILE.read_bytes())

    def run(*arguments: str) -> Mapping[str, Mapping[str, Any]]:
        ours = ("-p", "imu", "-p", "no:cacheprovider", "--imu", "--imu-json=run.json")
        result = pytester.runpytest_subprocess(*ours, *arguments)
        assert pytest.ExitCode.OK == result.ret
        text = pytester.path.joinpath("run.json").read_text(encoding="ascii")
        return {test["nodeid"].rpartition("::")[2]: test for test in json.loads(text)["tests"]}

    return run
