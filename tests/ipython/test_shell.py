"""The extension in real shells, each in a process of its own that tells what it saw."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_imu.core.memory.platforms import high_water_batch_bytes

pytest.importorskip("IPython", reason="needs_ipython: pip install 'pytest-imu[ipython]'")

LINE = re.compile(
    r"(?P<command>'.*') used (?P<used>-?[\d.]+) MiB RAM (?:\(.*\) )?in (?P<time>[\d.]+)s, "
    r"peaked (?P<peaked>[\d.]+) MiB above current, total RAM usage (?P<total>[\d.]+) MiB"
    r"(?P<since> \([+-][\d.]+ since the last command\))?(?P<notes>.*)"
)

"""Before, nothing tells how many were born and waited for inside a command."""

Shell = Callable[..., Any]


def parts(line: str) -> dict[str, Any]:  # Any: what came between may be absent
    """Return the parts of a report line."""
    match = LINE.fullmatch(line)
    assert match is not None, line
    return match.groupdict()


def command_and_notes(line: str) -> tuple[str, str]:
    """Return what a report line is about, and what it says after the numbers."""
    found = parts(line)
    return found["command"], found["notes"]


LOADED = "reporting after each command; %imu off stops it, %imu? explains the rest"


def test_load_says_how_to_stop(shell: Shell) -> None:
    """Loading prints one line, which says how to stop, and is itself not reported; the next one is."""
    seen = shell('seen["load"] = load; seen["next"] = run("a = 1")')
    assert [LOADED] == seen["load"]
    assert [("'a = 1'", "")] == [command_and_notes(line) for line in seen["next"]]


@pytest.mark.needs_kernel_peaks
def test_numbers_of_an_array(shell: Shell) -> None:
    """The README's command used 76.3 MiB and peaked where it ended; deleting it gives that back."""
    script = """
        run("import numpy as np")
        run("np.ones(1)")
        seen["ones"] = run("a=np.ones(int(1e7))")
        seen["del"] = run("del a")
        seen["temporary"] = run("len(np.ones(int(1e7)).tobytes())")
    """
    seen = shell(script)
    assert 1 == len(seen["ones"])
    ones, gone, temporary = (parts(seen[key][-1]) for key in ("ones", "del", "temporary"))
    assert ("'a=np.ones(int(1e7))'", "76.3", "0.0") == (ones["command"], ones["used"], ones["peaked"])
    assert ("-76.3", "76.3") == (gone["used"], gone["peaked"])
    assert 152.3 <= float(temporary["peaked"]) <= 152.8
    assert 0.15 >= abs(float(ones["total"]) - float(gone["total"]) - 76.3)


@pytest.mark.needs_kernel_peaks
def test_nothing_is_nothing(shell: Shell) -> None:
    """`pass` used 0.0 and peaked 0.0, in a fresh shell and with a GiB held, or by what one CPU holds
    back of the kernel's count; one that falls together with more of that is within the resolution.
    """
    seen = shell("""
        from pytest_imu.core.memory.source import peak_source
        seen["resolution"] = peak_source().resolution_bytes
        run("pass")
        seen["fresh"] = [report("pass") for _ in range(9)]
        held = bytearray(2**30)
        held[::4096] = b"x" * (2**30 // 4096)
        run("pass")
        seen["full"] = [report("pass") for _ in range(9)]
    """)
    resolution_mib = seen["resolution"] / 2**20
    for key in ("fresh", "full"):
        found = [parts(line) for line in seen[key]]
        assert [("0.0", "")] * 9 == [(part["used"], part["notes"]) for part in found]
        peaks = sorted(part["peaked"] for part in found)
        assert float(peaks[4]) <= round(high_water_batch_bytes() / 2**20, 1)
        assert float(peaks[-1]) <= resolution_mib
    assert float(parts(seen["full"][0])["total"]) > 1024


@pytest.mark.usefixtures("interrupts_are_heard")
def test_every_kind_of_command(shell: Shell, tmp_path: Path) -> None:
    """Awaiting, raising, interrupted, malformed, nested, magic and quiet commands have one line each."""
    (tmp_path / "script.py").write_text("from_script = 3\n", encoding="utf-8")
    seen = shell(r"""
        def of(source, **arguments):
            lines = [line for line in run(source, **arguments) if " MiB RAM " in line]
            seen[source] = lines
        of("import asyncio; await asyncio.sleep(0); awaited = 1")
        of("1/0")
        of("await asyncio.sleep(0); 1/0")
        of("x = = 1")
        of("  x = 1\n y = 2")
        of("import signal; signal.raise_signal(signal.SIGINT)")
        of("get_ipython().run_cell('nested = 2');")
        of("get_ipython().run_cell('1/0');")
        of("get_ipython().run_cell('');")
        of("%run script.py")
        of("%timeit -n1 -r1 pass")
        of("%%time\ntimed = 4")
        of("%load_ext autoreload\n%autoreload 2")
        of("reloaded = 1")
        of("1+1;")
        of("!true")
        of("raise SystemExit")
        of("unhistorical = 5", store_history=False)
        values = [shell.user_ns[name] for name in ("awaited", "nested", "from_script", "timed")]
        seen["values"] = values
    """)
    assert [1, 2, 3, 4] == seen.pop("values")
    raised = "; the command raised"
    assert {
        "import asyncio; await asyncio.sleep(0); awaited = 1": "",
        "1/0": raised,
        "await asyncio.sleep(0); 1/0": raised,
        "x = = 1": raised,
        "  x = 1\n y = 2": raised,
        "import signal; signal.raise_signal(signal.SIGINT)": raised,
        "get_ipython().run_cell('nested = 2');": "",
        "get_ipython().run_cell('1/0');": "",
        "get_ipython().run_cell('');": "",
        "%run script.py": "",
        "%timeit -n1 -r1 pass": "",
        "%%time\ntimed = 4": "",
        "%load_ext autoreload\n%autoreload 2": "",
        "reloaded = 1": "",
        "1+1;": "",
        "!true": "; had child processes that have ended, not counted",
        "raise SystemExit": raised,
        "unhistorical = 5": "",
    } == {source: "|".join(parts(line)["notes"] for line in lines) for source, lines in seen.items()}
    assert [1] * len(seen) == [len(lines) for lines in seen.values()]
    for source, (line,) in seen.items():
        assert (
            parts(line)["command"]
            == "'" + source.strip().replace("\n ", "\n").replace("\n", " ⏎ ") + "'"
        )


def test_silent_kinds_of_command(shell: Shell) -> None:
    """Empty and silent commands, and a front end's messages, print nothing and break nothing."""
    seen = shell(r"""
        seen["empty"] = [run(""), run("  \n "), run("a = 1", silent=True)]
        seen["messages"] = []
        with contextlib.redirect_stdout(io.StringIO()) as out:
            for _ in range(2):
                shell.events.trigger("pre_execute")
                shell.events.trigger("post_execute")
            shell.events.trigger("post_run_cell", None)
        seen["messages"] = out.getvalue()
        seen["next"] = run("b = 1")
        seen["history"] = [row["command"] for row in shell.user_ns["imu_history"]]
    """)
    assert [[], [], []] == seen["empty"]
    assert "" == seen["messages"]
    assert ["'b = 1'"] == [parts(line)["command"] for line in seen["next"]]
    assert ["b = 1"] == seen["history"]


