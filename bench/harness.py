"""Interleaved measurement, and its replay through pytest-benchmark.

A `Group` is one operation on one case. All its providers, and the machine's limit beside them, are
measured once and together: round after round, each provider once a round, the first of a round
moving on by one. Every provider is then a test of its own, whose `benchmark` fixture replays the
recorded durations against a virtual clock, so that pytest-benchmark's JSON, comparison and
histogram see each provider's real durations.
"""

from __future__ import annotations

import functools
import gc
import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pykernels import roofs

Call = Callable[[], object]
ROOF = "roof"
OURS = "pykernels"
MIN_ROUNDS, MAX_ROUNDS = 7, 101
SHORTEST_SAMPLE = 100e-6


class Disagreement(Exception):
    """A provider failed, or its result is not the reference's."""


@dataclass
class Workload:
    """What a group measures, in memory: `calls` of its providers, each returning its result.

    `verify` takes a provider's name and result, and raises `Disagreement`. `missing` says why a
    provider has no call here. `allocation` is the policy that all calls follow. `limits` are ways to
    do a group's limit where `roof` has none; the fastest counts.
    """

    calls: dict[str, Call]
    verify: Callable[[str, Any], None]
    missing: dict[str, str] = field(default_factory=dict)
    allocation: str = "out="
    limits: dict[str, Call] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """One operation on one case. `build` makes the workload; its providers are known before.

    The limit is the least time in which the machine could move `bytes` (``"copy"``: half in, half
    out; ``"read"``) or do `flops` (``"GEMM"``), or, under any other name, that of the workload's
    `limits`; None where there is no such point. `elements` is the size on a plot of time against
    size, and `sweep` the name of that plot. No fewer than `least_rounds` are measured, whatever they take.
    """

    operation: str
    case: str
    providers: tuple[str, ...]
    build: Callable[[], Workload]
    elements: int
    bytes: int
    limit: str | None = "copy"
    flops: int = 0
    sweep: str | None = None
    least_rounds: int = MIN_ROUNDS

    @property
    def name(self) -> str:
        return f"{self.operation} {self.case}"

    @property
    def measured(self) -> tuple[str, ...]:
        """The providers, and the limit if there is one."""
        return (*self.providers, ROOF) if self.limit else self.providers


@dataclass(frozen=True)
class Record:
    """Seconds of one call, per provider and round."""

    seconds: dict[str, list[float]]
    missing: dict[str, str]
    allocation: str


