"""A cache of results that tells 2 from 2.0 and True, which compare and hash alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache, update_wrapper
from typing import Any, Generic, ParamSpec, TypeVar

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class remembered(Generic[_Parameters, _Result]):
    """A function of hashable positional arguments, with up to 4096 results kept by their values and types.

    The types of what tuples hold count too (`typed=True` of `functools.lru_cache` sees only the tuples), so that what
    is refused is refused whatever was asked for before.
    """

    __wrapped__: Callable[_Parameters, _Result]

    def __init__(self, function: Callable[_Parameters, _Result]) -> None:
        update_wrapper(self, function)
        self._kept = lru_cache(4096)(lambda types, *arguments: function(*arguments))  # type: ignore[call-arg]

    def __call__(self, *arguments: _Parameters.args, **_: _Parameters.kwargs) -> _Result:
        return self._kept(_types(arguments), *arguments)


def _types(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple([_types(value) if isinstance(value, tuple) else type(value) for value in values])
