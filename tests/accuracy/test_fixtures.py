"""Known answers for fixtures: what one makes is the setup's, whatever its scope, and not the call's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.accuracy.conftest import RunPlugin

pytestmark = pytest.mark.needs_kernel_peaks

MIB = 2**20
BOUND_MIB = 0.5
# More than 32 MiB each: glibc never makes that on a heap, which may hold room from before.
HELD_MIB = {"function": 40, "class": 44, "module": 48, "package": 52, "session": 56}
SPIKE_MIB = 70
CONFTEST = f"""
    import pytest

    HELD_MIB = {HELD_MIB}

    def make(scope):
        @pytest.fixture(scope=scope, name="of_" + scope)
        def fixture():
            len(b"x" * ({SPIKE_MIB} << 20))
            return b"x" * (HELD_MIB[scope] << 20)

        return fixture

    for scope in HELD_MIB:
        globals()["of_" + scope] = make(scope)
"""
SUITE = f"""
    import pytest

    class TestScopes:
        @pytest.mark.parametrize("scope", {list(HELD_MIB)})
        def test_first(self, request, scope):
            pass

        @pytest.mark.parametrize("scope", {list(HELD_MIB)})
        def test_next(self, request, scope):
            pass

        @pytest.fixture(autouse=True)
        def use(self, request, scope):
            request.getfixturevalue("of_" + scope)
"""


def within(expected_mib: float) -> Any:
    """Return what equals every number of bytes that is this many MiB, within the bound."""
    return pytest.approx(expected_mib * MIB, abs=BOUND_MIB * MIB)


def test_every_scope(pytester: pytest.Pytester, run_plugin: RunPlugin) -> None:
    """The first test that uses a fixture makes it in its setup; the next one only what is its own."""
    package = pytester.mkpydir("package")
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(test_scopes=SUITE)
    pytester.path.joinpath("test_scopes.py").rename(package / "test_scopes.py")

    tests = run_plugin()

    measured = {name: (test["phases"]["setup"], test["phases"]["call"]) for name, test in tests.items()}
    made = {scope: (SPIKE_MIB, held_mib) for scope, held_mib in HELD_MIB.items()}
    there = {**dict.fromkeys(HELD_MIB, (0, 0)), "function": made["function"]}
    assert {
        f"{test}[{scope}]": (within(peak_mib), within(delta_mib), within(0), within(0))
        for test, expected in (("test_first", made), ("test_next", there))
        for scope, (peak_mib, delta_mib) in expected.items()
    } == {
        name: (setup["peak_bytes"], setup["delta_bytes"], call["peak_bytes"], call["delta_bytes"])
        for name, (setup, call) in measured.items()
    }
