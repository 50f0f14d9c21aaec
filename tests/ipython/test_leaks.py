"""`%imu leaks`: what a statement leaves behind each time that it runs."""

from __future__ import annotations

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from ipython_hooks.arguments import CommandError
from ipython_hooks.leaks import leaks


class Session:
    """As much of a session as the command needs; keeps what is said."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        self.said: list[str] = []

    def say(self, lines: list[str]) -> None:
        """Keep lines."""
        self.said += lines


@pytest.fixture
def session() -> Session:
    """Return a session with a shell that has run nothing."""
    return Session(run_in_nothing())


def run_in_nothing() -> InteractiveShell:
    """Return a shell without a history, which would be a file that stays open."""
    config = Config()
    config.HistoryManager.enabled = False
    return InteractiveShell(config=config)  # type: ignore[no-untyped-call]  # IPython's own


@pytest.mark.parametrize(
    ("rest", "line"),
    [
        (
            "kept.append(bytearray(5000))",
            "grows by 4.9 KiB and 2 blocks a call: 8 of 8 calls after 3 warm-ups",
        ),
        ("-n 10 kept.append(object())", "grows by 1 block a call: 10 of 10 calls after 3 warm-ups"),
        ("-n 9 [str(n) for n in range(1000)]", "does not grow: 9 calls after 3 warm-ups"),
    ],
)
def test_statement(session: Session, rest: str, line: str) -> None:
    """It runs in the person's own namespace, and one line says what each run leaves."""
    kept: list[object] = []
    session.shell.user_ns["kept"] = kept
    leaks(session, rest)  # type: ignore[arg-type]  # as much of a session as it needs
    assert [line] == session.said
    assert len(kept) in (0, 3 + 8, 3 + 10)


@pytest.mark.parametrize(
    ("rest", "why"),
    [
        ("", "invalid value '' for %imu leaks: expected [-n N] STATEMENT"),
        ("-n 8", "invalid value '-n 8' for %imu leaks: expected [-n N] STATEMENT"),
        ("-n 1 a", "invalid value '1' for %imu leaks -n: expected a whole number, 2 to 1000000"),
        ("-n x a", "invalid value 'x' for %imu leaks -n: expected a whole number, 1 to 1000000"),
    ],
)
def test_words_at_fault(session: Session, rest: str, why: str) -> None:
    """What makes no sense is refused in the words of all commands."""
    with pytest.raises(CommandError) as refused:
        leaks(session, rest)  # type: ignore[arg-type]  # as above
    assert why == str(refused.value)
    assert [] == session.said


def test_error_of_the_statement_passes(session: Session) -> None:
    """What the statement raises is the person's."""
    with pytest.raises(ZeroDivisionError):
        leaks(session, "1 / 0")  # type: ignore[arg-type]  # as above
