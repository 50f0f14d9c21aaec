"""The JSON file: its shape, its outcomes, and that it is whole or not there."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pytest_imu.history.source import digest
from running import run, run_here
from suites import make_odd_tests

needs_no_root = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="needs a user whom a folder's permissions can stop; root writes anywhere",
)
needs_file_size_limits = pytest.mark.skipif(
    sys.platform == "win32", reason="needs RLIMIT_FSIZE, which Windows does not have"
)

TEST_KEYS = [
    "nodeid",
    "attempt",
    "worker",
    "started_at",
    "started_ns",
    "ended_ns",
    "outcome",
    "failed_by_budget",
    "isolated",
    "phases",
    "teardown_kept_bytes",
    "blocks",
    "budgets",
    "why",
    "growth",
    "timeline",
]
MEASUREMENT_KEYS = [
    "before_bytes",
    "after_bytes",
    "rss_peak_bytes",
    "delta_bytes",
    "peak_bytes",
    "duration_ns",
    "started_ns",
    "source",
    "reason",
    "reusable_bytes",
    "tracer",
    "had_children",
    "children_memory",
    "imports",
    "counters",
]

EVERY_OUTCOME = """
    import pytest

    def test_passed():
        pass

    def test_failed():
        assert False

    @pytest.mark.skip(reason="by mark")
    def test_skipped_by_mark():
        pass

    def test_skipped_inside():
        pytest.skip("inside")

    @pytest.mark.xfail
    def test_xfailed():
        assert False

    @pytest.mark.xfail(run=False)
    def test_xfailed_unrun():
        assert False

    @pytest.mark.xfail
    def test_xpassed():
        pass

    @pytest.mark.xfail(strict=True)
    def test_xpassed_strict():
        pass

    @pytest.fixture
    def bad_setup():
        raise ValueError

    def test_setup_error(bad_setup):
        pass

    @pytest.fixture
    def bad_teardown():
        yield
        raise ValueError

    def test_teardown_error(bad_teardown):
        pass

    def test_failed_and_teardown_error(bad_teardown):
        assert False
"""

EVERY_VERDICT = """
    import pytest

    def test_blocks(imu):
        with imu.measure("first"):
            pass
        with imu.measure("second"):
            pass

    @pytest.mark.max_peak_mib(100)
    def test_kept():
        pass

    @pytest.mark.max_peak_mib(0.5)
    def test_broken():
        kept = b"x" * (20 << 20)

    @pytest.mark.max_delta_mib(100, phase="all")
    def test_unchecked():
        assert False
"""


def read(path: Path) -> dict[str, Any]:
    """Return a JSON file's document."""
    document: dict[str, Any] = json.loads(path.read_text(encoding="ascii"))
    return document


