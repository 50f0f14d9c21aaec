"""The call phase's numbers in JUnit XML."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from suites import make_odd_tests

BOUND_MIB = 0.5
"""How far a peak may be off on Linux."""

NAMES = ["imu_peak_mib", "imu_delta_mib", "imu_total_mib", "imu_seconds", "imu_source"]
Properties = list[tuple[str | None, str | None]]

TESTS = """
    import pytest

    KEPT = []

    @pytest.fixture
    def held():
        return b"x" * (60 << 20)

    def test_big(held, record_property):
        record_property("imu_mine", "kept")
        record_property(1, "a name that is no text")
        KEPT.append(b"x" * (10 << 20))
        b"x" * (40 << 20)

    def test_failed():
        assert False

    @pytest.mark.skip
    def test_skipped():
        pass

    @pytest.fixture
    def bad():
        raise ValueError

    def test_error(bad):
        pass
"""


def run(pytester: pytest.Pytester, *args: str) -> dict[str, Properties]:
    """Run pytest with this plugin and --junit-xml; return the properties of each test, each once."""
    cases = run_for_cases(pytester, *args)
    properties = dict(cases)
    assert len(cases) == len(properties)
    return properties


def run_for_cases(pytester: pytest.Pytester, *args: str) -> list[tuple[str, Properties]]:
    """Run pytest with this plugin and --junit-xml; return each testcase's name and properties."""
    pytester.runpytest_subprocess("-p", "imu", "--imu", "--junit-xml=junit.xml", *args)
    document = ET.parse(pytester.path / "junit.xml")  # noqa: S314 - this very run has written it
    return [
        (case.get("name", ""), [(one.get("name"), one.get("value")) for one in case.iter("property")])
        for case in document.iter("testcase")
    ]


def names(properties: Properties) -> list[str | None]:
    """Return the properties' names."""
    return [name for name, _ in properties]


@pytest.mark.needs_kernel_peaks
def test_numbers_of_the_call(pytester: pytest.Pytester) -> None:
    """Each test whose call ran has the call's numbers, once, behind its own properties."""
    pytester.makepyfile(TESTS)

    properties = run(pytester)

    assert ["test_big", "test_failed", "test_skipped", "test_error"] == list(properties)
    assert ["imu_mine", "1", *NAMES] == names(properties["test_big"])
    assert NAMES == names(properties["test_failed"])
    assert [] == properties["test_skipped"] == properties["test_error"]
    _, _, *own = properties["test_big"]
    peak, delta, total, seconds = (float(value or "") for _, value in own[:4])
    assert abs(peak - 50) <= BOUND_MIB
    assert abs(delta - 10) <= BOUND_MIB
    assert 70 < total < 200
    assert 0 < seconds < 60
    assert ("imu_source", "kernel") == own[4]


def test_switched_off(pytester: pytest.Pytester) -> None:
    """With imu_junit = false no test has them, and the tests' own properties stay."""
    pytester.makepyfile(TESTS)
    pytester.makeini("[pytest]\nimu_junit = false\n")

    properties = run(pytester)

    assert [("imu_mine", "kept"), ("1", "a name that is no text")] == properties["test_big"]
    assert [] == properties["test_failed"]


@pytest.mark.needs_kernel_peaks
def test_from_workers(pytester: pytest.Pytester) -> None:
    """Under -n 2 the file has the same properties."""
    pytest.importorskip("xdist", reason="pytest-xdist is not installed")
    pytester.makepyfile(TESTS)

    properties = run(pytester, "-p", "xdist", "-n", "2")

    assert ["test_big", "test_error", "test_failed", "test_skipped"] == sorted(properties)
    assert ["imu_mine", "1", *NAMES] == names(properties["test_big"])
    assert NAMES == names(properties["test_failed"])
    assert [] == properties["test_skipped"] == properties["test_error"]
    assert abs(float(dict(properties["test_big"])["imu_peak_mib"] or "") - 50) <= BOUND_MIB


@pytest.mark.needs_kernel_peaks
def test_last_attempt(pytester: pytest.Pytester) -> None:
    """A test that was run again has the numbers of its last attempt alone, whether the rerun plugin
    makes one testcase of all attempts, as it did before 16, or one of each.
    """
    pytest.importorskip("pytest_rerunfailures", reason="pytest-rerunfailures is not installed")
    pytester.makepyfile(
        """
        LARGEST_LAST = [20, 40, 60]

        def test_flaky(record_property):
            record_property("imu_mine", "kept")
            mib = LARGEST_LAST.pop()
            b"x" * (mib << 20)
            assert mib == 20
        """
    )

    cases = run_for_cases(pytester, "-p", "rerunfailures", "--reruns=2")

    name, last = cases[-1]
    for _, properties in cases:
        assert 1 == names(properties).count("imu_source")
    assert ["imu_mine", "imu_mine", "imu_mine", *NAMES] == names(last)
    assert "test_flaky" == name
    assert abs(float(dict(last)["imu_peak_mib"] or "") - 20) <= BOUND_MIB


def test_odd_ids(pytester: pytest.Pytester) -> None:
    """Ids of any characters leave the file well-formed, and each test has its numbers."""
    odd = ['"quoted" <&>', "\x1b[31mred\x07\x00\n", "é \u2028 ]]> \U0001f40d", "lone \udcff"]
    make_odd_tests(pytester, odd)

    # pytest's own cache cannot write lone surrogates.
    properties = run(pytester, "-p", "no:cacheprovider")

    assert len(odd) == len(properties)
    assert [NAMES] * len(odd) == [names(own) for own in properties.values()]
