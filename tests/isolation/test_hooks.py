"""--imu-isolate: each test in a forked child, and everything else as without."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest

from running import read_by_name, read_log, run_isolated

pytestmark = pytest.mark.needs_fork

MIB = 2**20
PHASES = ["setup", "call", "teardown"]


def read_pids(pytester: pytest.Pytester, name: str = "pids") -> dict[str, int]:
    """Return what tests wrote down as `name pid` lines."""
    lines = pytester.path.joinpath(name).read_text(encoding="ascii").splitlines()
    return {line.split()[0]: int(line.split()[1]) for line in lines}


@pytest.mark.needs_kernel_peaks
def test_order_does_not_matter(pytester: pytest.Pytester) -> None:
    """A test measures the same after one whose remains it could reuse as it does before it; without
    isolation it does not.
    """
    pytester.makepyfile(
        """
        KEPT = []

        def test_before():
            [bytes(1000) for _ in range(100_000)]

        def test_leaves_holes():
            objects = [bytes(1000) for _ in range(300_000)]
            KEPT.extend(objects[::100])

        def test_after():
            [bytes(1000) for _ in range(100_000)]
        """
    )

    for isolate, is_same in (("off", False), ("all", True)):
        run_isolated(pytester, isolate=isolate).assert_outcomes(passed=3)
        tests = read_by_name(pytester)
        before, after = (
            tests[name]["phases"]["call"]["peak_bytes"] for name in ("test_before", "test_after")
        )
        assert before > 90 * MIB
        assert is_same == (abs(before - after) <= MIB)


def test_which_tests_run_in_children(pytester: pytest.Pytester) -> None:
    """With "budgets" only tests that have one run in children, each in its own; with "all" all do."""
    pytester.makepyfile(
        """
        import os

        import pytest

        @pytest.fixture(autouse=True)
        def written(request):
            with open("pids", "a") as pids:
                pids.write(f"{request.node.name} {os.getpid()}\\n")

        def test_plain():
            pass

        @pytest.mark.max_peak_mib(50)
        def test_budget():
            pass

        @pytest.mark.max_peak_mib(None)
        def test_opted_out():
            pass

        class TestIt:
            @pytest.mark.max_delta_mib(50)
            def test_other_budget(self):
                pass
        """
    )
    pytester.makeconftest(
        """
        import os

        def pytest_unconfigure():
            with open("pids", "a") as pids:
                pids.write(f"session {os.getpid()}\\n")
        """
    )

    for isolate, in_children in (
        ("off", 0),
        ("budgets", 2),
        ("all", 4),
    ):
        pytester.path.joinpath("pids").unlink(missing_ok=True)
        run_isolated(pytester, isolate=isolate).assert_outcomes(passed=4)
        pids = read_pids(pytester)
        session = pids.pop("session")
        elsewhere = {name: pid for name, pid in pids.items() if pid != session}
        assert in_children == len(elsewhere) == len(set(elsewhere.values()))
        if isolate == "budgets":
            assert {"test_budget", "test_other_budget"} == elsewhere.keys()
        logged = {line["nodeid"].rpartition("::")[2]: line["pid"] for line in read_log(pytester)}
        assert pids == logged
        assert 8 == len(read_log(pytester))


DEADLY = """
    import os
    import signal
    import sys

    import pytest

    def test_before():
        pass

    @pytest.mark.max_peak_mib(50)
    def test_crashes():
        print("said before")
        print("complained before", file=sys.stderr)
        os.kill(os.getpid(), signal.SIGSEGV)

    def test_killed():
        os.kill(os.getpid(), signal.SIGKILL)

    def test_exits():
        os._exit(3)

    @pytest.fixture
    def deadly_setup():
        print("said in setup")
        os._exit(0)

    def test_dies_in_setup(deadly_setup):
        pass

    @pytest.fixture
    def deadly_teardown():
        yield
        os.kill(os.getpid(), signal.SIGTERM)

    @pytest.mark.max_peak_mib(50)
    @pytest.mark.max_delta_mib(50)
    def test_dies_in_teardown(deadly_teardown):
        print("said in time")

    def test_after():
        pass
