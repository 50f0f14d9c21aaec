"""Counted events in the plugin: columns, files, budgets, and machines that cannot count."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from running import run_here

TOUCHING = """
    import mmap
    import pytest

    def touch(pages):
        with mmap.mmap(-1, pages * mmap.PAGESIZE) as block:
            for start in range(0, pages * mmap.PAGESIZE, mmap.PAGESIZE):
                block[start] = 1

    touch(1)

    def test_thousand():
        touch(1000)

    @pytest.mark.max_events("page-faults", 1500)
    def test_kept(imu):
        touch(500)
        with imu.measure("part"):
            touch(700)

    @pytest.mark.max_events("page-faults", 500)
    def test_broken():
        touch(2000)
"""
SOURCES = [
    pytest.param("kernel", marks=pytest.mark.needs_kernel_counts),
    pytest.param("perf", marks=pytest.mark.needs_perf),
]
BREACH = 'page-faults 2,00? is over max_events("page-faults", 500) by 1,50? (30? %)'


def run(pytester: pytest.Pytester, *args: str) -> pytest.RunResult:
    """Run pytest in a process of its own."""
    return pytester.runpytest_subprocess("-p", "imu", "-p", "no:cacheprovider", *args)


def without_perf(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the run find a perf that says it is the distribution's wrapper, and nothing else."""
    perf = pytester.path / "bin" / "perf"
    perf.parent.mkdir()
    perf.write_text("#!/bin/sh\necho 'WARNING: perf not found for kernel 6.5.0-21' >&2\nexit 2\n")
    perf.chmod(0o755)
    monkeypatch.setenv("PATH", str(perf.parent))


def counters_of(document: dict[str, Any], name: str) -> dict[str, Any]:
    """Return what a test's call counted."""
    [test] = [test for test in document["tests"] if test["nodeid"].endswith(name)]
    counters: dict[str, Any] = test["phases"]["call"]["counters"]
    return counters


@pytest.fixture
def new_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no run be a fork: its first write to each page that it shares is a fault, too."""
    monkeypatch.setenv("PYTHONHASHSEED", "0")


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.usefixtures("new_processes")
def test_counts_are_reported_everywhere(pytester: pytest.Pytester, source: str) -> None:
    """`--imu-perf=EVENTS` gives each test's call its counts: section, JSON and JUnit XML."""
    pytester.makepyfile(TOUCHING)
    result = run(
        pytester,
        "--imu-perf=page-faults,task-clock",
        f"--imu-counters={source}",
        "--imu-json=out.json",
        "--junitxml=out.xml",
        "-v",
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(
        [
            BREACH,
            "*peak  delta  total   time  page-faults  * /s  task-clock  test",
            "* 1,00? *",
            "  test_cou*thousand",
        ]
    )
    document = json.loads((pytester.path / "out.json").read_text(encoding="utf-8"))
    faults = counters_of(document, "test_thousand")["page-faults"]
    keys = {"value", "per_second", "running_percent", "reason", "samples", "user_only", "source"}
    assert (keys, source) == (faults.keys(), faults["source"])
    assert 1000 <= faults["value"] <= 1005
    assert (None, 100.0) == (faults["reason"], faults["running_percent"])
    [call] = [t["phases"]["call"] for t in document["tests"] if t["nodeid"].endswith("test_thousand")]
    assert faults["per_second"] == faults["value"] * 10**9 / call["duration_ns"]
    # A busy machine may stretch the call beyond a tenth of a second: then the kernel's have no samples,
    # and perf's have several.
    has_samples = source == "perf" or call["duration_ns"] <= 10**8
    assert (faults["value"] if has_samples else 0) == sum(faults["samples"])
    kept = next(test for test in document["tests"] if test["nodeid"].endswith("test_kept"))
    assert {} == kept["phases"]["setup"]["counters"]
    assert 700 <= kept["blocks"][0]["counters"]["page-faults"]["value"] <= 705
    [budget] = kept["budgets"]
    assert ("max_events", "page-faults", 1500, "kept", None) == tuple(
        budget[key] for key in ("name", "event", "limit", "verdict", "reason")
    )
    properties = {
        one.get("name"): one.get("value")
        for one in ET.parse(  # noqa: S314 - written by the run above
            pytester.path / "out.xml"
        ).iterfind(".//*[@name='test_thousand']//property")
    }
    assert str(faults["value"]) == properties["imu_page_faults"]
    assert {"imu_page_faults_per_second", "imu_task_clock"} <= properties.keys()
    assert source == properties["imu_counter_source"]
    assert source == document["environment"]["counter_source"]


@pytest.mark.needs_kernel_counts
def test_event_budget_alone_switches_counting_on(pytester: pytest.Pytester) -> None:
    """Without any option a test with an event budget is counted, and the others are not measured."""
    pytester.makepyfile(TOUCHING)
    result = run(pytester, "--imu-json=out.json")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines([BREACH, "FAILED *::test_broken - *"])
    document = json.loads((pytester.path / "out.json").read_text(encoding="utf-8"))
    assert {} == counters_of(document, "test_thousand")
    assert 1200 <= counters_of(document, "test_kept")["page-faults"]["value"] <= 1225


@pytest.mark.needs_kernel_counts
@pytest.mark.usefixtures("new_processes")
def test_each_worker_counts_for_itself(pytester: pytest.Pytester) -> None:
    """Under xdist the counts are as without, and the legend warns of the neighbours."""
    pytester.makepyfile(TOUCHING)
    workers = ("-p", "xdist", "-n", "2")
    result = run(pytester, "--imu-perf=page-faults", *workers, "--imu-json=out.json")
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["counts of several workers: they share the caches *"])
    document = json.loads((pytester.path / "out.json").read_text(encoding="utf-8"))
    assert 1000 <= counters_of(document, "test_thousand")["page-faults"]["value"] <= 1005