def interleave(
    calls: Mapping[str, Call], rounds: int, repeats: Mapping[str, int], timer: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of a call in each round; `repeats` calls make one sample. The first of a round moves on by one."""
    names = list(calls)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            call, repeat = calls[name], repeats[name]
            start = timer()
            for _ in range(repeat):
                call()
            seconds[name].append((timer() - start) / repeat)
    return seconds


def measure(group: Group, budget: float, settle: Callable[[], object] = lambda: None) -> Record:
    """Build, verify and time a group in about `budget` seconds; `settle` is called when all is warm."""
    workload = verified(group)
    limits = {f"{ROOF} by {name}": call for name, call in workload.limits.items()}
    if group.limit and not limits:
        limits = {ROOF: roof(group)}
    for call in limits.values():
        call()
    calls = {**workload.calls, **limits}
    settle()
    once = {name: min(_seconds(call), _seconds(call)) for name, call in calls.items()}
    repeats = {name: max(1, min(1000, round(SHORTEST_SAMPLE / max(t, 1e-9)))) for name, t in once.items()}
    round_seconds = sum(once[name] * repeats[name] for name in calls)
    rounds = int(min(MAX_ROUNDS, max(group.least_rounds, budget / round_seconds)))
    enabled = gc.isenabled()
    gc.disable()
    try:
        seconds = interleave(calls, rounds, repeats)
    finally:
        if enabled:
            gc.enable()
    if limits:
        seconds[ROOF] = min((seconds.pop(name) for name in limits), key=statistics.median)
    return Record(seconds, workload.missing, workload.allocation)


def verified(group: Group) -> Workload:
    """The group's workload, after every call has run once and its result was accepted."""
    workload = group.build()
    for name, call in workload.calls.items():
        try:
            workload.verify(name, call())
        except Exception as error:
            raise Disagreement(f"{group.name}: {name}: {type(error).__name__}: {error}") from error
    return workload


def untimed(group: Group) -> Record:
    """A record of zeros, once the group's calls have been verified."""
    workload = verified(group)
    return Record({name: [0.0] for name in group.measured}, workload.missing, workload.allocation)


def roof(group: Group) -> Call:
    """The fastest way this machine has to do as much as the group must."""
    if group.limit == "GEMM":
        n = round((group.flops / 2) ** (1 / 3))
        a, out = np.ones((n, n), np.float32), np.empty((n, n), np.float32)
        return lambda: np.matmul(a, a, out=out)
    if group.limit == "read":
        return reading(group.bytes)
    half = max(1, group.bytes // 8)
    pairs = zip(buffers(half, np.uint32), buffers(half, np.uint32), strict=True)
    return rotate([functools.partial(roofs.copy, x, out) for x, out in pairs])


def reading(nbytes: int) -> Call:
    """One pass over as many bytes, in whole words, of memory."""
    return rotate([functools.partial(roofs.read, x) for x in buffers(max(1, nbytes // 4), np.uint32)])


def quickest(call: Call, times: int = 3) -> float:
    """The least seconds of some calls, after one more."""
    call()
    return min(_seconds(call) for _ in range(times))


def rotate(calls: Sequence[Call]) -> Call:
    """One call that runs the next of `calls` each time."""
    if len(calls) == 1:
        return calls[0]
    turn = itertools.cycle(calls)
    return lambda: next(turn)()


def rotations(nbytes: int) -> int:
    """How many buffers of `nbytes` leave nothing useful in the last-level cache; at most 512."""
    return max(1, min(512, -(-2 * _cache_bytes() // max(nbytes, 1))))


def buffers(elements: int, dtype: Any) -> list[np.ndarray[Any, Any]]:
    """As many vectors as `rotations` asks for, side by side in memory that has been touched."""
    count = rotations(elements * np.dtype(dtype).itemsize)
    return list(np.ones((count, elements), dtype))


@functools.cache
def _cache_bytes() -> int:
    from pykernels.machine import cache_bytes

    return cache_bytes()


def _seconds(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


class ReplayClock:
    """A timer that shows whatever `now` was set to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


CLOCK = ReplayClock()


def replay(benchmark: Any, group: Group, record: Record, provider: str) -> None:
    """Feed a provider's durations to a pytest-benchmark fixture whose timer is `CLOCK`, exactly, one a round."""
    seconds = record.seconds[provider]
    remaining = iter(seconds)

    def rewind() -> None:
        CLOCK.now = 0.0

    def play() -> None:
        CLOCK.now = next(remaining)

    benchmark.group = group.name
    benchmark.extra_info.update(_extra_info(group, record, provider))
    benchmark.pedantic(play, setup=rewind, rounds=len(seconds), iterations=1)


def _extra_info(group: Group, record: Record, provider: str) -> dict[str, Any]:
    p20, p80 = np.quantile(record.seconds[provider], (0.2, 0.8))
    limit = record.seconds.get(ROOF)
    return {
        "operation": group.operation,
        "case": group.case,
        "provider": f"{group.limit} limit" if provider == ROOF else provider,
        "role": {OURS: "ours", ROOF: "roof"}.get(provider, "peer"),
        "elements": group.elements,
        "bytes": group.bytes,
        "flops": group.flops,
        "limit": group.limit,
        "roof_seconds": statistics.median(limit) * _roof_scale(group) if limit else None,
        "p20": float(p20),
        "p80": float(p80),
        "allocation": record.allocation,
        "sweep": group.sweep,
    }


def _roof_scale(group: Group) -> float:
    """The roof's work is a whole number of words, or a cube: the group's work over that."""
    if group.limit == "GEMM":
        n = round((group.flops / 2) ** (1 / 3))
        return float(group.flops / (2 * n**3))
    if group.limit not in ("read", "copy"):
        return 1.0
    words = max(1, group.bytes // 4)
    return group.bytes / (4 * words if group.limit == "read" else 8 * max(1, words // 2))