"""


def test_child_that_dies_is_its_tests_failure(pytester: pytest.Pytester) -> None:
    """A child that is killed or ends by itself fails its test, in the phase that was under way, with
    the signal or status and the output; the tests after it run. The log has the start of such a test,
    from that child, and no end of it.
    """
    pytester.makepyfile(DEADLY)

    result = run_isolated(pytester, "--junitxml=run.xml")
    tests = read_by_name(pytester)

    result.assert_outcomes(passed=3, failed=3, errors=2)
    result.stdout.fnmatch_lines(
        [
            "*ERROR at setup of test_dies_in_setup*",
            "the child process that ran this test ended with status 0 before the test did",
            "*Captured stdout setup*",
            "said in setup",
            "*ERROR at teardown of test_dies_in_teardown*",
            "the child process that ran this test was killed by SIGTERM (signal 15)",
            "*Captured stdout call*",
            "said in time",
            "*_ test_crashes _*",
            "the child process that ran this test was killed by SIGSEGV (signal 11)",
            "*Captured stdout call*",
            "said before",
            "*Captured stderr call*",
            "complained before",
            "*_ test_killed _*",
            "the child process that ran this test was killed by SIGKILL (signal 9)",
            "*_ test_exits _*",
            "the child process that ran this test ended with status 3 before the test did",
        ]
    )
    result.stdout.no_fnmatch_line("*INTERNAL*")
    crashed = {name for name, test in tests.items() if test["outcome"] == "crashed"}
    assert tests.keys() - {"test_before", "test_after"} == crashed
    assert [None, None, None] == [tests["test_dies_in_setup"]["phases"][phase] for phase in PHASES]
    assert [True, False, False] == [bool(tests["test_crashes"]["phases"][phase]) for phase in PHASES]
    assert ["unchecked"] == [budget["verdict"] for budget in tests["test_crashes"]["budgets"]]
    # Those of the call alone were decided before the teardown.
    assert 2 == len(tests["test_dies_in_teardown"]["budgets"])
    cases = ET.parse(pytester.path / "run.xml").iter("testcase")  # noqa: S314 - pytest wrote it
    bad = {case.get("name") for case in cases if {child.tag for child in case} & {"failure", "error"}}
    assert crashed == bad
    lines = read_log(pytester)
    ended = [line["nodeid"].rpartition("::")[2] for line in lines if line["event"] == "end"]
    assert ["test_before", "test_after"] == ended
    assert 7 == len({line["pid"] for line in lines if line["event"] == "start"})


EVERY_KIND = '''
    import os
    import unittest
    import warnings

    import pytest

    @pytest.fixture(scope="session")
    def shared(tmp_path_factory):
        return tmp_path_factory.mktemp("shared")

    def test_passes(tmp_path, capsys, monkeypatch, shared):
        monkeypatch.chdir(tmp_path)
        print("captured")
        assert ("captured\\n", "") == capsys.readouterr()
        assert shared.exists()

    def test_fails():
        os.write(1, b"odd \\xff bytes\\n")
        assert 1 == 2

    def test_skips():
        pytest.skip("no reason")

    @pytest.mark.skip(reason="marked")
    def test_skipped():
        pass

    @pytest.mark.xfail(reason="known")
    def test_xfails():
        assert False

    @pytest.mark.xfail(strict=True)
    def test_xpasses():
        pass

    @pytest.fixture
    def broken():
        raise ValueError("in the fixture")

    def test_error(broken):
        pass

    def test_warns():
        warnings.warn("take care", FutureWarning)

    class OwnWarning(UserWarning):
        def __init__(self, first, second):
            super().__init__(first + second)

    def test_warns_in_its_own_way():
        warnings.warn(OwnWarning("one", "two"))

    def test_properties(record_property):
        record_property("an object", object)
        record_property("odd", "\\udc80")
        record_property("number", 12)

    def test_block(imu):
        with imu.measure("the only one"):
            pass

    @pytest.mark.max_peak_mib(10)
    def test_broken():
        b"x" * (20 << 20)

    @pytest.mark.parametrize("text", ["\\N{SNOWMAN}", "a b"])
    def test_parameters(text):
        pass

    class TestUnit(unittest.TestCase):
        @classmethod
        def setUpClass(cls):
            cls.value = 3

        def test_unit(self):
            assert 3 == self.value

        def test_unit_fails(self):
            self.assertEqual(1, 2)

    def document():
        """Return two.

        >>> document()
        3
        """
        return 2
'''


def test_every_kind_of_test(pytester: pytest.Pytester) -> None:
    """Outcomes, summary, warnings, properties and rows are the same in children as without."""
    pytester.makepyfile(EVERY_KIND)
    args = ("-rA", "--doctest-modules", "--junitxml=run.xml", "--color=no", "-p", "no:cacheprovider")

    results, rows, properties = [], [], []
    for isolate in ("off", "all"):
        result = run_isolated(pytester, *args, isolate=isolate)
        results.append(result)
        rows.append(
            [
                (
                    *(test[key] for key in ("nodeid", "attempt", "outcome", "worker")),
                    [phase for phase in PHASES if test["phases"][phase]],
                    [block["name"] for block in test["blocks"]],
                    [budget["verdict"] for budget in test["budgets"]],
                )
                for test in read_by_name(pytester).values()
            ]
        )
        tree = ET.parse(pytester.path / "run.xml")  # noqa: S314 - pytest wrote it
        properties.append([one.attrib for one in tree.iter("property")])

    assert results[0].parseoutcomes() == results[1].parseoutcomes()
    assert rows[0] == rows[1]
    assert properties[0][-1:] == properties[1][-1:]
    summaries = [str(result.stdout).partition("warnings summary")[2] for result in results]
    for text in ("take care", "onetwo", "FutureWarning", "OwnWarning"):
        assert [True, True] == [text in summary for summary in summaries]
    results[1].stdout.fnmatch_lines(["*= imu =*", "*test_broken: peak * MiB is over max_peak_mib(10) *"])
    short = [
        str(result.stdout).partition("short test summary")[2].splitlines()[1:-1] for result in results
    ]
    # What a doctest says comes home as text, as it does from a worker, and so has a first line.
    names = [[line.partition(" - ")[0] for line in lines] for lines in short]
    assert names[0] == names[1]


def test_subtests(pytester: pytest.Pytester) -> None:
    """A subtest's report comes home as one of its own."""
    pytester.makepyfile(
        """
        import unittest

        class TestUnit(unittest.TestCase):
            def test_it(self):
                for number in range(3):
                    with self.subTest(number=number):
                        assert number != 1
        """
    )

    results = [run_isolated(pytester, isolate=isolate) for isolate in ("off", "all")]

    assert results[0].parseoutcomes() == results[1].parseoutcomes()


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="needs_subtests: pytest 9 brought them")
def test_test_fails_by_its_subtests(pytester: pytest.Pytester) -> None:
    """A test that passed but for a subtest has failed, also for `--lf`."""
    pytester.makepyfile(
        """
        def test_sub(subtests):
            for number in range(3):
                with subtests.test("is not 1", number=number):
                    assert number != 1

        def test_passes():
            pass
        """
    )

    results = [run_isolated(pytester, isolate=isolate) for isolate in ("off", "all")]
    again = run_isolated(pytester, "--lf", "-v")

    assert results[0].parseoutcomes() == results[1].parseoutcomes()
    results[1].stdout.fnmatch_lines(["FAILED *::test_sub - contains 1 failed subtest"])
    again.stdout.no_fnmatch_line("*test_passes*")