@pytest.mark.needs_perf
def test_no_perf_is_left_behind(pytester: pytest.Pytester) -> None:
    """After a run, an interrupted one and one that is killed no perf of theirs is running."""
    noting = "import os\ndef test_end():\n    open('pid', 'w').write(str(os.getpid()))\n    "
    endings = {"pass": 0, "raise KeyboardInterrupt": 2, "os._exit(7)": 7}
    for number, (ending, status) in enumerate(endings.items()):
        pytester.makepyfile(**{f"test_{number}": noting + ending})
        perf = ("--imu-perf=page-faults", "--imu-counters=perf")
        assert status == run(pytester, *perf, f"test_{number}.py").ret
        wanted = f"\0stat\0-p\0{(pytester.path / 'pid').read_text(encoding='ascii')}\0".encode()
        # A perf whose process was killed sees that at its next tick.
        for _ in range(10_000):
            if not perfs(wanted):
                break
        assert [] == perfs(wanted)


def perfs(wanted: bytes) -> list[Path]:
    """Return the processes whose command line has *wanted*."""
    found = []
    for command_line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if wanted in command_line.read_bytes():
                found.append(command_line)
        except OSError:
            continue  # it has ended meanwhile
    return found


@pytest.mark.needs_kernel_counts
@pytest.mark.parametrize("isolated", [False, True])
def test_kernel_counts_beside_perf(pytester: pytest.Pytester, isolated: bool) -> None:  # noqa: FBT001 - pytest passes it
    """Where perf alone knows an event the kernel counts the others, and each reading says which did;
    in an isolated test as well.
    """
    without = pytester.makepyfile("def test_it(): bytearray(100 * 4096)")
    events = "--imu-perf=page-faults,sched:sched_nothing,cache-misses:u"
    result = run(pytester, events, *["--imu-isolate"] * isolated, "--imu-json=out.json", str(without))
    result.assert_outcomes(passed=1)
    document = json.loads((pytester.path / "out.json").read_text(encoding="utf-8"))
    counters = counters_of(document, "test_it")
    assert events.partition("=")[2].split(",") == list(counters)
    assert ["kernel", "perf", "kernel"] == [one["source"] for one in counters.values()]
    assert 0 < counters["page-faults"]["value"] < 5000
    assert counters["sched:sched_nothing"]["reason"]
    assert "kernel" == document["environment"]["counter_source"]


@pytest.mark.needs_user_space_counts
def test_counts_of_user_space_alone(pytester: pytest.Pytester) -> None:
    """Who may count no more than user space is told so: in the heading, below the table, in the JSON."""
    pytester.makepyfile(TOUCHING)
    pytester.makeconftest(
        """
        import ctypes, struct

        # CAP_SYS_ADMIN and CAP_PERFMON, each by its number's place in the two words of a set.
        LOOKING_INTO_THE_KERNEL = 1 << 21 | 1 << 38

        def pytest_collection_finish():
            libc = ctypes.CDLL(None)
            version = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0))
            data = ctypes.create_string_buffer(24)
            assert 0 == libc.capget(version, data)
            low, high = struct.unpack_from("I8xI", data)
            effective = (low | high << 32) & ~LOOKING_INTO_THE_KERNEL
            struct.pack_into("I", data, 0, effective & 0xFFFFFFFF)
            struct.pack_into("I", data, 12, effective >> 32)
            assert 0 == libc.capset(version, data)
        """
    )
    asked = ("--imu-perf=page-faults,context-switches", "-k", "thousand")
    result = run(pytester, *asked, "--imu-json=out.json")
    result.stdout.fnmatch_lines(
        [
            "*  page-faults:u  * /s  context-switches  test",
            "n/a in 1 row: context-switches not permitted (*paranoid=1 on the host*",
            "page-faults:u: in user space only, as no more is allowed",
        ]
    )
    document = json.loads((pytester.path / "out.json").read_text(encoding="utf-8"))
    counters = counters_of(document, "thousand")
    assert (True, None) == (counters["page-faults"]["user_only"], counters["context-switches"]["value"])
    assert "sysctl kernel.perf_event_paranoid=1" in counters["context-switches"]["reason"]


