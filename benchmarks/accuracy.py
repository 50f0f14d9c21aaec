"""How far each tool is off: python benchmarks/accuracy.py [--rounds N] [--case NAME ...].

Runs the known answers of `tests/accuracy/cases.py` through pytest-imu and the tools that are installed
(`pip install 'pytest-imu[bench]'`), each number in a fresh process, the rounds interleaved. Prints the
tables of `docs/accuracy.md`: measured peak less true peak, in MiB.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

PEERS = Path(__file__).with_name("peers.py")
GROUPS = {"process": "Around a piece of code", "plugin": "As a pytest plugin"}
HIGH_WATER, FROM_PROCESS = "RSS, the kernel's high-water mark", "samples of RSS from another process"
FROM_THREAD = "samples of RSS from a thread, over one before"
COMPARED = {
    "`measure()`": f"{HIGH_WATER}, over the RSS before",
    "memory_profiler, 100 ms": f"{FROM_PROCESS}, over one before",
    "memory_profiler, 1 ms": f"{FROM_PROCESS}, over one before",
    "psutil thread, 10 ms": FROM_THREAD,
    "psutil thread, 1 ms": FROM_THREAD,
    "`ru_maxrss`": "growth of the process's highest RSS so far",
    "tracemalloc": "bytes that Python's allocators gave out, over those before",
    "pytest-imu": f"{HIGH_WATER}, of the test's call, over the RSS before",
    "pytest-isolate": f"{HIGH_WATER}, of the test's own process, over an empty test's",
    "pytest-monitor": f"{FROM_PROCESS} each 100 ms, over an empty test's",
    "pytest-memray": "bytes that the call itself allocated, touched or not",
}
"""What of each tool is held against the truth."""
RUN_LIMIT_S = 180
SHOWN_MIB = 0.05
"""Half of the last digit that is printed."""

Answer = Mapping[str, Any]
"""What peers.py prints: `peak_mib`, or the `reason` why there is none. Any: it is read from JSON."""
Answers = dict[tuple[str, str], list[Answer]]
"""By tool and case, one a round."""


def ask(*arguments: str) -> Answer:
    """Return what peers.py says, in a process of its own."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, str(PEERS), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_LIMIT_S,
    )
    if done.returncode != 0:
        return {"reason": (done.stderr.strip().splitlines() or ["it failed without a word"])[-1]}
    answer: Answer = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def ask_all(tools: Sequence[Answer], cases: Sequence[Answer], rounds: int) -> Answers:
    """Ask every tool for every case, in rounds, so that a noisy moment disturbs all alike."""
    answers: Answers = {}
    for number in range(rounds):
        for case in cases:
            print(f"round {number + 1}: {case['name']}", file=sys.stderr)
            for tool in tools:
                asked = answers.setdefault((tool["name"], case["name"]), [])
                asked.append(ask(tool["name"], case["name"]))
    return answers


def errors_mib(answers: Iterable[Answer], true_mib: float) -> list[float] | None:
    """Return how far the peaks are off, the worst last; None where a number is missing."""
    peaks_mib = [answer.get("peak_mib") for answer in answers]
    if None in peaks_mib:
        return None
    return sorted((peak - true_mib for peak in peaks_mib if peak is not None), key=abs)


def cell(errors: Sequence[float] | None) -> str:
    """Return the median error, and the worst one where it reads differently."""
    if errors is None:
        return "failed"
    middle, worst = statistics.median(errors), errors[-1]
    text = signed(middle)
    return text if abs(worst - middle) < 2 * SHOWN_MIB else f"{text} ({signed(worst)})"


def signed(error_mib: float) -> str:
    """Return an error with its sign; a zero has none."""
    return "0.0" if abs(error_mib) < SHOWN_MIB else f"{error_mib:+.1f}"


def row(cells: Iterable[str]) -> str:
    """Return a line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def table(tools: Sequence[Answer], cases: Sequence[Answer], answers: Answers) -> list[str]:
    """Return the lines of one group's table."""
    names = [tool["name"] for tool in tools]
    lines = [row(["case", "truth", *names]), row(["---", *["---:"] * (len(names) + 1)])]
    exact = dict.fromkeys(names, 0)
    for case in cases:
        cells = [case["why"], f"{case['peak_mib']:.1f}"]
        for name in names:
            errors = errors_mib(answers[name, case["name"]], case["peak_mib"])
            exact[name] += errors is not None and abs(errors[-1]) <= case["bound_mib"]
            cells.append(cell(errors))
        lines.append(row(cells))
    within = [f"**{exact[name]} of {len(cases)}**" for name in names]
    return [*lines, row(["**always within the bound**", "", *within])]


def reasons(answers: Answers) -> list[str]:
    """Return why there are numbers missing, each reason once."""
    found = {
        (tool, answer["reason"]): None
        for (tool, _), asked in answers.items()
        for answer in asked
        if "reason" in answer
    }
    return [f"* {tool} failed: `{reason}`" for tool, reason in found]


def machine() -> str:
    """Return what the numbers depend on besides the tools."""
    system = f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs"
    libc = " ".join(platform.libc_ver())
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{system}, {libc}, {python}, pytest {version('pytest')}, numpy {version('numpy')}"


def main() -> None:
    """Ask and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each is asked (default 3)")
    parser.add_argument("--case", action="append", help="this case only; may be given again")
    options = parser.parse_args()

    known = ask("--list")
    cases = [case for case in known["cases"] if not options.case or case["name"] in options.case]
    installed = [tool for tool in known["tools"] if tool["version"] is not None]
    answers = ask_all(installed, cases, options.rounds)

    print(f"{options.rounds} rounds on {machine()}.")
    for group, title in GROUPS.items():
        tools = [tool for tool in installed if tool["group"] == group]
        print("", f"### {title}", "", *table(tools, cases, answers), sep="\n")
    print("", "| tool | version | what is compared |", "| --- | --- | --- |", sep="\n")
    for tool in known["tools"]:
        print(row([tool["name"], tool["version"] or "not installed", COMPARED[tool["name"]]]))
    failed = reasons(answers)
    if failed:
        print("", *failed, sep="\n")


if __name__ == "__main__":
    main()