def by_name(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the document's tests by the last part of their ids."""
    return {test["nodeid"].rpartition("::")[2]: test for test in document["tests"]}


def test_document_shape(pytester: pytest.Pytester) -> None:
    """The document has the keys that docs/json.md describes, in their order; it is there without --imu
    too, in parent folders made for it.
    """
    pytester.makepyfile(test_it=EVERY_VERDICT)

    result = run(pytester, "--imu-json=deep/er/run.json")
    document = read(pytester.path / "deep" / "er" / "run.json")
    tests = by_name(document)

    result.assert_outcomes(passed=2, failed=2)
    result.stdout.no_fnmatch_line("*largest peak first*")
    assert ["schema", "created", "environment", "tests"] == list(document)
    assert 1 == document["schema"]
    assert dt.timedelta(0) == dt.datetime.fromisoformat(document["created"]).utcoffset()
    assert {"python", "platform", "pytest", "pytest_imu", "plugins"} <= set(document["environment"])
    assert pytest.__version__ == document["environment"]["packages"]["pytest"]
    source = digest((pytester.path / "test_it.py").read_bytes())
    assert {"test_it.py": source} == document["environment"]["sources"]
    for test in document["tests"]:
        assert TEST_KEYS == list(test)
        assert (1, None) == (test["attempt"], test["worker"])
        assert ["setup", "call", "teardown"] == list(test["phases"])
        teardown = test["phases"].pop("teardown")  # a budget over the whole test has it measured
        assert (teardown is None) == all(one["phase"] != "all" for one in test["budgets"])
        for measurement in [*test["phases"].values(), *([teardown] if teardown else [])]:
            check_measurement(measurement)
    assert ["first", "second"] == [block.pop("name") for block in tests["test_blocks"]["blocks"]]
    for block in tests["test_blocks"]["blocks"]:
        check_measurement(block)
    for name, expected in (
        ("test_kept", ("max_peak_mib", 100, "call", None, "kept")),
        ("test_broken", ("max_peak_mib", 0.5, "call", None, "broken")),
        ("test_unchecked", ("max_delta_mib", 100, "all", None, "unchecked")),
    ):
        [budget] = tests[name]["budgets"]
        assert {"name", "limit", "actual", "verdict", "reason", "phase", "origin"} <= budget.keys()
        assert budget["unreliable"] is False
        got = tuple(budget[key] for key in ("name", "limit", "phase", "origin", "verdict"))
        assert expected == got
    assert tests["test_kept"]["budgets"][0]["reason"] is None
    assert tests["test_broken"]["budgets"][0]["actual"] > 10
    assert "is over max_peak_mib(0.5)" in tests["test_broken"]["budgets"][0]["reason"]
    assert tests["test_unchecked"]["budgets"][0]["actual"] is None
    assert "the test did not run to its end" == tests["test_unchecked"]["budgets"][0]["reason"]


def test_starts_are_in_order(pytester: pytest.Pytester) -> None:
    """A test's start stands in both clocks; its phases and blocks begin and end in their order."""
    pytester.makepyfile(
        """
        import time

        def test_first(imu, monkeypatch):
            monkeypatch.setattr(time, "time_ns", lambda: 0)
            with imu.measure("block"):
                pass

        def test_second():
            pass
        """
    )
    begin = dt.datetime.now(dt.UTC)
    result = run(pytester, "--imu-json=run.json")
    end = dt.datetime.now(dt.UTC)
    first, second = read(pytester.path / "run.json")["tests"]

    result.assert_outcomes(passed=2)
    parts = [first, first["phases"]["setup"], first["phases"]["call"], first["blocks"][0], second]
    assert sorted(part["started_ns"] for part in parts) == [part["started_ns"] for part in parts]
    setup, call = (first["phases"][phase] for phase in ("setup", "call"))
    assert setup["started_ns"] + setup["duration_ns"] < call["started_ns"]
    assert call["started_ns"] + call["duration_ns"] < second["started_ns"]
    times = [dt.datetime.fromisoformat(test["started_at"]) for test in (first, second)]
    assert sorted([begin, *times, end]) == [begin, *times, end]
    apart_us = (times[1] - times[0]) // dt.timedelta(microseconds=1)
    assert abs(apart_us - (second["started_ns"] - first["started_ns"]) // 1000) <= 1


def check_measurement(measurement: dict[str, Any]) -> None:
    """Assert that a measurement has its keys, whole numbers, and that they agree with each other."""
    assert MEASUREMENT_KEYS == list(measurement)
    numbers = [value for key, value in measurement.items() if key.endswith(("_bytes", "_ns"))]
    assert {int} == {type(value) for value in numbers}
    before_bytes, after_bytes, highest_bytes, delta_bytes, peak_bytes, *rest = numbers
    duration_ns, started_ns, reusable = rest
    assert reusable >= 0
    assert [None] * 2 == [measurement[key] for key in ("tracer", "children_memory")]
    assert measurement["had_children"] in (None, False)  # of a setup it is told with the call
    assert delta_bytes == after_bytes - before_bytes
    assert peak_bytes == highest_bytes - before_bytes
    assert highest_bytes >= max(before_bytes, after_bytes) > 2**20
    assert min(duration_ns, started_ns) > 0
    assert measurement["source"] in ("kernel", "sampled")
    assert {} == measurement["counters"]


def test_outcomes(pytester: pytest.Pytester) -> None:
    """Each test has pytest's own word for what became of it, and null for the phases it never had."""
    pytester.makepyfile(test_it=EVERY_OUTCOME)

    result = run(pytester, "--imu-json=run.json")
    tests = by_name(read(pytester.path / "run.json"))

    result.assert_outcomes(passed=2, failed=3, skipped=2, xfailed=2, xpassed=1, errors=3)
    assert {
        "test_passed": ("passed", True),
        "test_failed": ("failed", True),
        "test_skipped_by_mark": ("skipped", False),
        "test_skipped_inside": ("skipped", True),
        "test_xfailed": ("xfailed", True),
        "test_xfailed_unrun": ("xfailed", False),
        "test_xpassed": ("xpassed", True),
        "test_xpassed_strict": ("failed", True),
        "test_setup_error": ("error", False),
        "test_teardown_error": ("error", True),
        "test_failed_and_teardown_error": ("failed", True),
    } == {name: (test["outcome"], test["phases"]["call"] is not None) for name, test in tests.items()}
    for test in tests.values():
        assert test["phases"]["setup"] is not None
        assert test["phases"]["teardown"] is None


def test_odd_ids(pytester: pytest.Pytester) -> None:
    """Ids of any characters come back from the file as they were."""
    names = [
        '"quoted" \\back',
        "\x1b[31mred\x07\x00\n",
        "é \u2028 \U0001f40d",
        "lone \udcff",
        "[a-b]::c",
    ]
    make_odd_tests(pytester, names)

    # pytest's own cache cannot write lone surrogates.
    result = run(pytester, "-p", "no:cacheprovider", "--imu", "--imu-json=run.json")

    assert pytest.ExitCode.OK == result.ret
    assert [f"ids.odd::{name}" for name in names] == [
        test["nodeid"] for test in read(pytester.path / "run.json")["tests"]
    ]


def test_stopped_by_first_failure_without_terminal(pytester: pytest.Pytester) -> None:
    """After -x, and with -p no:terminal, the file holds the tests that ran."""
    pytester.makepyfile(
        """
        def test_first():
            pass

        def test_second():
            assert False

        def test_third():
            pass
        """
    )

    result = run(pytester, "-x", "-p", "no:terminal", "--imu-json=run.json")

    assert pytest.ExitCode.TESTS_FAILED == result.ret
    assert [("test_first", "passed"), ("test_second", "failed")] == [
        (name, test["outcome"]) for name, test in by_name(read(pytester.path / "run.json")).items()
    ]


@pytest.mark.parametrize("stop", ["raise KeyboardInterrupt", "pytest.exit('enough')"])
def test_interrupted(pytester: pytest.Pytester, stop: str) -> None:
    """After Ctrl-C the file holds what ran, and does not say of the interrupted test that it passed."""
    pytester.makepyfile(
        f"""
        import pytest

        def test_first():
            pass

        def test_second():
            {stop}

        def test_third():
            pass
        """
    )

    result = run(pytester, "--imu", "--imu-json=run.json")
    tests = by_name(read(pytester.path / "run.json"))

    assert pytest.ExitCode.INTERRUPTED == result.ret
    assert [("test_first", "passed"), ("test_second", "interrupted")] == [
        (name, test["outcome"]) for name, test in tests.items()
    ]
    assert tests["test_second"]["phases"]["setup"] is not None
    assert tests["test_second"]["phases"]["call"] is None


def test_replaces_the_old_file_at_the_end(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old file is whole until the new one replaces it, where pytest was started, wherever a test
    may have gone, and nothing else is left beside it.
    """
    pytester.makepyfile(
        test_it="""
        import os
        from pathlib import Path

        START = Path.cwd()

        def test_goes_elsewhere(tmp_path):
            os.chdir(tmp_path)
            assert "the old run" == (START / "run.json").read_text()
        """
    )
    folder = pytester.mkdir("started_here")
    file = folder / "run.json"
    file.write_text("the old run", encoding="ascii")
    old = file.stat()
    monkeypatch.chdir(folder)

    result = run(pytester, "--imu-json=run.json", "--rootdir=..", "../test_it.py")

    result.assert_outcomes(passed=1)
    assert ["test_goes_elsewhere"] == list(by_name(read(file)))
    assert old.st_ino != file.stat().st_ino, "written over, and not replaced"
    assert ["run.json"] == [path.name for path in folder.iterdir()]


@pytest.mark.parametrize(
    ("spoil", "left"),
    [
        pytest.param("shutil.rmtree('out')", None, id="folder removed"),
        pytest.param("os.mkdir('out/run.json')", ["run.json"], id="folder in its place"),
        pytest.param("os.chmod('out', 0o500)", [], id="folder made unwritable", marks=needs_no_root),
        pytest.param(
            "resource.setrlimit(FILE_SIZE, (16384, resource.getrlimit(FILE_SIZE)[1]))",
            [],
            id="full after 16 KiB",
            marks=needs_file_size_limits,
        ),
    ],
)
def test_failure_to_write(pytester: pytest.Pytester, spoil: str, left: list[str] | None) -> None:
    """A file that cannot be written at the end costs one line, not the run, and leaves no part."""
    pytester.makepyfile(
        f"""
        import os
        import shutil

        import pytest

        resource = pytest.importorskip("resource") if os.name == "posix" else None
        FILE_SIZE = getattr(resource, "RLIMIT_FSIZE", None)

        @pytest.mark.parametrize("number", range(40))
        def test_one_of_many(number):
            pass

        def test_spoils():
            {spoil}
        """
    )

    result = run(pytester, "-p", "no:cacheprovider", "--imu-json=out/run.json")
    folder = pytester.path / "out"

    assert pytest.ExitCode.OK == result.ret
    result.assert_outcomes(passed=41)
    said = [line for line in result.outlines if "could not be written" in line]
    assert 1 == len(said)
    assert said[0].startswith(f"--imu-json: {folder / 'run.json'} could not be written: ")
    assert left == ([path.name for path in folder.iterdir()] if folder.exists() else None)


@pytest.mark.parametrize("path", ["folder", "file/run.json", "nul\0"])
def test_unwritable_path(pytester: pytest.Pytester, path: str) -> None:
    """A path that cannot be written is a usage error that names the option, before any test."""
    pytester.makepyfile("def test_ran(): open('ran', 'w').close()")
    pytester.mkdir("folder")
    pytester.path.joinpath("file").write_text("not a folder", encoding="ascii")

    # The command line cannot hold a NUL, an options file can.
    pytester.path.joinpath("options").write_text(f"--imu-json={path}", encoding="ascii")
    result = run_here(pytester, "@options")

    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines(
        ["ERROR: invalid value * for --imu-json: expected a file that can be written (*)"]
    )
    assert not pytester.path.joinpath("ran").exists()
    assert [] == list(pytester.path.joinpath("folder").iterdir())


def test_switched_off_says_that_nothing_is_written(pytester: pytest.Pytester) -> None:
    """With `--no-imu` an old file stays as it is, and the summary says that none was written."""
    pytester.makepyfile("def test_one(): pass")
    path = pytester.path / "old.json"
    path.write_text("old", encoding="ascii")

    result = run(pytester, "--no-imu", f"--imu-json={path}")

    assert "old" == path.read_text(encoding="ascii")
    result.stdout.fnmatch_lines([f"{path} not written: --no-imu"])


@pytest.mark.skipif(not Path("/dev/null").is_char_device(), reason="needs a device to write to")
def test_device_is_written_to(pytester: pytest.Pytester) -> None:
    """A device is never replaced by a file, and what is thrown away may be two outputs."""
    pytester.makepyfile("def test_one(): pass")

    result = run(pytester, "--imu-json=/dev/null", "--imu-log=/dev/null", "--junit-xml=/dev/null")

    result.assert_outcomes(passed=1)
    assert pytest.ExitCode.OK == result.ret
    result.stdout.no_fnmatch_line("*--imu-*")
    assert Path("/dev/null").is_char_device()


@pytest.mark.skipif(not Path("/dev/stdout").exists(), reason="needs /dev/stdout")
@pytest.mark.parametrize("redirected", [False, True], ids=["pipe", "file"])
def test_descriptor_is_written_to(pytester: pytest.Pytester, redirected: bool) -> None:  # noqa: FBT001
    """`/dev/stdout` gets the JSON in the midst of pytest's output, where that is a file too."""
    pytester.makepyfile("def test_one(): pass")
    link = Path("/dev/stdout").readlink()
    command = [sys.executable, "-m", "pytest", "-p", "imu", "--imu-json=/dev/stdout"]

    if redirected:
        with Path("out.txt").open("w", encoding="utf-8") as file:
            subprocess.run(command, stdout=file, check=True, timeout=120)
        output = Path("out.txt").read_text(encoding="utf-8")
    else:
        output = subprocess.check_output(command, text=True, timeout=120)

    assert link == Path("/dev/stdout").readlink()
    assert "test session starts" in output
    assert "1 passed" in output
    document, _ = json.JSONDecoder().raw_decode(output[output.index('{"schema"') :])
    assert ["test_one"] == list(by_name(document))


@pytest.mark.parametrize("terminal", [True, False])
def test_standard_output(pytester: pytest.Pytester, terminal: bool) -> None:  # noqa: FBT001
    """`-` prints the JSON behind all of pytest's output, and the section on standard error; without
    pytest's own output the JSON is all there is.
    """
    pytester.makepyfile("def test_one(): print('of the test')")

    result = run(pytester, "--imu", "--imu-json=-", *([] if terminal else ["-p", "no:terminal"]))
    before, brace, text = str(result.stdout).partition('{"schema"')

    assert pytest.ExitCode.OK == result.ret
    assert ["test_one"] == list(by_name(json.loads(brace + text)))
    assert terminal == ("1 passed" in before)
    assert terminal or not before
    assert "= imu =" not in before
    assert "largest peak first" not in before
    assert terminal == ("= imu =" in str(result.stderr))
    assert not Path("-").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipe_is_written_to(pytester: pytest.Pytester) -> None:
    """A pipe gets the document, and its reader the end only once all is written."""
    pytester.makepyfile("def test_one(): pass")
    os.mkfifo("pipe")
    command = [sys.executable, "-c", "print(open('pipe').read())"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        result = run(pytester, "--imu-json=pipe")
        read_there, _ = reader.communicate(timeout=120)

    result.assert_outcomes(passed=1)
    assert ["test_one"] == list(by_name(json.loads(read_there)))
    assert Path("pipe").is_fifo()


def test_link_is_followed(pytester: pytest.Pytester) -> None:
    """What a link points at is replaced, where it is, and keeps its permissions; the link stays."""
    pytester.makepyfile("def test_one(): pass")
    target = pytester.mkdir("elsewhere") / "run.json"
    target.write_text("old", encoding="ascii")
    target.chmod(0o640)
    Path("link.json").symlink_to(target)

    result = run(pytester, "--imu-json=link.json")

    result.assert_outcomes(passed=1)
    assert target == Path("link.json").readlink()
    assert ["test_one"] == list(by_name(read(target)))
    assert 0o640 == target.stat().st_mode & 0o777
    assert ["run.json"] == [path.name for path in target.parent.iterdir()]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            ["--imu-json=out", "--imu-log=./out"],
            "for --imu-json: expected a file other than that of --imu-log",
        ),
        (
            ["--imu-json=link", "--imu-log=out"],
            "for --imu-json: expected a file other than that of --imu-log",
        ),
        (
            ["--imu-json=out", "--junitxml=sub/../out"],
            "for --imu-json: expected a file other than that of --junit-xml",
        ),
        (
            ["--imu-log=link", "--log-file=out"],
            "for --imu-log: expected a file other than that of --log-file",
        ),
    ],
)
def test_one_path_for_two_outputs(pytester: pytest.Pytester, options: list[str], said: str) -> None:
    """Two outputs in one file, however it is spelled, are a usage error before any test."""
    pytester.makepyfile("def test_ran(): open('ran', 'w').close()")
    pytester.mkdir("sub")
    Path("link").symlink_to("out")

    result = run_here(pytester, *options)

    assert pytest.ExitCode.USAGE_ERROR == result.ret
    result.stderr.fnmatch_lines([f"ERROR: invalid value '*' {said}"])
    assert not Path("ran").exists()


@pytest.mark.parametrize("flag", ["--imu-json", "--imu-log"])
def test_file_of_the_output_itself(pytester: pytest.Pytester, flag: str) -> None:
    """So is the file that pytest's own output was sent to, which would lose it."""
    pytester.makepyfile("def test_one(): pass")
    command = [sys.executable, "-m", "pytest", "-p", "imu", f"{flag}=out.txt"]

    with Path("out.txt").open("w", encoding="utf-8") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.PIPE, check=False, timeout=120)

    assert pytest.ExitCode.USAGE_ERROR == done.returncode
    assert b"expected a file other than the one that standard output goes to" in done.stderr