@pytest.mark.needs_kernel_counts
def test_no_descriptor_is_left(pytester: pytest.Pytester) -> None:
    """A run in this process leaves no descriptor of an event: each test here is looked at for that."""
    pytester.makepyfile("def test_it(): pass")
    asked = ("--imu-perf=page-faults,task-clock", "-p", "no:cacheprovider")
    result = pytester.runpytest_inprocess("-p", "pytest_imu.plugin", *asked)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*page-faults */s  task-clock  test"])


BUDGETED = """
    import pytest

    @pytest.mark.max_cache_misses(100_000)
    @pytest.mark.parametrize("n", range(3))
    def test_budgeted(n):
        pass
"""


@pytest.mark.needs_proc
def test_machine_without_counters_says_so_once(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be counted the run passes, the budgets are unchecked, and one line says why."""
    without_perf(pytester, monkeypatch)
    pytester.makepyfile(BUDGETED)
    result = run(pytester, "--imu", "--imu-counters=perf", "--imu-json=out.json")
    result.assert_outcomes(passed=3)
    reason = f"{pytester.path}/bin/perf is the distribution's wrapper, without a perf for this kernel"
    result.stdout.fnmatch_lines(
        [
            "* n/a",
            "  *test_budgeted?0?",
            f"n/a in 3 rows: cache-misses: {reason}",
            f"3 budgets not checked: cache-misses: {reason}",
            "  *test_budgeted?0?: max_cache_misses(100_000)",
        ]
    )
    document = json.loads((pytester.path / "out.json").read_text(encoding="utf-8"))
    counter = counters_of(document, "test_budgeted[0]")["cache-misses"]
    assert (None, None, reason) == (counter["value"], counter["per_second"], counter["reason"])
    assert "unchecked" == document["tests"][0]["budgets"][0]["verdict"]


@pytest.mark.needs_proc
def test_required_counts_fail_where_there_are_none(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `imu_perf_required` a budget that could not be checked fails its test, with the reason."""
    without_perf(pytester, monkeypatch)
    pytester.makepyfile(BUDGETED)
    result = run(pytester, "-o", "imu_perf_required=true", "-o", "imu_counters=perf")
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(
        ["max_cache_misses(100_000) could not be checked: cache-misses: *; imu_perf_required is on"]
    )


@pytest.mark.needs_perf
@pytest.mark.needs_cache_misses
def test_cache_misses_for_real(pytester: pytest.Pytester) -> None:
    """Where the machine counts them, reading 64 MiB breaks a budget of one cache miss."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.max_cache_misses(1)
        def test_reads():
            assert bytearray(64 * 2**20).count(1) == 0
        """
    )
    result = run(pytester)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["cache-misses * is over max_cache_misses(1) by *"])


@pytest.mark.needs_kernel_counts
def test_closest_event_budget_wins(pytester: pytest.Pytester) -> None:
    """A parameter's limit is closer than the function's, which is closer than the module's."""
    pytester.makepyfile(
        """
        import mmap
        import pytest

        pytestmark = pytest.mark.max_events("page-faults", 0)

        def touch(pages):
            with mmap.mmap(-1, pages * mmap.PAGESIZE) as block:
                for start in range(0, pages * mmap.PAGESIZE, mmap.PAGESIZE):
                    block[start] = 1

        def test_module():
            touch(100)

        @pytest.mark.max_events("page-faults", 1000)
        @pytest.mark.parametrize(
            "pages", [100, pytest.param(200, marks=pytest.mark.max_events("page-faults", 10))]
        )
        def test_function(pages):
            touch(pages)

        @pytest.mark.max_events("page-faults", None)
        def test_lifted():
            touch(300)
        """
    )
    result = run(pytester)
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(
        [
            'page-faults 1?? is over max_events("page-faults", 0) by 1??',
            'page-faults 2?? is over max_events("page-faults", 10) by 1?? (19?? %)',
        ]
    )