def test_background_thread(shell: Shell) -> None:
    """Commands are reported as ever while a thread of the person's own runs."""
    seen = shell("""
        run("import threading; stop = threading.Event()")
        run("thread = threading.Thread(target=stop.wait); thread.start()")
        seen["during"] = run("a = 1")
        seen["ended"] = run("stop.set(); thread.join()")
    """)
    assert [("'a = 1'", "")] == [command_and_notes(line) for line in seen["during"]]
    assert 1 == len(seen["ended"])


@pytest.mark.needs_proc
def test_notes(shell: Shell) -> None:
    """Raised errors, children and reused memory are noted, and only then."""
    seen = shell("""
        def notes(name, source, **arguments):
            seen[name] = report(source, **arguments).partition(" MiB above")[2].split("; ")[1:]
        run("1")  # In [2]
        notes("kept", "memoryview(bytearray(10**7))")
        notes("assigned", "c = bytearray(10**7)")
        notes("raised", "e = bytearray(10**7); 1/0")
        run("import subprocess, sys")
        popen = "subprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)"
        notes("child", f"p = {popen}")
        notes("children", f"q = {popen}")
        notes("living", "pass")
        notes("ended", "p.communicate(b'x'); q.communicate(b'x');")
        notes("no child", "pass")
        run("objects = [object() for _ in range(1_000_000)]")
        run("kept = objects[::100]; del objects")
        notes("not reused", "pass")
        notes("imported before", "import os, sys")
        notes("reused", "objects = [object() for _ in range(1_000_000)]")
        notes("reused no more", "pass")
    """)
    reused, child, children = (seen.pop(name) for name in ("reused", "child", "children"))
    assert {
        "kept": [],
        "assigned": [],
        "raised": ["the command raised"],
        "living": [],
        "ended": [],
        "no child": [],
        "not reused": [],
        "imported before": [],
        "reused no more": [],
    } == seen
    for notes, who in ((child, "a child process holds"), (children, "2 child processes hold")):
        assert 1 == len(notes)
        assert re.fullmatch(rf"{who} \d+\.\d MiB, not counted", notes[0])
    assert 1 == len(reused)
    match = re.fullmatch(r"reused up to (\d+\.\d) MiB kept from before", reused[0])
    assert match is not None
    assert 15 <= float(match[1]) <= 25  # 990,000 objects of 16 bytes, and what was free before


@pytest.mark.needs_numpy
@pytest.mark.needs_kernel_peaks
def test_traceback_keeps_and_free_lets_go(shell: Shell) -> None:
    """A command that raised says what its traceback keeps; `%imu free` lets go of that, of what `Out`
    and `_` hold and of garbage, each in a line of its own, and what the person has named stays.
    """
    seen = shell("""
        run("import numpy as np; kept = np.ones(2**20)")
        run("def fails():\\n    mine = np.ones(2**23)\\n    view = mine[:2]\\n    raise ValueError")
        run("fails()")
        seen["raised"] = report("fails()")
        run("def looks(there):\\n    view = there[:2]\\n    1/0")
        seen["own"] = report("x = kept; looks(kept)")
        run("import gc; gc.collect()")  # of the errors before
        run("fails()")
        run("np.ones(2**22)")
        run("_ + 1")
        run("gc.disable()")  # so that none comes before it is asked for
        run("circle = [np.ones(2**21)]; circle.append(circle); del circle")
        seen["free"] = run("%imu free")
        seen["again"] = run("%imu free")
        run("gc.enable()")
        seen["kept"] = shell.user_ns["kept"].size
        seen["next"] = report("pass")
    """)
    raised = "; the command raised"
    assert (
        f"{raised}, its traceback keeps 64.0 MiB (%imu free lets go)" == (parts(seen["raised"])["notes"])
    )
    assert raised == parts(seen["own"])["notes"]
    *lines, total = seen["free"]
    sizes = {line.partition(" MiB  ")[2]: float(line.split()[0]) for line in lines}
    assert {
        "freed before": 0,
        "garbage": 16,
        "tracebacks": 64,
        "Out, _ and the like": 64,
    } == pytest.approx(sizes, abs=1)
    assert re.fullmatch(r"total RAM usage \d+\.\d MiB", total)
    assert [0, 0, 0, 0] == pytest.approx([float(line.split()[0]) for line in seen["again"][:-1]], abs=1)
    assert 2**20 == seen["kept"]
    assert "" == parts(seen["next"])["notes"]


@pytest.mark.needs_kernel_peaks
def test_what_comes_between_commands(shell: Shell) -> None:
    """What a thread takes between two commands stands behind the total of the next one; then what was
    used adds up. What `%imu run` has shown already is not shown again.
    """
    seen = shell("""
        run("import threading; go, done = threading.Event(), threading.Event(); grown = []")
        run("def grow():\\n    go.wait(); grown.append(bytearray(32 * 2**20)); done.set()")
        run("threading.Thread(target=grow, daemon=True).start()")
        seen["before"] = report("pass")
        shell.user_ns["go"].set()
        shell.user_ns["done"].wait()
        seen["after"] = [report("x = bytearray(16 * 2**20)"), report("pass")]
        seen["rows"] = [
            (row["since_last_mib"], row["used_mib"], row["total_mib"])
            for row in shell.user_ns["imu_history"]
        ]
        run("%imu run y = bytearray(16 * 2**20)")
        seen["own"] = report("pass")
    """)
    quiet = (seen["before"], seen["after"][1], seen["own"])
    assert [(None, "")] * 3 == [(parts(line)["since"], parts(line)["notes"]) for line in quiet]
    assert re.fullmatch(r" \(\+32\.\d since the last command\)", parts(seen["after"][0])["since"])
    (since, _, total), *rows = seen["rows"]
    assert None is since
    for since, used, after in rows:
        assert after == total + since + used
        total = after


def test_broken_reader(shell: Shell) -> None:
    """Where memory cannot be read every line says n/a and why, commands tell it, the shell goes on."""
    seen = shell("""
        from pytest_imu.core.memory import source as memory
        def broken():
            raise OSError("no /proc today")
        memory.peak_source = broken
        seen["line"] = run("a = 1")
        seen["next"] = run("b = a + 1")
        seen["status"] = run("%imu status")[1]
        seen["history"] = run("%imu history")[1]
        seen["save"] = run("%imu save x.json")[0]
        with open("x.json") as file:
            seen["source"] = json.load(file)["environment"]["peak_source"]
        seen["b"] = shell.user_ns["b"]
    """)
    assert 2 == seen["b"]
    for key, command in (("line", "a = 1"), ("next", "b = a + 1")):
        assert 1 == len(seen[key])
        expected = rf"'{re.escape(command)}' n/a in \d\.\d\ds: memory could not be read: "
        assert re.fullmatch(expected + "OSError: no /proc today", seen[key][0])
    assert "peaks: n/a (OSError: no /proc today)" == seen["status"]
    assert ["n/a", "n/a"] == seen["history"].split()[1:3]
    assert "2 commands saved to x.json" == seen["save"]
    assert "none (OSError: no /proc today)" == seen["source"]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("RuntimeError('ours')", "a command is not reported: RuntimeError: ours"),
        ("KeyboardInterrupt", "a command is not reported: KeyboardInterrupt"),
    ],
)
def test_fault_of_our_own(shell: Shell, fault: str, said: str) -> None:
    """An error, or a ^C, in the extension's own callbacks is one line and no traceback, each time it
    happens; the command has run, and what comes afterwards is right.
    """
    seen = shell(f"""
        watcher = shell.magics_manager.registry["ImuMagics"].session.watcher
        def wrong(*_):
            raise {fault}
        for name in ("_new_meter", "_note", "_emit"):
            right = getattr(watcher, name)
            setattr(watcher, name, wrong)
            during = run("a = 1")
            setattr(watcher, name, right)
            seen[name] = [during, run("b = a + 1"), shell.user_ns.pop("b")]
    """)
    assert {"_new_meter", "_note", "_emit"} == seen.keys()
    for during, after, value in seen.values():
        assert [said] == during
        assert [("'b = a + 1'", "")] == [command_and_notes(line) for line in after]
        assert 2 == value


