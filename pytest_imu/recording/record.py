"""What a test measures, on its way: gathered while it runs, sent home with its reports."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, TypeVar

import pytest

from pytest_imu.core.alone import Alone, decided
from pytest_imu.core.budgets import AnyBudget, Budget, Verdict
from pytest_imu.core.checks import NO_TERMS, NOT_TO_ITS_END, Terms, check, is_doubtful, unchecked
from pytest_imu.core.children.census import CensusStart, process_census
from pytest_imu.core.counters.source import CounterSource
from pytest_imu.core.leaks.growth import Growth
from pytest_imu.core.memory.reusable import NOTEWORTHY_BYTES
from pytest_imu.core.meter import Meter
from pytest_imu.core.model import Block, Measurement, Phase, Start
from pytest_imu.core.system import System

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class TeardownKept:
    """What a test left behind between the end of its call and the next test's beginning."""

    nodeid: str
    attempt: int
    kept_bytes: int


Why = Mapping[str, Any]
"""The lines behind a test's numbers, from another run of it, as they stand in the JSON file."""


class PhaseRecord(NamedTuple):  # three for each test, made in a third of a frozen dataclass's time
    """What is new since the last report, and travels with a report as its attribute `imu`."""

    attempt: int
    phases: tuple[tuple[Phase, Measurement], ...] = ()
    blocks: tuple[Block, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    before: TeardownKept | None = None
    """About the test before this one, where it kept something worth a word."""
    isolated: bool = False
    """Whether the test runs in a process of its own."""
    failed_by_budget: bool = False
    """Whether all that failed so far is a budget: the test ran to its end."""
    why: Why | None = None
    growth: Growth | None = None
    """What further calls of the test's body grew."""
    start: Start | None = None
    """When the test began; only with its first report."""
    ended_ns: int | None = None
    """When it ended, on the monotonic clock; only with its last report."""
    timeline: Mapping[str, Any] | None = None
    """What was sampled while it ran, in plain form; only with its last report."""

    def to_dict(self) -> dict[str, Any]:
        """Return the plain form, which crosses from an xdist worker to its controller."""
        return {
            "attempt": self.attempt,
            "phases": {phase: measurement.to_dict() for phase, measurement in self.phases},
            "blocks": [block.to_dict() for block in self.blocks],
            "verdicts": [verdict.to_dict() for verdict in self.verdicts],
            "before": None if self.before is None else asdict(self.before),
            "isolated": self.isolated,
            "failed_by_budget": self.failed_by_budget,
            "why": self.why,
            "growth": None if self.growth is None else self.growth.to_dict(),
            "start": None if self.start is None else [*self.start],
            "ended_ns": self.ended_ns,
            "timeline": self.timeline,
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> PhaseRecord:
        """Rebuild the record from its plain form."""
        return cls(
            attempt=plain["attempt"],
            phases=tuple((phase, Measurement.from_dict(one)) for phase, one in plain["phases"].items()),
            blocks=tuple(Block.from_dict(block) for block in plain["blocks"]),
            verdicts=tuple(Verdict.from_dict(verdict) for verdict in plain["verdicts"]),
            before=None if plain["before"] is None else TeardownKept(**plain["before"]),
            isolated=plain["isolated"],
            failed_by_budget=plain["failed_by_budget"],
            why=plain["why"],
            growth=None if plain["growth"] is None else Growth.from_dict(plain["growth"]),
            start=None if plain["start"] is None else Start(*plain["start"]),
            ended_ns=plain["ended_ns"],
            timeline=plain["timeline"],
        )


@functools.lru_cache(maxsize=8)
def nothing_new(attempt: int, *, isolated: bool) -> PhaseRecord:
    """Return the record of a report that has nothing to carry: that there is such a test."""
    return PhaseRecord(attempt=attempt, isolated=isolated)


class TestRecord:
    """What one attempt at one test has measured so far; it dies with the attempt."""

    __test__ = False  # pytest would collect a class of this name

    def __init__(
        self,
        *,
        attempt: int,
        budgets: Sequence[AnyBudget],
        counters: CounterSource | None = None,
        isolated: bool = False,
    ) -> None:
        self.attempt = attempt
        self.start = Start.now()
        self.new_start: Start | None = self.start
        self.ended_ns: int | None = None
        self.timeline: Mapping[str, Any] | None = None
        self.alone: Alone | None = None
        """What one more run measured, where there was one."""
        self.alone_ns = 0
        """How long that took, which is no time of the test's."""
        self.isolated = isolated
        self.failed_by_budget = False
        self.before: TeardownKept | None = None
        self.census: CensusStart | None = None
        self.counters = counters
        self.open_budgets = tuple(budgets)
        # What an earlier run sets is none: measured as that was, a number can be compared with it.
        self.has_memory_budget = any(isinstance(budget, Budget) for budget in budgets)
        self.phases: dict[Phase, Measurement] = {}
        self.phases_taken = 0
        self.passed = True
        self.outcome: str | None = None
        self.new_blocks: tuple[Block, ...] = ()
        self.new_verdicts: tuple[Verdict, ...] = ()
        self.new_why: Why | None = None
        self.growth: Growth | str | None = None
        """What further calls of its body grew, or why there were none; None before there were any."""
        self.setup_meter: Meter | None = None

    @property
    def keeps_memory(self) -> bool:
        """Whether more stands now than did before the test, as far as that can be told."""
        deltas = (measurement.delta_bytes for measurement in self.phases.values())
        return sum(delta or 0 for delta in deltas) >= NOTEWORTHY_BYTES

    def end_setup(self, *, call_follows: bool = False) -> None:
        """Close the setup's window where it is open; a call tells of the setup's children too."""
        meter, self.setup_meter = self.setup_meter, None
        if meter is None:
            return
        meter.__exit__(None, None, None)
        measurement = meter.measurement
        if self.census is not None and not call_follows:
            had_children = process_census().had_children(self.census)
            measurement = replace(measurement, had_children=had_children)
        self.phases["setup"] = measurement

    def timed_alone(self, run: Callable[[int], T]) -> T:
        """Return what one more run told, which gets the time of the first; its own is noted."""
        begin_ns = System.perf_counter_ns()
        alone = run(sum(measurement.duration_ns for measurement in self.phases.values()))
        self.alone_ns += System.perf_counter_ns() - begin_ns
        return alone

    def measure_again(self, run: Callable[[int], Alone]) -> None:
        """Where this test was the first to import much, take the numbers of another run without that."""
        if any(measurement.imports for measurement in self.phases.values()):
            again = self.timed_alone(run)
            if again.reason is None and again.phases.keys() >= self.phases.keys():
                self.phases.update({phase: again.phases[phase] for phase in self.phases})
                self.phases_taken = 0  # that of the setup has been sent already

    def add_block(self, block: Block) -> None:
        """Keep a named block for the next report."""
        self.new_blocks += (block,)

    def judge(
        self,
        *,
        last: bool,
        terms: Terms = NO_TERMS,
        run_alone: Callable[[], Alone] | None = None,
    ) -> list[Verdict]:
        """Hold every budget that can be decided now against the phases; return the broken ones.

        What reaches over all phases is decided after the last, or as soon as it is broken. Where a
        verdict is in doubt *run_alone* decides it.
        """
        verdicts, still_open = [], []
        for budget in self.open_budgets:
            verdict = check(budget, self.phases, terms)
            early = budget.phase == "all" and not last
            is_due = not early or (budget.name != "max_delta_mib" and verdict.outcome == "broken")
            if is_due and self.passed and run_alone is not None:
                doubtful = is_doubtful(verdict, self.phases, terms)
                verdict = decided(verdict, run_alone(), terms) if doubtful else verdict
            if not is_due or (early and verdict.outcome != "broken"):
                still_open.append(budget)
            elif verdict.outcome == "kept" and not self.passed:
                verdicts.append(unchecked(budget, NOT_TO_ITS_END))
            else:
                verdicts.append(verdict)
        self.open_budgets = tuple(still_open)
        self.new_verdicts += tuple(verdicts)
        return [verdict for verdict in verdicts if verdict.outcome == "broken"]

    def break_now(self, budget: AnyBudget, reason: str) -> None:
        """Take in that a budget has stopped the test by itself."""
        self.open_budgets = tuple(one for one in self.open_budgets if one != budget)
        self.new_verdicts += (Verdict(budget=budget, outcome="broken", reason=reason),)

    def note_failure(self, phase: str) -> None:
        """Take in that a phase has failed or was skipped.

        A unittest.TestCase tells that only with the report: what was called kept before is unchecked.
        A subtest tells it while the phase still runs, and then it does not count.
        """
        if self.passed and any(name == phase for name in self.phases):
            self.passed = False
            self.new_verdicts = tuple(
                unchecked(verdict.budget, NOT_TO_ITS_END) if verdict.outcome == "kept" else verdict
                for verdict in self.new_verdicts
            )

    def take(self) -> PhaseRecord:
        """Return what is new since the last report."""
        is_new = (
            len(self.phases) > self.phases_taken
            or self.new_start
            or self.ended_ns
            or self.new_blocks
            or self.new_verdicts
            or self.before
            or self.new_why
        )
        if not is_new:
            return nothing_new(self.attempt, isolated=self.isolated)
        phases = tuple(self.phases.items())[self.phases_taken :]
        taken = PhaseRecord(
            attempt=self.attempt,
            phases=phases,
            blocks=self.new_blocks,
            verdicts=self.new_verdicts,
            before=self.before,
            isolated=self.isolated,
            failed_by_budget=self.failed_by_budget,
            why=self.new_why,
            growth=self.growth if isinstance(self.growth, Growth) else None,
            start=self.new_start,
            ended_ns=self.ended_ns,
            timeline=self.timeline,
        )
        self.phases_taken = len(self.phases)
        self.new_blocks, self.new_verdicts = (), ()
        self.before = self.new_why = self.new_start = None
        return taken


def combined_outcome(so_far: str | None, report: pytest.TestReport) -> str:
    """Return a test's outcome after one more phase, in pytest's own words."""
    outcome: str = report.outcome
    if hasattr(report, "wasxfail"):
        outcome = "xfailed" if outcome == "skipped" else "xpassed"
    elif outcome == "failed" and report.when != "call":
        outcome = "error"
    if so_far in (None, "passed"):
        return outcome
    # What came before the call's own report came from its subtests, and of those only failures count.
    if so_far != "failed" and (outcome == "error" or report.when == "call"):
        return outcome
    return str(so_far)
