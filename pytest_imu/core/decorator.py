"""Measuring every call of a function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

if TYPE_CHECKING:
    from pytest_imu.core.meter import Meter

P = ParamSpec("P")
R = TypeVar("R")


def measuring_each_call(function: Callable[P, R], new_meter: Callable[[], Meter]) -> Callable[P, R]:
    """Return *function* with each of its calls measured; its `measurement` is that of the last to end.

    TypeError for a generator function, whose body runs in pieces.
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        name = getattr(function, "__qualname__", repr(function))  # a functools.partial has none
        raise TypeError(
            f"measure() cannot decorate the generator {name}(): its body runs "
            "in pieces; measure the loop that consumes it"
        )
    # Any: the wrapper grows an attribute, which the type of a plain function does not have.
    wrapper: Any
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def measured_coroutine(*args: P.args, **kwargs: P.kwargs) -> Any:
            meter = new_meter()
            try:
                with meter:
                    return await function(*args, **kwargs)
            finally:
                wrapper.measurement = meter.result

        wrapper = measured_coroutine
    else:

        @functools.wraps(function)
        def measured(*args: P.args, **kwargs: P.kwargs) -> R:
            meter = new_meter()
            try:
                with meter:
                    return function(*args, **kwargs)
            finally:
                wrapper.measurement = meter.result

        wrapper = measured
    wrapper.measurement = None
    return cast("Callable[P, R]", wrapper)