@pytest.mark.parametrize(
    ("marker", "expected"),
    [
        ("max_cache_misses('many')", "a number, 0 or more, or None"),
        ("max_cache_misses()", "one limit without a name, and optionally warmup="),
        ("max_cache_misses(1, 2)", "one limit without a name, and optionally warmup="),
        ("max_cache_misses(-1)", "a number, 0 or more, or None"),
        ("max_cache_misses(1, phase='setup')", "one limit without a name, and optionally warmup="),
        ("max_events(5)", "an event and a limit without a name, and optionally warmup="),
        ("max_events('a b', 5)", "an event as `perf list` names it"),
        ("max_events(5, 5)", "an event as `perf list` names it"),
        ("max_events('page-faults', True)", "a number, 0 or more, or None"),
    ],
)
def test_marker_that_makes_no_sense(pytester: pytest.Pytester, marker: str, expected: str) -> None:
    """A wrong event budget is a usage error that names the test, the value and what was expected."""
    pytester.makepyfile(f"import pytest\n@pytest.mark.{marker}\ndef test_it(): pass\n")
    result = run_here(pytester)
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines([f"ERROR: *::test_it: invalid {marker}: expected {expected}"])


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--imu-perf=a b"], "'a b' for --imu-perf: expected an event as `perf list` names it"),
        (["--imu-perf="], "'' for --imu-perf: expected an event as `perf list` names it"),
        (
            ["--imu-perf", "test_one.py"],
            "'test_one.py' for --imu-perf: expected *, not a path; write --imu-perf=EVENTS, *",
        ),
        (["-o", "imu_perf=x;y"], "'x;y' for -o imu_perf: expected an event as `perf list` names it"),
    ],
)
def test_option_that_makes_no_sense(pytester: pytest.Pytester, arguments: list[str], fault: str) -> None:
    """A wrong --imu-perf is a usage error before any test runs."""
    pytester.makepyfile(test_one="def test_it(): pass")
    result = run_here(pytester, *arguments)
    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines([f"ERROR: invalid value {fault}"])


@pytest.mark.needs_kernel_counts
def test_ini_counts_too(pytester: pytest.Pytester) -> None:
    """`imu_perf` in the ini file counts in every run, and the section comes with `--imu`."""
    pytester.makeini("[pytest]\nimu_perf = page-faults")
    pytester.makepyfile("def test_it(): pass")
    result = run(pytester, "--imu")
    result.stdout.fnmatch_lines(["peak  delta  total   time  page-faults  */s  test"])
    assert f"Python {sys.version.split()[0]}" in result.stdout.str()


@pytest.mark.parametrize("source", SOURCES)
def test_clock_that_a_test_stops(pytester: pytest.Pytester, source: str) -> None:
    """A test that breaks the clock and the sleep is counted, and so is the next one."""
    pytester.makepyfile(
        """
        import time

        def refuse(*_):
            raise RuntimeError("no clock here")

        def test_breaks(monkeypatch):
            for name in ("sleep", "monotonic", "perf_counter_ns"):
                monkeypatch.setattr(time, name, refuse)

        def test_after():
            assert time.monotonic() > 0
        """
    )
    counting = ("--imu-perf=page-faults", f"--imu-counters={source}")
    result = run(pytester, *counting, "--imu-json=out.json")
    result.assert_outcomes(passed=2)
    document = json.loads((pytester.path / "out.json").read_text(encoding="utf-8"))
    for name in ("test_breaks", "test_after"):
        assert counters_of(document, name)["page-faults"]["reason"] is None


@pytest.mark.parametrize("source", SOURCES)
def test_mocks_of_fixtures(pytester: pytest.Pytester, source: str) -> None:
    """What a fixture hides from its test is not hidden from us: its budget is checked, and the next."""
    pytester.makepyfile(
        """
        import os
        import shutil
        import subprocess
        import pytest

        def refuse(*_, **__):
            raise FileNotFoundError("hidden")

        @pytest.fixture
        def hidden(monkeypatch):
            with monkeypatch.context() as patch:
                patch.setenv("PATH", "/nowhere")
                for module, names in {
                    os: ("open", "read", "pread", "access", "listdir", "pipe"),
                    shutil: ("which",), subprocess: ("Popen", "run"),
                }.items():
                    for name in names:
                        patch.setattr(module, name, refuse)
                yield

        @pytest.mark.max_events("page-faults", 5000)
        def test_hidden(hidden):
            pass

        @pytest.mark.max_events("page-faults", 5000)
        def test_plain():
            pass

        @pytest.mark.max_events("page-faults", 5000)
        def test_closes():
            os.closerange(3, 256)

        @pytest.mark.max_events("page-faults", 5000)
        def test_after():
            pass
        """
    )
    counting = ("-o", f"imu_counters={source}")
    result = run(
        pytester, *counting, "--imu-json=out.json", "-s"
    )  # for capturing holds descriptors, too
    document = json.loads((pytester.path / "out.json").read_text(encoding="utf-8"))
    verdicts = {test["nodeid"].rpartition("::")[2]: test["budgets"][0] for test in document["tests"]}
    for name in ("test_hidden", "test_plain", "test_after"):
        assert ("kept", None) == (verdicts[name]["verdict"], verdicts[name]["reason"])
    assert verdicts["test_closes"]["reason"].endswith("were closed")
    result.assert_outcomes(passed=4)
