"""Programs: steps of tasks that the threads of one parallel region do together, one step after the other.

A token of a decoder is some hundred steps of a few microseconds. Asleep between them, threads would be waiting to be
woken for longer than they work. Here they wait for the last task of a step by looking again, and only for tasks that
another thread is doing: a program ends however few of its threads run.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.ccallback import CFunc
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array

from ._numba import CACHE_LINE, cpu_features, family_stamp, float64_from_bits, in_turn, jit

Array = np.ndarray[Any, Any]

WORDS = 56
"""Words that the arguments of a step may have."""

PATIENCE = 4000
"""How often a thread looks whether a step is done before it lets others run."""

_WORD = ir.IntType(64)
_POINTER = types.CPointer(types.int64)
_MARKS = 2 * CACHE_LINE // 8
_compiling = threading.RLock()


class Task:
    """A jitted function of the number of a task and of the arguments of its step; see `vector` and `number`."""

    def __init__(self, function: Callable[[Any, Any], None]) -> None:
        self._function = function
        self._compiled: Any = None

    @cached_property
    def address(self) -> int:
        with _compiling:
            if self._compiled is not None:  # by a thread that came first
                return int(self._compiled.address)
            compiled: Any = CFunc(
                self._function, ((types.intp, _POINTER), types.void), locals={}, options={"error_model": "numpy"}
            )
            with suppress(RuntimeError):  # no folder is writable
                compiled.enable_caching()
                compiled._cache._cache_file._source_stamp = family_stamp(self._function)
            compiled.compile()
            self._compiled = compiled
            return int(compiled.address)


class Room(NamedTuple):
    """Memory of each run of a program."""

    at: int
    nbytes: int


class Given(NamedTuple):
    """An array that each run is given by this name, from a byte on."""

    name: str
    offset: int = 0


class Program:
    """Steps that are put together once, and then run by any number of threads at once."""

    def __init__(self) -> None:
        self._functions: list[int] = []
        self._counts: list[int] = []
        self._words: list[list[int]] = []
        self._kept: list[Array] = []
        self.free = 0
        """From where on memory of runs is free; set back to use it again for what comes later."""
        self._bytes = 0
        self._rooms: list[int] = []
        self._given: dict[str, list[tuple[int, int]]] = {}
        self._counted: dict[str, list[int]] = {}

    def room(self, nbytes: int) -> Room:
        made = Room(self.free, nbytes)
        self.free += -(-nbytes // CACHE_LINE) * CACHE_LINE
        self._bytes = max(self._bytes, self.free)
        return made

    def add(self, task: Task, count: int | str, *arguments: int | float | Array | Room | Given) -> None:
        """A step of `count` tasks, a number or the name of one; a vector is an address and bytes, others a word."""
        if isinstance(count, str):
            self._counted.setdefault(count, []).append(len(self._counts))
            count = 0
        first, words = len(self._words) * WORDS, list[int]()
        for each in arguments:
            at = first + len(words)
            if isinstance(each, Room):
                self._rooms.append(at)
                words += each
            elif isinstance(each, Given):
                self._given.setdefault(each.name, []).append((at, each.offset))
                words += 0, 0
            elif isinstance(each, np.ndarray):
                self._kept.append(each)
                words += address_of(each), each.nbytes
            else:
                words.append(int(np.float64(each).view(np.int64)) if isinstance(each, float) else each)
        if len(words) > WORDS:
            raise ValueError(f"a step has {len(words)} words of arguments: expected at most {WORDS}")
        self._functions.append(task.address)
        self._counts.append(count)
        self._words.append(words + [0] * (WORDS - len(words)))

    @cached_property
    def _arrays(self) -> tuple[Array, ...]:
        return tuple(np.array(x, np.int64) for x in (self._functions, self._counts, self._words, self._rooms))

    @cached_property
    def _places(self) -> dict[str, Array]:
        return {name: np.array(places).T for name, places in self._given.items()}

    def run(self, counts: dict[str, int], given: dict[str, Array]) -> None:
        """With the numbers and the arrays, C-contiguous, that `add` has names of."""
        functions, tasks, words, rooms = self._arrays
        tasks, words, memory = tasks.copy(), words.copy(), np.empty(self._bytes + CACHE_LINE, np.uint8)
        flat = words.reshape(-1)
        flat[rooms] += -(-address_of(memory) // CACHE_LINE) * CACHE_LINE
        for name, (at, offset) in self._places.items():
            flat[at], flat[at + 1] = address_of(given[name]) + offset, given[name].nbytes - offset
        for name, steps in self._counted.items():
            tasks[steps] = counts[name]
        in_turn(_run, functions, tasks, words, np.zeros(len(tasks) * _MARKS, np.int64), numba.get_num_threads())


def address_of(x: Array) -> int:
    return int(x.__array_interface__["data"][0])


@jit(parallel=True)
def _run(functions, counts, words, marks, workers):
    for _ in numba.prange(workers):
        _work(functions, counts, words, marks)


@jit
def _work(functions, counts, words, marks):
    for step in range(len(counts)):
        taken, done = step * _MARKS, step * _MARKS + _MARKS // 2
        task = add_one(marks, taken)
        while task < counts[step]:
            _call(functions[step], task, words, step * WORDS)
            add_one(marks, done)
            task = add_one(marks, taken)
        looks = 0
        while _look(marks, done) < counts[step]:
            looks += 1
            if looks > PATIENCE:
                _yield()
            else:
                _pause()


def _element(context: Any, builder: Any, signature: Any, args: Any, number: int) -> Any:
    data = make_array(signature.args[number])(context, builder, args[number]).data
    return builder.gep(data, [args[number + 1]])


@intrinsic
def add_one(typing_context: Any, marks: Any, at: Any) -> Any:
    """The element of an int64 vector, which threads share, before one was added.

    All that was written before is seen by those who see the sum.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.atomic_rmw("add", _element(context, builder, signature, args, 0), _WORD(1), "acq_rel")

    return types.int64(marks, types.intp), generate