@pytest.mark.needs_kernel_peaks
@pytest.mark.parametrize("args", [(), ("-p", "xdist", "-n2")], ids=["alone", "xdist"])
def test_two_tests_with_one_id(pytester: pytest.Pytester, args: tuple[str, ...]) -> None:
    """Tests of two packages may share their id: both have a row, each with its own numbers."""
    for package, mib in (("one", 20), ("two", 40)):
        tests = pytester.mkpydir(package) / "tests"
        tests.mkdir()
        tests.joinpath("__init__.py").touch()
        tests.joinpath("test_x.py").write_text(f"def test_it(): b'x' * ({mib} << 20)\n")
    elsewhere = pytester.mkdir("elsewhere")  # outside of it a test's id begins at its package

    packages = ("--pyargs", "one", "two", f"--rootdir={elsewhere}")
    pytester.syspathinsert()
    result = pytester.runpytest_subprocess("-p", "imu", "--imu", "--imu-json=run.json", *packages, *args)

    result.assert_outcomes(passed=2)
    tests = json.loads(pytester.path.joinpath("run.json").read_text())["tests"]
    assert 1 == len({test["nodeid"] for test in tests}), tests
    peaks_mib = sorted(round(test["phases"]["call"]["peak_bytes"] / 2**20, -1) for test in tests)
    assert [20, 40] == peaks_mib