def test_on_off_status(shell: Shell) -> None:
    """The report stops and starts again, also by the ancestor's words; status says how things stand."""
    seen = shell("""
        run("a = 1")
        seen["status"] = run("%imu status")[:6]
        seen["bare"] = run("%imu")[0]
        for off, on in (("%imu off", "%imu on"), ("%imu_stop", "%imu_start")):
            seen[off] = [run(off), run("a = 1"), run("%imu status")[0]]
            seen[on] = [run(on), len(run("a = 1")), run(on)[0]]
        seen["history"] = [row["command"] for row in shell.user_ns["imu_history"]][:3]
    """)
    peaks = seen["status"].pop(1)
    assert peaks.startswith("peaks: ")
    assert [
        "reporting: on",
        "counting: nothing",
        "live: off",
        "limit: none",
        "measured: 1 commands",
    ] == seen["status"]
    assert "reporting: on" == seen["bare"]
    for off, on in (("%imu off", "%imu on"), ("%imu_stop", "%imu_start")):
        stopped = ["not reporting; %imu on starts again"]
        assert [stopped, [], "reporting: off"] == seen[off]
        started = "reporting after each command; %imu off stops it"
        assert [[started], 1, started] == seen[on]
    assert ["a = 1"] * 3 == seen["history"]


def test_switched_off_and_on_inside_a_command(shell: Shell) -> None:
    """A command that switches the report off, or off and on, is not reported; no window stays open."""
    seen = shell(r"""
        from pytest_imu.core.memory import source as memory
        seen["off"] = run("%imu off\na = 1")
        seen["on"] = run("%imu on\na = 1")
        seen["both"] = run("%imu off\n%imu on")
        seen["next"] = run("b = 1")
        seen["open"] = len(getattr(memory.peak_source(), "_open_windows", ()))
    """)
    off, on = "not reporting; %imu on starts again", "reporting after each command; %imu off stops it"
    assert [[off], [on], [off, on]] == [seen["off"], seen["on"], seen["both"]]
    assert ["'b = 1'"] == [parts(line)["command"] for line in seen["next"]]
    assert 0 == seen["open"]


@pytest.mark.parametrize(
    ("counters", "source"),
    [
        pytest.param("auto", "perf_event_open", marks=pytest.mark.needs_kernel_counts),
        pytest.param("perf", "perf stat", marks=pytest.mark.needs_perf),
    ],
)
def test_perf(shell: Shell, counters: str, source: str) -> None:
    """Events are counted exactly, shown as a sparkline or as all samples, changed and ended; perf's own
    process is no child process of the person's.
    """
    seen = shell(
        r"""
        def lines(name, source):
            seen[name] = run(source)
        run("%config ImuMagics.counters = 'COUNTERS'")
        run("import mmap; touch = lambda n: [m.__setitem__(i, 1) for m in [mmap.mmap(-1, n*4096)]"
            " for i in range(0, n*4096, 4096)] and None")
        run("touch(10)")
        lines("start", "%imu perf page-faults")
        run("touch(10)")
        lines("counted", "touch(5000)")
        lines("status", "%imu status")
        lines("raw", "%imu perf --raw page-faults")
        run("touch(10)")
        lines("raw counted", "touch(5000)")
        lines("raw alone", "%imu perf --raw")
        lines("on", "%imu perf on")
        lines("two", "%imu perf page-faults,task-clock minor-faults")
        lines("two counted", "pass")
        lines("off", "%imu perf off")
        lines("uncounted", "pass")
        seen["row"] = {row["command"]: row.get("page-faults") for row in shell.user_ns["imu_history"]}
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            seen["children"] = file.read()
    """.replace("COUNTERS", counters)
    )
    say = f"in each command with {source}; %imu perf off stops it"
    assert [f"counting page-faults {say}"] == seen["start"]
    assert [f"counting page-faults {say}"] == seen["raw alone"][:1] == seen["on"][:1]
    report, counted = seen["counted"]
    assert ("'touch(5000)'", "") == command_and_notes(report)
    count = r"perf value for page-faults averages to [\d,]+/second, (\d,\d+) in all, samples: [▁-█]+"
    match = re.fullmatch(count, counted)
    assert match is not None, counted
    assert 5000 <= int(match[1].replace(",", "")) <= 5200
    assert f"counting: page-faults ({source})" == seen["status"][2]
    # The command that changes the events says nothing of those that it stopped counting.
    assert [f"counting page-faults {say}"] == seen["raw"]
    pattern = r"perf value for page-faults averages to [\d,]+/second, raw samples: \[(.*)\]"
    match = re.fullmatch(pattern, seen["raw counted"][1])
    assert match is not None, seen["raw counted"]
    assert 5000 <= sum(map(float, match[1].split(", "))) <= 5200
    assert [f"counting page-faults, task-clock, minor-faults {say}"] == seen["two"]
    assert ["page-faults", "task-clock", "minor-faults"] == [
        line.split()[3] for line in seen["two counted"][1:]
    ]
    assert ["counting nothing"] == seen["off"]
    assert [("'pass'", "")] == [command_and_notes(line) for line in seen["uncounted"]]
    assert 5000 <= seen["row"]["touch(5000)"] <= 5200
    assert "" == seen["children"]


@pytest.mark.needs_perf
def test_perf_that_dies(shell: Shell) -> None:
    """A perf that dies between commands is not missed; one that dies in a command costs its count."""
    seen = shell("""
        def kill():
            process = session.counters.counters.back_end.process
            os.kill(process.pid, signal.SIGKILL)
            while process._runs():
                pass
        session = shell.magics_manager.registry["ImuMagics"].session
        shell.user_ns["kill"] = kill
        run("%config ImuMagics.counters = 'perf'")
        run("%imu perf page-faults")
        run("pass")
        kill()
        seen["between"] = run("a = 1")
        seen["died"] = run("kill()")
        seen["next"] = run("b = 1")
    """)
    for name in ("between", "next"):
        assert seen[name][1].startswith("perf value for page-faults averages to")
    assert "perf value for page-faults: n/a, perf ended: it said nothing" == seen["died"][1]


@pytest.mark.needs_perf
def test_unknown_event_is_refused(shell: Shell) -> None:
    """An event that nothing knows is no event, and what was counted before is counted on."""
    seen = shell("""
        run("%imu perf page-faults")
        seen["refused"] = error("%imu perf task-clock,nonsense")
        seen["next"] = run("pass")
    """)
    fault = "invalid value 'nonsense' for %imu perf: expected an event as `perf list` names it"
    assert f"UsageError: {fault}" == seen["refused"][-1]
    assert ["perf value for page-faults"] == [line.split(" averages")[0] for line in seen["next"][1:]]