@intrinsic
def _look(typing_context: Any, marks: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_element(context, builder, signature, args, 0), "acquire", 8)

    return types.int64(marks, types.intp), generate


@intrinsic
def _call(typing_context: Any, function: Any, task: Any, words: Any, first: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer = ir.FunctionType(ir.VoidType(), [_WORD, _WORD.as_pointer()]).as_pointer()
        place = _element(context, builder, signature, args, 2)
        builder.call(builder.inttoptr(args[0], pointer), [args[1], place])
        return context.get_dummy_value()

    return types.void(types.int64, types.intp, words, types.intp), generate


def _instruction(declared: ir.FunctionType, name: str | None) -> Any:
    """A call of a function without arguments, or nothing."""

    @intrinsic
    def call(typing_context: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            if name is not None:
                builder.call(cgutils.get_or_insert_function(builder.module, declared, name), [])
            return context.get_dummy_value()

        return types.void(), generate

    return call


_pause = _instruction(ir.FunctionType(ir.VoidType(), []), "llvm.x86.sse2.pause" if "sse2" in cpu_features() else None)
_yield = _instruction(ir.FunctionType(ir.IntType(32), []), "sched_yield" if hasattr(os, "sched_yield") else None)


@intrinsic
def vector(typing_context: Any, arguments: Any, at: Any, dtype: Any) -> Any:
    """The vector whose address and bytes are the words `at` and the next; `dtype` is a NumPy type."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = signature.return_type
        address, nbytes = (builder.load(builder.gep(args[0], [builder.add(args[1], _WORD(i))])) for i in range(2))
        itemsize = _WORD(kind.dtype.bitwidth // 8)
        array = make_array(kind)(context, builder)
        size = builder.sdiv(nbytes, itemsize)
        data = builder.inttoptr(address, context.get_value_type(kind.dtype).as_pointer())
        populate_array(array, data=data, shape=[size], strides=[itemsize], itemsize=itemsize, meminfo=None)
        return array._getvalue()

    return types.Array(dtype.instance_type, 1, "C")(arguments, types.intp, dtype), generate


@jit
def number(arguments, at):
    """The word `at` as the float64 that `Program.add` was given."""
    return float64_from_bits(np.uint64(arguments[at]))
