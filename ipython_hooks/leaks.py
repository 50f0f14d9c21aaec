"""Growth a call of a statement: `%imu leaks [-n 8] STATEMENT`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ipython_hooks.arguments import MAX_RUNS, CommandError, split_count
from ipython_hooks.running import statement_at_once
from pytest_imu.core.invalid import InvalidValueError

if TYPE_CHECKING:
    from ipython_hooks.session import Session

NAME = "%imu leaks"


def leaks(session: Session, rest: str) -> None:
    """Run a statement again and again, and say what each run leaves behind."""
    from pytest_imu.core.budgets import USUAL_CALLS, USUAL_WARMUP, LeakBudget
    from pytest_imu.core.leaks.counts import growth_of

    calls, statement = split_count(rest, "-n", NAME, usual=USUAL_CALLS)
    if calls == 1:
        raise CommandError(InvalidValueError("1", f"a whole number, 2 to {MAX_RUNS}").of(f"{NAME} -n"))
    call = statement_at_once(session.shell, statement, NAME)
    for _ in range(USUAL_WARMUP):
        call()
    growth = growth_of(call, calls=calls, warmup=USUAL_WARMUP, limit_kib=0)
    parts = LeakBudget(limit_kib=0, calls=calls).parts(growth)
    if growth.grew(0, parts=parts):
        session.say([growth.line(0, "", parts=parts)])
    else:
        session.say([f"does not grow: {growth.calls} calls after {USUAL_WARMUP} warm-ups"])
