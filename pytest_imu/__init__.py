"""pytest-imu: the memory and cache cost of every test and every IPython command.

Nothing heavy is imported here: the public names are looked up when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_imu.core.meter import measure
    from pytest_imu.core.model import Measurement
    from pytest_imu.recording.judge import BudgetWarning

    __version__: str

__all__ = ["BudgetWarning", "Measurement", "__version__", "measure"]


def __getattr__(name: str) -> object:
    if name == "measure":
        from pytest_imu.core.meter import measure

        return measure
    if name == "BudgetWarning":
        from pytest_imu.recording.judge import BudgetWarning

        return BudgetWarning
    if name == "Measurement":
        from pytest_imu.core.model import Measurement

        return Measurement
    if name == "__version__":
        from importlib.metadata import version

        return version("pytest-imu")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
