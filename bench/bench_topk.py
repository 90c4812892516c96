"""Top-k, exact and approximate, beside torch.topk and np.argpartition: the cases."""

from __future__ import annotations

from typing import Any

import pytest

from pykernels.bench import harness
from pykernels.bench.harness import Group
from pykernels.bench.topk_workloads import approximating, selecting

ROWS, SIZE = 64, 1 << 20
BOTH = ("torch.topk", "np.argpartition")
ORDERS = ("ascending", "all equal", "8 values")


@pytest.mark.benchmark(timer=harness.CLOCK)
def test_topk(benchmark: Any, record: harness.Record, group: Group, provider: str) -> None:
    harness.replay(benchmark, group, record, provider)


def groups(quick: bool) -> list[Group]:
    """All groups of this file; `quick` leaves out argpartition where it takes a second, and some of the k."""
    return [
        *(selecting(ROWS, SIZE, k, BOTH[:1] if quick else BOTH) for k in (10, 64, 256, 1024)),
        selecting(32, 50257, 50, BOTH),
        selecting(64, 65536, 100, BOTH),
        selecting(1, SIZE, 64, BOTH),
        *(selecting(8, SIZE, k, order=order) for order in ORDERS for k in ((64,) if quick else (10, 64, 1024))),
        *(approximating(ROWS, SIZE, k) for k in ((64, 1024) if quick else (10, 64, 256, 1024))),
    ]
