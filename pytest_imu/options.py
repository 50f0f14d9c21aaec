"""How an option is declared: once, as a field of Settings, with everything that follows from it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from pytest_imu.core.invalid import InvalidValueError

if TYPE_CHECKING:
    from pytest_imu.kinds import Kind

T = TypeVar("T")
D = TypeVar("D")


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option, spelled `imu_top` in the ini file and `--imu-top` on the command line."""

    name: str
    kind: Kind[Any]
    help_text: str
    default: object
    usual: str = ""
    """The default in words, where it does not say by itself what it is."""
    bare: str | None = None
    """What the flag means without a value; None where it must have one."""
    on_command_line: bool = True
    in_ini: bool = True
    turns_on: bool = False
    """Whether the flag asks for the report too."""
    repeated: bool = False
    """Whether the flag may be given several times; a comma stands between the values in one."""

    @property
    def flag(self) -> str:
        """The spelling on the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def summary(self) -> str:
        """What it does, for the help and for docs/options.md."""
        implies = " Implies --imu." if self.turns_on and self.name != "imu" else ""
        return self.help_text + implies

    @property
    def default_text(self) -> str:
        """The default as people write it; empty where there is none."""
        if isinstance(self.default, bool):
            return str(self.default).lower()
        return self.usual or ("" if self.default in (None, ()) else str(self.default))

    def declare(self, parser: pytest.Parser, group: pytest.OptionGroup) -> None:
        """Tell pytest of the flag and of the ini key, with one text for both."""
        text = self.summary
        if self.kind.words:
            text += f" {self.kind.metavar or 'Values'}: {self.kind.expected}."
        if self.default_text:
            text += f" Default: {self.default_text}."
        if self.on_command_line:
            # Text, and not argparse's types: both sources then get the same checks and messages.
            value: dict[str, Any] = {"action": "store_true"}
            if self.kind.ini != "bool":
                value = {"metavar": self.kind.metavar}
            if self.bare is not None:
                value |= {"nargs": "?", "const": self.bare}
            if self.repeated:
                value |= {"action": "append"}
            group.addoption(self.flag, default=None, dest=self.name, help=text, **value)
        if self.in_ini:
            # Since pytest 8.4 numbers have types, which pytest 9's own TOML tables need.
            old = pytest.version_tuple < (8, 4) and self.kind.ini in ("int", "float")
            kind: Any = "string" if old else self.kind.ini  # Any: pytest's own type differs by version
            parser.addini(self.name, text, type=kind, default=None)

    def read(self, config: pytest.Config) -> Any:
        """Return the value from the command line, else from the ini file, else the default."""
        value, source = config.getoption(self.name) if self.on_command_line else None, self.flag
        try:
            if value is not None:
                value = ",".join(value) if self.repeated else value
                self._refuse_path(value)
                return self.kind.read(value)
            source, typed = self._in_ini(config)
            value = self._getini(config, typed) if self.in_ini else None
            return self.default if value is None else self.kind.read(value, typed=typed)
        except InvalidValueError as error:
            raise pytest.UsageError(error.of(source)) from None

    def source(self, config: pytest.Config) -> str:
        """Return the flag, or the ini key and its file, wherever the value comes from."""
        on_command_line = self.on_command_line and config.getoption(self.name) is not None
        return self.flag if on_command_line else self._in_ini(config)[0]

    def _getini(self, config: pytest.Config, typed: object) -> object:
        try:
            return config.getini(self.name)
        except (ValueError, TypeError, pytest.UsageError):  # pytest converts it first, by its type
            if self.kind.ini == "string" and type(typed) in (int, float):  # a tolerance in TOML
                return str(typed)
            raise InvalidValueError(typed, self.kind.expected) from None

    def _in_ini(self, config: pytest.Config) -> tuple[str, object]:
        """Return the name of the ini file's value, and the value as it was typed."""
        for override in reversed(getattr(config.option, "override_ini", None) or ()):
            name, _, typed = override.partition("=")
            if name.strip() == self.name:
                return f"-o {self.name}", typed
        where = config.inipath.name if config.inipath else "the ini file"
        # pytest has no public way to it: `inicfg` until pytest 9, which deprecates it.
        stored: Any = vars(config).get("_inicfg") or vars(config).get("inicfg") or {}
        value = stored.get(self.name)
        return f"{self.name} in {where}", getattr(value, "value", value)

    def _refuse_path(self, value: str) -> None:
        """Say what happened where argparse took the word behind a bare flag for its value."""
        if self.bare is None or self.kind.takes_paths or value in (self.bare, *self.kind.words):
            return
        if os.path.exists(value):  # noqa: PTH110 - Path.exists raises for a name that is too long
            advice = f"write {self.flag}={self.kind.metavar}, or put {self.flag} after the paths"
            raise InvalidValueError(value, f"{self.kind.expected}, not a path; {advice}")


def option(name: str, kind: Kind[T], help_text: str, *, default: D, **rest: Any) -> T | D:
    """Declare an option, in the place of the default of a field of Settings; *rest* as in Option."""
    declared = Option(name=name, kind=kind, help_text=help_text, default=default, **rest)
    return field(default=default, metadata={"option": declared})


def add_options(parser: pytest.Parser, options: Iterable[Option]) -> None:
    """Tell pytest of every option."""
    group = parser.getgroup("imu", "memory of each test (pytest-imu)")
    for one in options:
        one.declare(parser, group)
