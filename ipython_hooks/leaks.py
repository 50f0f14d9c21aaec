"""Growth a call of a statement: `%imu leaks [-n 8] STATEMENT`."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from ipython_hooks.arguments import CommandError, naming, whole_number
from pytest_imu.core.invalid import InvalidValueError

if TYPE_CHECKING:
    from ipython_hooks.session import Session

MOST_CALLS = 1_000_000
NAME = "%imu leaks"


def leaks(session: Session, rest: str) -> None:
    """Run a statement again and again, and say what each run leaves behind."""
    from pytest_imu.core.budgets import USUAL_CALLS, USUAL_WARMUP, LeakBudget
    from pytest_imu.core.leaks.counts import growth_of

    calls, statement = USUAL_CALLS, rest
    if rest.startswith("-n"):
        number, _, statement = rest.removeprefix("-n").strip().partition(" ")
        with naming(f"{NAME} -n"):
            calls = whole_number(number, most=MOST_CALLS)
            if calls == 1:
                raise InvalidValueError(number, f"a whole number, 2 to {MOST_CALLS}")
    if not statement.strip():
        raise CommandError(InvalidValueError(rest, "[-n N] STATEMENT").of(NAME))
    shell = session.shell
    code = compile(shell.transform_cell(statement.strip()), "<imu>", "exec")
    # In the person's own namespace, as %imu run has it.
    call = functools.partial(exec, code, shell.user_ns)
    for _ in range(USUAL_WARMUP):
        call()
    growth = growth_of(call, calls=calls, warmup=USUAL_WARMUP, limit_kib=0)
    parts = LeakBudget(limit_kib=0, calls=calls).parts(growth)
    if growth.grew(0, parts=parts):
        session.say([growth.line(0, "", parts=parts)])
    else:
        session.say([f"does not grow: {growth.calls} calls after {USUAL_WARMUP} warm-ups"])