def test_fixture_error_shows_the_fixture_first(pytester: pytest.Pytester) -> None:
    """A traceback from a fixture of a conftest has no line of the plugin in it."""
    pytester.makeconftest(
        """
        import pytest

        @pytest.fixture
        def bad():
            raise ValueError("of the fixture")

        @pytest.fixture
        def bad_end():
            yield
            raise ValueError("of its end")
        """
    )
    pytester.makepyfile("def test_one(bad): pass\ndef test_two(bad_end): pass")

    result = run_isolated(pytester)

    result.assert_outcomes(passed=1, errors=2)
    result.stdout.fnmatch_lines(["*of the fixture*", "*of its end*"])
    result.stdout.no_fnmatch_line("*pytest_imu*")


@pytest.mark.parametrize("plugin", ["terminal", "tmpdir"])
def test_without_a_plugin_of_pytests_own(pytester: pytest.Pytester, plugin: str) -> None:
    """The run needs neither a terminal reporter nor temporary folders."""
    pytester.makepyfile("def test_it(): pass")

    result = run_isolated(pytester, "-p", f"no:{plugin}")

    assert pytest.ExitCode.OK == result.ret
    assert {"test_it": "passed"} == {
        name: test["outcome"] for name, test in read_by_name(pytester).items()
    }