def test_event_that_cannot_be_counted(shell: Shell) -> None:
    """The answer to `%imu perf` itself says so, with the reason, and no command says it once more."""
    seen = shell("""
        run("%config ImuMagics.counters = 'callgrind'")
        seen["lines"] = [run("%imu perf cache-misses"), run("pass"), run("%imu perf"), run("pass")]
    """)
    reason = "perf value for cache-misses: n/a, no valgrind runs this process, not callgrind"
    first, quiet, again, quiet_again = seen["lines"]
    assert [reason.replace("perf", "callgrind")] == first[1:] == again[1:]
    assert (1, 1) == (len(quiet), len(quiet_again))


def test_no_perf_is_said_once(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without perf the reason is said once, and memory is reported as ever."""
    monkeypatch.setenv("PATH", "")
    seen = shell("""
        from pytest_imu.core.counters.perf import stat as perf_stat
        from pytest_imu.core.counters.source import CannotCountError
        def absent():
            raise CannotCountError("there is no perf here")
        perf_stat.PerfStat.__init__.__kwdefaults__["find"] = absent
        run("%config ImuMagics.counters = 'perf'")
        seen["start"] = run("%imu perf")
        seen["lines"] = [run("a = 1"), run("a = 2")]
    """)
    assert seen["start"][0].startswith("counting cache-misses in each command with perf stat")
    assert "perf value for cache-misses: n/a, there is no perf here" == seen["start"][1]
    assert [1, 1] == [len(lines) for lines in seen["lines"]]


def test_wrong_words_say_what_was_expected(shell: Shell) -> None:
    """Each mistake is one line that says what was expected, and no traceback."""
    commands = [
        "%imu nonsense",
        *("%imu on now", "%imu off now", "%imu status x", "%imu last x", "%imu history x"),
        *("%imu help x", "%imu free x"),
        *("%imu perf 'x", "%imu perf --foo", "%imu perf a,", "%imu perf off page-faults"),
        *("%imu live", "%imu live maybe", "%imu style", "%imu style red"),
        *("%imu top x", "%imu top 0", "%imu top -1", "%imu save", "%imu save a b", "%imu save 'a"),
        *("%imu save nowhere/x.json", "%imu save .", "%imu plot 'a"),
        *("%imu limit 0%", "%imu limit 8", "%imu limit 1MiB", "%imu limit " + "9" * 18 + "TiB"),
        *("%imu run", "%imu run -r", "%imu run -r x a = 1", "%imu run -r 0 a = 1", "%imu run -r 3"),
        *("%%imu -r 0\na = 1", "%%imu -z\na = 1", "%%imu x\na = 1", "%%imu 'x\na = 1"),
        "%%imu -r 0\nawait x",
        "%%imu -j nowhere/x.json\na = 1",
    ]
    seen = shell(f"for command in {commands!r}: seen[command] = error(command)")
    assert {
        "%imu nonsense": "invalid value 'nonsense' for %imu: expected on, off, status, help, last, "
        "why, free, perf, live, style, history, top, save, plot, vars, run, lines, limit, "
        "leaks (%imu? explains them)",
        "%imu on now": "invalid value 'now' for %imu on: expected nothing",
        "%imu off now": "invalid value 'now' for %imu off: expected nothing",
        "%imu status x": "invalid value 'x' for %imu status: expected nothing",
        "%imu last x": "invalid value 'x' for %imu last: expected nothing",
        "%imu history x": "invalid value 'x' for %imu history: expected a whole number, 1 or more",
        "%imu help x": "invalid value 'x' for %imu help: expected nothing",
        "%imu free x": "invalid value 'x' for %imu free: expected nothing",
        "%imu perf 'x": 'invalid value "\'x" for %imu perf: expected an event as `perf list` names it',
        "%imu perf --foo": "invalid value '--foo' for %imu perf: expected an event as `perf list` "
        "names it",
        "%imu perf a,": "invalid value '' for %imu perf: expected an event as `perf list` names it",
        "%imu perf off page-faults": "invalid value 'off page-faults' for %imu perf: "
        "expected events, or off alone",
        "%imu live": "invalid value '' for %imu live: expected on or off",
        "%imu live maybe": "invalid value 'maybe' for %imu live: expected on or off",
        "%imu style": "invalid value '' for %imu style: expected auto, ancestor, short or off",
        "%imu style red": "invalid value 'red' for %imu style: expected auto, ancestor, short or off",
        "%imu top x": "invalid value 'x' for %imu top: expected a whole number, 1 or more",
        "%imu top 0": "invalid value '0' for %imu top: expected a whole number, 1 or more",
        "%imu top -1": "invalid value '-1' for %imu top: expected a whole number, 1 or more",
        "%imu save": "invalid value '' for %imu save: expected the path of one file",
        "%imu save a b": "invalid value 'a b' for %imu save: expected the path of one file",
        "%imu save 'a": 'invalid value "\'a" for %imu save: expected the path of one file',
        "%imu save nowhere/x.json": "%imu save: nowhere/x.json cannot be written: "
        "No such file or directory",
        "%imu save .": "%imu save: . cannot be written: it is a folder",
        "%imu plot 'a": 'invalid value "\'a" for %imu plot: expected the path of one file',
        "%imu limit 0%": "invalid value '0%' for %imu limit: expected a size with its unit, such as "
        "8GiB, or a share of what there is, such as 90%",
        "%imu limit 8": "invalid value '8' for %imu limit: expected a size with its unit, such as 8GiB, "
        "or a share of what there is, such as 90%",
        "%imu limit 1MiB": "invalid value 'N MiB' for %imu limit: expected more than N MiB, "
        "which this process already holds",
        "%imu limit " + "9" * 18 + "TiB": "invalid value 'N TiB' for %imu limit: expected a size that "
        "a process can have",
        "%imu run": "invalid value '' for %imu run: expected [-r N] STATEMENT",
        "%imu run -r": "invalid value '' for %imu run -r: expected a whole number, 1 to 1000000",
        "%imu run -r x a = 1": "invalid value 'x' for %imu run -r: expected a whole number, "
        "1 to 1000000",
        "%imu run -r 0 a = 1": "invalid value '0' for %imu run -r: expected a whole number, "
        "1 to 1000000",
        "%imu run -r 3": "invalid value '-r 3' for %imu run: expected [-r N] STATEMENT",
        "%%imu -r 0\na = 1": "invalid value '0' for %%imu -r: expected a whole number, 1 to 1000000",
        "%%imu -r 0\nawait x": "invalid value '0' for %%imu -r: expected a whole number, 1 to 1000000",
        "%%imu -z\na = 1": "invalid value '-z' for %%imu: expected [-r N] [-q] [-j FILE]",
        "%%imu x\na = 1": "invalid value 'x' for %%imu: expected [-r N] [-q] [-j FILE]",
        "%%imu 'x\na = 1": 'invalid value "\'x" for %%imu: expected [-r N] [-q] [-j FILE]',
        "%%imu -j nowhere/x.json\na = 1": "%%imu -j: nowhere/x.json cannot be written: "
        "No such file or directory",
    } == {
        command: re.sub(r"\d+\.\d", "N", "|".join(lines)).removeprefix("UsageError: ")
        for command, lines in seen.items()
    }


def test_styles(shell: Shell) -> None:
    """A command has the ancestor's line, a short one, or none; the history has them all. Those under
    `min_mib` have none either.
    """
    seen = shell(r"""
        run("%imu style short")
        seen["short"] = run("a = bytearray(8 * 2**20)\nb = 1")
        run("%imu style off")
        seen["off"] = run("a = 2")
        seen["off last"] = run("%imu last")
        run("%imu style auto")
        seen["auto"] = run("a = 3")
        run("%config ImuMagics.min_mib = 4")
        seen["small"] = run("a = bytearray(2**20)")
        seen["large"] = run("a = bytearray(8 * 2**20)")
        seen["history"] = [row["command"] for row in shell.user_ns["imu_history"]][2::2]
    """)
    [short] = seen["short"]
    assert re.fullmatch(r"\+8\.\d MiB \(a 8\.0\) · peak \+8\.\d · total \d+\.\d · \S+ ms", short)
    assert ([], []) == (seen["off"], seen["small"])
    assert seen["off last"][0].startswith("'a = 2'  -8.0 MiB · peak +0.0 · total ")
    assert ["'a = 3'", "'a = bytearray(8 * 2**20)'"] == [
        parts(lines[-1])["command"] for lines in (seen["auto"], seen["large"])
    ]
    assert ["a = 3", "a = bytearray(2**20)"] == seen["history"]


def test_nothing_is_said_on_loading_where_the_style_is_off(shell: Shell) -> None:
    """With `style` off in the configuration a notebook's outputs stay as they would be without."""
    seen = shell('seen["load"] = load; seen["next"] = run("a = 1")', {"ImuMagics": {"style": "off"}})
    assert ([], []) == (seen["load"], seen["next"])


def test_last_history_top(shell: Shell) -> None:
    """The last command, all of them, and those that took and kept the most, can be asked for."""
    seen = shell("""
        seen["none yet"] = [run(f"%imu {word}")[0] for word in ("last", )]
        run("a = bytearray(32 * 2**20)")
        run("b = bytearray(16 * 2**20)")
        run("len(bytearray(64 * 2**20))")
        seen["last"] = run("%imu last")
        seen["history"] = run("%imu history")
        seen["history 1"] = run("%imu history 1")
        seen["again"] = run("%imu last")
        seen["top"] = run("%imu top 2")
        seen["imu_last"] = repr(shell.user_ns["imu_last"])
    """)
    assert ["no command was measured yet"] == seen["none yet"]
    [last] = seen["last"]
    assert re.fullmatch(
        r"'len\(bytearray\(64 \* 2\*\*20\)\)'  \+0\.\d MiB · peak \+6[34]\.\d · total \S+ · \S+ ms", last
    )
    assert last == seen["imu_last"] == seen["again"][0]
    table = [line.split(maxsplit=4) for line in seen["history"]]
    assert ["number", "used", "peak", "time", "command"] == table[0]
    assert [("3", "'a = bytearray(32 * 2**20)'"), ("4", "'b = bytearray(16 * 2**20)'")] == [
        (row[0], row[4]) for row in table[1:3]
    ]
    assert [line.split()[-1:] for line in (seen["history"][0], *seen["history"][-2:])] == [
        line.split()[-1:] for line in seen["history 1"]
    ]
    commands = [line.partition("s  ")[2] for line in seen["top"]]
    assert [
        *(
            "",
            "",
            "'len(bytearray(64 * 2**20))'",
            "'a = bytearray(32 * 2**20)'; still there: a 32.0",
            "",
        ),
        *("", "", "'b = bytearray(16 * 2**20)'; still there: b 16.0", ""),
    ] == commands


@pytest.mark.needs_pandas
def test_history_is_data(shell: Shell) -> None:
    """`imu_history` is a list that pandas takes as it is: a row a command, numbers as numbers."""
    seen = shell("""
        run("a = bytearray(32 * 2**20)")
        run("1/0")
        run("import pandas")
        run("frame = pandas.DataFrame(imu_history)")
        frame = shell.user_ns["frame"]
        seen["columns"] = list(frame.columns)
        seen["command"] = list(frame["command"])
        seen["raised"] = [bool(one) for one in frame["raised"]]
        seen["kinds"] = [frame[name].dtype.kind for name in ("number", "used_mib", "seconds")]
        seen["used"] = float(frame["used_mib"][0])
    """)
    assert [
        *("number", "cell_id", "command", "began", "used_mib", "peak_mib", "above_current_mib"),
        *("since_last_mib", "total_mib", "seconds", "source", "raised", "notes", "names"),
    ] == seen["columns"]
    assert ["a = bytearray(32 * 2**20)", "1/0", "import pandas"] == seen["command"]
    assert [False, True, False] == seen["raised"]
    assert ["i", "f", "f"] == seen["kinds"]
    assert 31.5 <= seen["used"] <= 32.5


def test_saved_session_has_the_shape_of_a_test_run(shell: Shell, tmp_path: Path) -> None:
    """The JSON of a session has the keys of the one that `pytest --imu-json` writes, all the way down;
    less what is pytest's own in its environment, and with the notes on each command and its cell.
    """
    (tmp_path / "test_it.py").write_text("def test_it(): pass\n", encoding="utf-8")
    pytest_command = [sys.executable, "-m", "pytest", "-q", "-p", "imu", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*pytest_command, "--imu", "--imu-json=run.json", "test_it.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    seen = shell("""
        run("a = 1")
        run("1/0")
        seen["said"] = run("%imu save 'a session.json'")[0]
    """)
    assert "2 commands saved to a session.json" == seen["said"]
    session = json.loads((tmp_path / "a session.json").read_text(encoding="utf-8"))
    test_run = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert test_run.keys() == session.keys()
    assert test_run["schema"] == session["schema"]
    ours_alone = {"pytest", "plugins", "packages", "sources", "noise_floor_bytes"}
    assert test_run["environment"].keys() == session["environment"].keys() | ours_alone
    assert test_run["tests"][0].keys() | {"cell_id", "notes"} == session["tests"][0].keys()
    assert test_run["tests"][0]["phases"].keys() == session["tests"][0]["phases"].keys()
    call = session["tests"][0]["phases"]["call"]
    assert test_run["tests"][0]["phases"]["call"].keys() == call.keys()
    assert [("In [2]: a = 1", "passed", []), ("In [3]: 1/0", "failed", ["the command raised"])] == [
        (test["nodeid"], test["outcome"], test["notes"]) for test in session["tests"]
    ]


def test_files_of_a_session_are_not_replaced_by_others(shell: Shell, tmp_path: Path) -> None:
    """A link is followed, a device stays one, a file keeps its permissions; `-` prints JSON and nothing
    besides.
    """
    target = tmp_path / "target.json"
    target.write_text("old", encoding="ascii")
    target.chmod(0o640)
    (tmp_path / "link.json").symlink_to(target)
    seen = shell(r"""
        run("%imu off")
        run("%imu save link.json")
        with open("target.json") as file:
            seen["saved"] = list(json.load(file))
        run("%%imu -q -j link.json\na = 1")
        with open("target.json") as file:
            seen["cell"] = list(json.load(file))
        seen["null"] = run("%imu save /dev/null") + run("%%imu -q -j /dev/null\na = 1")
        seen["printed"] = list(json.loads("".join(run("%imu save -"))))
        seen["printed cell"] = list(json.loads("".join(run("%%imu -j -\na = 1"))))
    """)
    assert ["schema", "created", "environment", "tests"] == seen["saved"] == seen["printed"]
    assert ["statement", "runs"] == seen["cell"] == seen["printed cell"]
    assert ["0 commands saved to /dev/null"] == seen["null"]
    assert target == (tmp_path / "link.json").readlink()
    assert 0o640 == target.stat().st_mode & 0o777
    assert not Path("/dev/null").is_file()
    assert not (tmp_path / "-").exists()


@pytest.mark.parametrize("watching", [True, False])
def test_measuring_one_statement(shell: Shell, watching: bool) -> None:  # noqa: FBT001 - pytest passes it
    """A statement or a cell is run as often as asked, keeps what it assigns, and returns its numbers,
    with the report on or off.
    """
    seen = shell(rf"""
        if not {watching}:
            run("%imu off")
        run("count = 0")
        seen["shown"] = run("%imu run -r 3 count += 1; x = bytearray(32 * 2**20)")
        seen["count"], seen["x"] = shell.user_ns["count"], len(shell.user_ns["x"])
        run("m = %imu run count")
        m = shell.user_ns["m"]
        seen["m"] = [type(m).__name__, len(m.measurements), m.statement, m is shell.user_ns["imu_last"]]
        seen["html"] = m._repr_html_()[:7]
        seen["cell"] = run("%%imu -r 2\ncount += 1\ny = 2")
        seen["quiet"] = run("%%imu -q -j cell.json -r 2\ncount += 1\nz = 3")
        names = ("count", "y", "z")
        seen["names"] = [shell.user_ns[name] for name in names]
        seen["magic"] = run("%%imu -q\n%matplotlib --list\nw = !echo 5")[:0] + shell.user_ns["w"]
        seen["raised"] = error("%imu run 1/0")[-1]
        with open("cell.json") as file:
            seen["json"] = json.load(file)
    """)
    shown = [line for line in seen["shown"] if not line.startswith(("'", "Out["))]
    assert "runs 3" == shown[0]
    assert re.fullmatch(r"peak 3[12]\.\d \(3[12]\.\d to 3[12]\.\d\) MiB", shown[2])
    assert (3, 32 * 2**20) == (seen["count"], seen["x"])
    assert ["Repeated", 1, "count", True] == seen["m"]
    assert "<table>" == seen["html"]
    assert "runs 2" == seen["cell"][1]
    assert [] == seen["quiet"]
    assert [7, 2, 3] == seen["names"]
    assert ["5"] == seen["magic"]
    assert "ZeroDivisionError: division by zero" == seen["raised"]
    assert "count += 1\nz = 3" == seen["json"]["statement"]
    assert [{"delta_bytes", "peak_bytes", "source"}] * 2 == [
        {"delta_bytes", "peak_bytes", "source"} & run.keys() for run in seen["json"]["runs"]
    ]


def test_errors_of_what_is_measured(shell: Shell) -> None:
    """An error in what `%imu run` and `%%imu` run names the person's own lines, and shows no other."""
    own = ["Cell In[-], line 1"]
    expected = {
        "%%imu -r 2\na = 1\nb = [1/0]": ["Cell In[-], line 3", "----> 3 b = [1/0]"],
        "%imu run 1/0": [*own, "----> 1 1/0"],
        "m = %imu run 1/0": [*own, "----> 1 1/0"],
        "%imu run -r 2 f()": [
            *(*own, "----> 1 f()"),
            *("Cell In[3], line 1, in f()", "----> 1 def f(): 1/0"),
        ],
        "%%imu\nawait sleep(0)\n1/0": ["Cell In[-], line 3", "----> 3 1/0"],
        "%imu run await g()": [
            *(*own, "----> 1 await g()"),
            *("Cell In[3], line 2, in g()", "----> 2 async def g(): 1/0"),
        ],
        "%%imu -q\n\nx = = 1": ["Cell In[-], line 3"],
        "%imu run x = = 1": own,
    }
    seen = shell(rf"""
        run("from asyncio import sleep")
        run("def f(): 1/0\nasync def g(): 1/0")
        for source in {[*expected]!r}:
            here = f"[{{shell.execution_count}}]"
            seen[source] = [line.strip().replace(here, "[-]") for line in error(source)]
    """)
    for source, lines in seen.items():
        is_syntax = "= =" in source
        last = "SyntaxError: invalid syntax" if is_syntax else "ZeroDivisionError: division by zero"
        assert last == lines[-1]
        told = [line for line in lines if re.match(r"Cell In|File |\[\.\.\.|-+> ", line)]
        assert expected[source] == told


def test_value_of_what_is_measured(shell: Shell) -> None:
    """The value of the last expression is shown, of the last run, unless a `;` or `-q` is there; what it
    awaits is awaited.
    """
    seen = shell(r"""
        run("import asyncio; n = 0")
        def shown(source):
            numbers = ("used", "peak", "time", "Out[")
            return [line for line in run(source) if not line.startswith(numbers)]
        seen["cell"] = shown("%%imu -r 3\nn += 1\nn")
        seen["semicolon"] = shown("%%imu\nn;")
        seen["quiet"] = shown("%%imu -q\nn")
        seen["run"] = shown("%imu run n + 1")
        seen["kept"] = shown("m = %imu run n + 2")
        seen["awaiting cell"] = shown("%%imu -r 2\nawait asyncio.sleep(0)\nn += 1\nn")
        seen["awaiting run"] = shown("%imu run -r 2 await asyncio.sleep(0, 'slept')")
        seen["awaiting quietly"] = shown("%%imu -q\nn = await asyncio.sleep(0, 9)")
        seen["n"] = shell.user_ns["n"]
    """)
    assert {
        "cell": ["3", "runs 3"],
        "semicolon": ["runs 1"],
        "quiet": [],
        "run": ["4", "runs 1"],
        "kept": ["5"],
        "awaiting cell": ["5", "runs 2"],
        "awaiting run": ["'slept'", "runs 2"],
        "awaiting quietly": [],
        "n": 9,
    } == seen


@pytest.mark.needs_proc
def test_limit(shell: Shell) -> None:
    """Past the limit an allocation raises MemoryError at its own line; the shell, its variables and the
    report go on, and without the limit it succeeds.
    """
    seen = shell("""
        run("import numpy as np")
        run("kept = np.arange(10)")
        seen["set"] = run("%imu limit 700MiB")[0]
        seen["status"] = run("%imu status")[4]
        seen["numpy"] = run("before = 1; big = np.ones(2**27)")
        seen["python"] = run("big = bytearray(2**30)")
        seen["goes on"] = run("total = int(kept.sum()) + before")
        seen["total"] = shell.user_ns["total"]
        seen["off"] = run("%imu limit off")[0]
        seen["fits"] = run("big = bytearray(2**30); size = len(big)")
        seen["size"] = shell.user_ns["size"]
    """)
    assert "limit: 700.0 MiB, MemoryError at 665.0 MiB" == seen["set"] == seen["status"]
    for key, source in (("numpy", "big = np.ones(2**27)"), ("python", "big = bytearray(2**30)")):
        assert [line for line in seen[key] if line.startswith("----> 1 ") and source in line]
        assert [line for line in seen[key] if line.startswith("MemoryError")]
        assert "; the command raised" == parts(seen[key][-1])["notes"]
    assert 1 == len(seen["goes on"])
    assert 46 == seen["total"]
    assert "limit: none" == seen["off"]
    assert 2**30 == seen["size"]


@pytest.mark.usefixtures("interrupts_are_heard")
@pytest.mark.needs_proc
def test_limit_interrupts_in_time(shell: Shell) -> None:
    """A command that comes near the limit is interrupted by a MemoryError, at the person's own line;
    what it has made is kept and can be freed near the limit. A ^C is one, and between commands the
    handler is the old one.
    """
    seen = shell(r"""
        from pytest_imu.core.memory.platforms import rss_bytes
        shell.user_ns["rss_bytes"] = rss_bytes
        shell.user_ns["near"] = 288 * 2**20
        before = signal.getsignal(signal.SIGINT)
        run("import signal, time; held = []")
        run("%imu limit 300MiB")
        grow = "while True:\n    if rss_bytes() < near: held.append(bytearray(2**22))\n    "
        seen["grown"] = run(grow + "time.sleep(0.001)")
        seen["held"] = len(shell.user_ns["held"])
        seen["near"] = run("n = len(held); held.clear()")
        seen["interrupted"] = run("signal.raise_signal(signal.SIGINT)")
        seen["restored"] = signal.getsignal(signal.SIGINT) is before
        run("from asyncio import sleep")
        seen["awaiting"] = run(grow + "await sleep(0)")
        seen["goes on"] = run("held.clear()")
        run("%imu limit off")
        seen["threads"] = [thread.name for thread in threading.enumerate()]
    """)
    for key in ("grown", "awaiting"):
        report, error = parts(seen[key].pop()), seen[key].pop()
        assert re.fullmatch(
            r"MemoryError: the process holds 2[89]\d\.\d MiB, and its limit is 300\.0 MiB", error
        )
        assert 285 <= float(report["total"]) < 300
        assert "; the command raised" == report["notes"]
        assert ["Cell In"] == [line[:7] for line in seen[key] if line.startswith(("Cell", "File"))][:1]
        assert not any("ipython_hooks" in line for line in seen[key])
    assert 50 <= seen["held"] <= 72
    assert 1 == len(seen["near"]) == len(seen["goes on"])
    assert "KeyboardInterrupt" in "".join(seen["interrupted"])
    assert seen["restored"]
    assert "imu-limit" not in seen["threads"]


@pytest.mark.needs_numpy
@pytest.mark.needs_malloc_trim
@pytest.mark.needs_kernel_peaks
def test_numbers_after_a_refused_allocation(shell: Shell) -> None:
    """Where an allocation was refused, glibc serves the thread from another arena, whose free top it
    keeps: what a run reuses of it is said, by `%imu run` and by the line.
    """
    seen = shell("""
        run("import numpy as np; n = 3_000_000")
        seen["before"] = run("%imu run -r 3 np.ones(n) + np.ones(n);")
        run("%imu limit 500MiB")
        seen["refused"] = run("np.ones(10**9)")[-2]
        run("%imu limit off")
        run("%imu run np.ones(n) + np.ones(n);")
        seen["after"] = run("%imu run -r 3 np.ones(n) + np.ones(n);")
        seen["line"] = run("np.ones(n) + np.ones(n);")
    """)
    assert not any(line.startswith("reused") for line in seen["before"])
    assert seen["refused"].startswith("MemoryError: Unable to allocate ")
    peak = next(float(line.split()[1]) for line in seen["before"] if line.startswith("peak"))
    low = next(float(line.split()[1]) for line in seen["after"] if line.startswith("peak"))
    [reused] = [float(line.split()[3]) for line in seen["after"] if line.startswith("reused up to ")]
    assert 45 < peak < 70
    assert low < peak - 20
    assert low + reused >= peak - 1
    assert "; reused up to " in parts(seen["line"][-1])["notes"]


@pytest.mark.needs_proc
def test_no_hard_limit_where_it_would_kill(shell: Shell) -> None:
    """Once polars is loaded, whose allocator ends the process where memory is refused, there is only the
    watch, and it is said.
    """
    seen = shell(r"""
        import resource, types
        hard = lambda: resource.getrlimit(resource.RLIMIT_DATA)[0]
        none = hard()
        run("%imu limit 4GiB")
        seen["before"] = hard() != none
        sys.modules["polars"] = types.ModuleType("polars")
        run("pass")
        seen["after"] = hard() == none
        seen["said"] = run("%imu limit")
        run("%imu limit off")
        seen["set"] = run("%imu limit 4GiB")
        seen["never"] = hard() == none
    """)
    assert [True, True, True] == [seen[key] for key in ("before", "after", "never")]
    said = "limit: 4.0 GiB, MemoryError at 3.8 GiB; no hard limit, at which polars would end the process"
    assert [said] == seen["said"] == seen["set"]


def test_help(shell: Shell) -> None:
    """`%imu?` explains every word that there is."""
    seen = shell("""
        from ipython_hooks.commands import ALONE, WITH_WORDS
        seen["words"] = [*ALONE, *WITH_WORDS]
        seen["asked"] = run("%imu?")
        seen["help"] = run("%imu help")
    """)
    assert {line.strip() for line in seen["help"]} <= {line.strip() for line in seen["asked"]}
    text = "\n".join(seen["help"])
    for word in seen["words"]:
        assert re.search(rf"^ +%imu ({word}|\w+ \| {word}|{word} .*)\b", text, re.MULTILINE), word
    assert "%%imu [-r N] [-q] [-j FILE]" in text


def test_config(shell: Shell) -> None:
    """`%config` and a config file set what there is to set; a wrong event in one costs only itself."""
    config = {"ImuMagics": {"decimals": 3, "command_width": 12, "perf": "--bad"}}
    seen = shell(
        """
        seen["load"] = load
        seen["three"] = report("long_name = 1")
        run("%config ImuMagics.decimals = 0")
        seen["none"] = report("a = 1")
        """,
        config,
    )
    refused, loaded = seen["load"]
    assert refused.startswith("c.ImuMagics.perf: invalid value '--bad' for %imu perf: expected an event")
    assert LOADED == loaded
    assert re.match(r"'long...e = 1' used -?\d+\.\d{3} MiB RAM", seen["three"])
    assert re.match(r"'a = 1' used -?\d+ MiB RAM", seen["none"])


def test_unload_undoes_everything(shell: Shell) -> None:
    """Unloading takes away events, magics, names, options, threads, perf and the limit; what the person
    has made of the names stays. Loading again works, and loading twice is one report.
    """
    seen = shell("""
        import resource
        def state():
            manager = shell.magics_manager
            children = []
            for task in os.listdir("/proc/self/task") if os.path.exists("/proc") else ():
                with contextlib.suppress(FileNotFoundError):  # a thread that has ended meanwhile
                    with open(f"/proc/self/task/{task}/children") as file:
                        children += file.read().split()
            return {
                "events": {name: len(there) for name, there in shell.events.callbacks.items()},
                "magics": sorted(n for kind in manager.magics.values() for n in kind if "imu" in n),
                "registry": "ImuMagics" in manager.registry,
                "configurables": [type(one).__name__ for one in shell.configurables],
                "names": sorted(name for name in shell.user_ns if "imu" in name),
                "threads": sorted(thread.name for thread in threading.enumerate()),
                "children": children,
                "limit": resource.getrlimit(resource.RLIMIT_DATA),
            }
        run("%unload_ext ipython_hooks")
        seen["before"] = state()
        seen["uncommanded"] = [run("pass"), run("%imu")]
        seen["load"] = run("%load_ext ipython_hooks")
        run("%imu perf page-faults")
        run("%imu live on")
        run("%imu limit 4GiB")
        run("pass")
        seen["again"] = run("%load_ext ipython_hooks")[0]
        seen["during"] = state()
        seen["unload"] = run("%unload_ext ipython_hooks")
        seen["after"] = state()
        run("import numpy; imu_last = 5; imu_history = numpy.arange(3)")
        run("%load_ext ipython_hooks")
        run("pass")
        seen["reload"] = [run("%reload_ext ipython_hooks"), len(run("pass"))]
        run("%unload_ext ipython_hooks")
        seen["own"] = [shell.user_ns["imu_last"], shell.user_ns["imu_history"].tolist()]
        import ipython_hooks
        for _ in range(2):
            ipython_hooks.load_ipython_extension(shell)
        seen["by hand"] = len(run("pass"))
    """)
    assert seen["before"] == seen["after"]
    assert ([], False) == (seen["before"]["names"], seen["before"]["registry"])
    changed = {key for key in seen["before"] if seen["before"][key] != seen["during"][key]}
    assert {"events", "magics", "registry", "configurables", "names", "limit"} <= changed
    assert ["imu_history", "imu_last"] == seen["during"]["names"]
    assert [[], ["UsageError: Line magic function `%imu` not found."]] == seen["uncommanded"]
    assert [LOADED] == seen["load"]
    assert "The ipython_hooks extension is already loaded. To reload it, use:" == seen["again"]
    assert [] == seen["unload"]
    assert [[LOADED], 1] == seen["reload"]
    assert [5, [0, 1, 2]] == seen["own"]
    assert 1 == seen["by hand"]


def test_names_come_back_after_reset(shell: Shell) -> None:
    """`%reset` empties the namespace, and the next command puts the history and the last one back."""
    seen = shell("""
        run("a = 1")
        run("%reset -f")
        seen["names"] = ["imu_history" in shell.user_ns, "imu_last" in shell.user_ns]
        seen["commands"] = [row["command"] for row in shell.user_ns["imu_history"]]
    """)
    assert [True, True] == seen["names"]
    assert ["a = 1", "%reset -f"] == seen["commands"]


@pytest.mark.needs_matplotlib
def test_plot(shell: Shell, tmp_path: Path) -> None:
    """The session is drawn into a file or returned as a figure; an unknown format is one line."""
    seen = shell("""
        run("a = bytearray(10**7)")
        run("x = '$ $ <b> \\\\n'")
        run("figure = %imu plot picture.png")
        figure = shell.user_ns["figure"]
        axes, key = figure.figure.axes
        seen["total"] = [line.get_ydata().tolist() for line in axes.lines]
        seen["marks"] = axes.collections[-1].get_offsets()[:, 1].tolist()
        seen["rows"] = [
            size for row in shell.user_ns["imu_history"]
            for size in (row["total_mib"] - row["used_mib"], row["total_mib"])
        ]
        seen["key"] = [text.get_text() for text in key.texts]
        seen["text"], seen["html"] = repr(figure), figure._repr_html_()
        run("%imu plot 'a b.svg'")
        seen["format"] = error("%imu plot picture.nonsense")
    """)
    assert b"\x89PNG" == (tmp_path / "picture.png").read_bytes()[:4]
    assert b"<svg" in (tmp_path / "a b.svg").read_bytes()
    assert "<picture of 2 commands; %imu plot FILE writes it>" == seen["text"]
    assert [seen["rows"]] == seen["total"]
    assert 2 == len(seen["marks"])
    assert re.fullmatch(r"1  In \[2\]  peak \+\d+\.\d\n    a = bytearray\(10\*\*7\)", seen["key"][0])
    # A notebook's picture has the page's own colour for its text, and what was typed is text in it.
    assert seen["html"].startswith('<div style="color: var(--jp-content-font-color1, inherit)"><svg')
    assert "currentColor" in seen["html"]
    assert "<b>" not in seen["html"]
    assert ["UsageError: %imu plot: Format 'nonsense' is not supported"] == [
        line.partition(" (")[0] for line in seen["format"]
    ]


@pytest.mark.needs_matplotlib
def test_plot_names_the_largest_of_many(shell: Shell) -> None:
    """Of 300 commands the ten largest peaks are named, their numbers apart from each other; nothing but
    the page's width is needed. A session without a command has an empty picture.
    """
    seen = shell("""
        import dataclasses
        from ipython_hooks.plot import plot
        run("a = bytearray(2**20)")
        [one] = shell.magics_manager.registry["ImuMagics"].session.watcher.history
        base = one.measurement.before_bytes
        records = [
            dataclasses.replace(
                one,
                number=number,
                began_ns=one.began_ns + number * 10**9,
                measurement=dataclasses.replace(one.measurement, rss_peak_bytes=base + number * 2**20),
            )
            for number in range(300)
        ]
        axes, key = plot(records).figure.axes
        seen["marks"] = len(axes.collections[-1].get_offsets())
        seen["unit"] = axes.get_xlabel()
        seen["key"] = [text.get_text().split()[:5] for text in key.texts]
        low, high = axes.get_xlim()
        seen["places"] = [(text.xyann[0] - low) / (high - low) for text in axes.texts]
        seen["empty"] = repr(plot([]))
    """)
    assert (300, "minutes since the first command") == (seen["marks"], seen["unit"])
    assert [["1", "In", "[299]", "peak", "+299.0"], ["2", "In", "[298]", "peak", "+298.0"]] == seen[
        "key"
    ][:2]
    assert 10 == len(seen["key"]) == len(seen["places"])
    places = sorted(seen["places"])
    assert 0 <= places[0]
    assert places[-1] <= 1
    assert all(after - before >= 0.049 for before, after in itertools.pairwise(places))
    assert "<picture of 0 commands; %imu plot FILE writes it>" == seen["empty"]


def test_plot_without_matplotlib(shell: Shell) -> None:
    """Without matplotlib, the error says what to install."""
    seen = shell("""
        sys.modules["matplotlib"] = sys.modules["matplotlib.figure"] = None
        seen["error"] = error("%imu plot")
    """)
    assert ["UsageError: %imu plot needs matplotlib: pip install 'pytest-imu[plot]'"] == seen["error"]


def test_terminal_shell(tmp_path: Path) -> None:
    """In the shell of the `ipython` command the report comes as well, and the shell ends cleanly."""
    environment = {**os.environ, "IPYTHONDIR": str(tmp_path / "ipython")}
    command = [sys.executable, "-W", "error", "-m", "IPython", "--simple-prompt", "--no-banner"]
    done = subprocess.run(
        [*command, "--colors=nocolor", "--HistoryManager.enabled=False", "--ext=ipython_hooks"],
        input="a = 1\n%imu off\n%imu on\nb = 2\nexit\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=tmp_path,
        env=environment,
    )
    assert (0, "") == (done.returncode, done.stderr), done.stdout
    reported = re.findall(r"'(.*)' used .* MiB RAM in ", done.stdout)
    assert ["a = 1", "b = 2"] == reported[:2]
    assert LOADED in done.stdout
