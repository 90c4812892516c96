"""Time on the GPU: calls in turns, each behind work that hides its launch and empties the cache."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, TypedDict

ROUNDS = 30
FLUSHED_BYTES = 1 << 28
SECONDS_PER_GROUP = 20.0
"""A group of calls takes fewer rounds where it would need longer."""

Call = Callable[[], Any]


class Row(TypedDict):
    """One measurement; `share` is that of what `limit` says, of which there may be none."""

    family: str
    case: str
    provider: str
    seconds: float
    limit: str
    share: float | None


def interleaved(calls: Mapping[str, Call], gpu: bool) -> dict[str, float]:
    """Median seconds of each call. Without a GPU one round, whose times mean nothing."""
    if not gpu:
        return {name: _on_cpu(call) for name, call in calls.items()}
    import torch

    flush = torch.empty(FLUSHED_BYTES, dtype=torch.uint8, device="cuda")
    for call in calls.values():
        call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    start = time.perf_counter()
    for done in range(ROUNDS):
        if done >= 3 and time.perf_counter() - start > SECONDS_PER_GROUP:
            break
        for name, call in calls.items():
            flush.zero_()
            times[name].append(_on_gpu(call))
    return {name: statistics.median(each) for name, each in times.items()}


def show(row: Row) -> None:
    share = "" if row["share"] is None else f"{100 * row['share']:5.0f} % of {row['limit']}"
    print(
        f"{row['family']:7} {row['case']:44} {row['provider']:22} {1e3 * row['seconds']:10.3f} ms {share}", flush=True
    )


def rows(
    family: str, case: str, seconds: Mapping[str, float], work: Mapping[str, float], rate: float, limit: str
) -> list[Row]:
    """A row per provider, shown; `work` (bytes or operations) of those that have a limit, which is done at `rate`."""
    made: list[Row] = []
    for provider, each in seconds.items():
        share = work[provider] / each / rate if provider in work else None
        made.append(Row(family=family, case=case, provider=provider, seconds=each, limit=limit, share=share))
        show(made[-1])
    return made


def _on_cpu(call: Call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _on_gpu(call: Call) -> float:
    import torch

    event: Any = torch.cuda.Event
    begin, end = event(enable_timing=True), event(enable_timing=True)
    begin.record()
    call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3