def test_large_report(pytester: pytest.Pytester) -> None:
    """A report of many MiB comes home whole."""
    pytester.makepyfile("def test_it(): print('x' * 8_000_000); assert False")

    result = run_isolated(pytester, "--show-capture=stdout")

    result.assert_outcomes(failed=1)
    assert any(len(line) == 8_000_000 for line in result.outlines)


def test_output_is_in_order(pytester: pytest.Pytester) -> None:
    """With -s what a test prints stands between what pytest prints of it, once."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def chatty():
            print("<setup>", end="")
            yield
            print("<teardown>", end="")

        @pytest.mark.parametrize("number", range(3))
        def test_it(number, chatty):
            print(f"<call {number}>", end="")
        """
    )

    results = [run_isolated(pytester, "-s", "-v", isolate=isolate) for isolate in ("off", "all")]

    # A peak of 0.0 or 0.1 MiB is the machine's affair.
    shown = [
        [re.sub(r"peak [0-9.]+ MiB", "peak", line) for line in result.outlines if "<call" in line]
        for result in results
    ]
    assert 3 == len(shown[0])
    assert shown[0] == shown[1]


def test_what_a_test_leaves_running(pytester: pytest.Pytester) -> None:
    """A process that a test has forked, and that holds all of its descriptors, does not hold up the
    run; what it does in pytest's name does not count.
    """
    pytester.makepyfile(
        """
        import os
        import signal

        def test_leaves_one():
            child = os.fork()
            if child == 0:
                signal.pause()
                os._exit(0)
            with open("pid", "w") as file:
                file.write(f"lingers {child}")

        def test_child_runs_on():
            child = os.fork()
            if child:
                assert os.waitpid(child, 0) == (child, 0)

        def test_next():
            with open("pid") as file:
                os.kill(int(file.read().split()[1]), signal.SIGKILL)
        """
    )

    # Its output cannot be awaited before it ends, which is what the last test sees to.
    result = run_isolated(pytester)

    result.assert_outcomes(passed=3)
    assert 6 == len(read_log(pytester))


def test_fixtures_of_higher_scopes(pytester: pytest.Pytester) -> None:
    """Where some tests are isolated, fixtures of modules and the session are set up in each child, and
    once in the session's process, and each is torn down where it was set up, in time.
    """
    source = """
        import pytest

        def test_plain(module, session):
            pass

        @pytest.mark.max_peak_mib(50)
        def test_isolated(module, session):
            pass
        """
    pytester.makepyfile(test_a=source, test_b=source)
    pytester.makeconftest(
        """
        import os

        import pytest

        HERE = os.getpid()

        @pytest.fixture(scope="module")
        def module(request):
            note(f"+{request.node.name}")
            yield
            note(f"-{request.node.name}")

        @pytest.fixture(scope="session")
        def session():
            note("+session")
            yield
            note("-session")

        def note(what):
            with open("notes", "a") as notes:
                notes.write(("here" if os.getpid() == HERE else "child") + what + "\\n")
        """
    )

    result = run_isolated(pytester, isolate="budgets")
    notes = pytester.path.joinpath("notes").read_text(encoding="ascii").splitlines()

    result.assert_outcomes(passed=4)
    a_child, b_child = (
        ["child+session", f"child+{name}", f"child-{name}", "child-session"]
        for name in ("test_a.py", "test_b.py")
    )
    assert [
        *("here+session", "here+test_a.py"),
        *a_child,
        *("here-test_a.py", "here+test_b.py"),
        *b_child,
        *("here-test_b.py", "here-session"),
    ] == notes


def test_fixture_that_fails_here_after_an_isolated_test(pytester: pytest.Pytester) -> None:
    """A module's fixture that fails when it is torn down after an isolated test is that test's error."""
    pytester.makepyfile(
        test_a="""
        import os

        import pytest

        @pytest.fixture(scope="module")
        def broken():
            owner = os.getpid()
            yield
            print("said in teardown")
            assert owner != os.getpid(), "only where it was made"

        def test_plain(broken):
            pass

        @pytest.mark.max_peak_mib(50)
        def test_isolated():
            pass
        """,
        test_b="def test_next(): pass",
    )

    result = run_isolated(pytester, isolate="budgets")

    result.assert_outcomes(passed=3, errors=1)
    result.stdout.fnmatch_lines(
        ["*ERROR at teardown of test_isolated*", "E * only where it was made", "*said in teardown*"]
    )


@pytest.mark.parametrize("args", [("-x",), ("--maxfail=1",)])
def test_stops_after_the_failure(pytester: pytest.Pytester, args: tuple[str, ...]) -> None:
    """-x and --maxfail end the run after the isolated test that failed."""
    pytester.makepyfile(
        """
        import os

        def test_before():
            pass

        def test_dies():
            os._exit(1)

        def test_never():
            pass
        """
    )

    result = run_isolated(pytester, *args)

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*stopping after 1 failures*"])


@pytest.mark.parametrize(
    ("statement", "status", "line"),
    [
        ("pytest.exit('enough', returncode=7)", 7, "!* _pytest.outcomes.Exit: enough !*"),
        (
            "raise KeyboardInterrupt",
            pytest.ExitCode.INTERRUPTED,
            "!* KeyboardInterrupt: *::test_ends at *.py:9 *",
        ),
        ("request.session.shouldstop = 'by hand'", pytest.ExitCode.INTERRUPTED, "!* by hand !*"),
    ],
)
def test_what_ends_the_run(pytester: pytest.Pytester, statement: str, status: int, line: str) -> None:
    """What ends the whole run in a test ends it from a child too; its fixtures are torn down."""
    pytester.makepyfile(
        f"""
        import pytest

        @pytest.fixture(scope="session")
        def held():
            yield
            open("torn_down", "w").close()

        def test_ends(request, held):
            {statement}

        def test_never():
            pass
        """
    )

    result = run_isolated(pytester)

    assert status == result.ret
    result.stdout.fnmatch_lines([line])
    assert ["test_ends"] == list(read_by_name(pytester))
    assert pytester.path.joinpath("torn_down").exists()


def test_protocol_that_breaks(pytester: pytest.Pytester) -> None:
    """An exception that no phase of the test has caught is that test's failure, and not the run's."""
    pytester.makepyfile("def test_bad(): pass\ndef test_good(): pass")
    pytester.makeconftest(
        """
        def pytest_runtest_makereport(item, call):
            if item.name == "test_bad" and call.when == "call":
                raise LookupError("in a plugin")
        """
    )

    result = run_isolated(pytester)

    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*_ test_bad _*", "LookupError: in a plugin"])


@pytest.mark.needs_perf
def test_counts_in_the_child(pytester: pytest.Pytester) -> None:
    """Each child has a perf that counts its own events, and ends with it, also where that is killed."""
    pytester.makepyfile(
        """
        import mmap
        import os
        import signal

        def test_touches():
            with mmap.mmap(-1, 5000 * 4096) as pages:
                for page in range(5000):
                    pages[page * 4096] = 1

        def test_touches_not():
            pass

        def test_killed():
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )

    # The run's output ends when the last process that holds it has: perf has none of it.
    run_isolated(pytester, "--imu-perf=page-faults").assert_outcomes(passed=2, failed=1)
    tests = read_by_name(pytester)

    counted = {
        name: test["phases"]["call"]["counters"]["page-faults"]["value"]
        for name, test in tests.items()
        if test["phases"]["call"]
    }
    assert 5000 <= counted["test_touches"] <= 5100
    assert counted["test_touches_not"] < 500


def test_nothing_to_run(pytester: pytest.Pytester) -> None:
    """--collect-only, a run without tests and --no-imu go on as ever."""
    pytester.makepyfile("import os\n\ndef test_it(): open('pid', 'w').write(str(os.getppid()))")

    assert pytest.ExitCode.OK == run_isolated(pytester, "--collect-only").ret
    assert pytest.ExitCode.NO_TESTS_COLLECTED == run_isolated(pytester, "-k", "none").ret
    run_isolated(pytester, "--no-imu").assert_outcomes(passed=1)
