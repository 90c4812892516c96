"""Exact search and MaxSim beside FAISS, scikit-learn, torch, maxsim-cpu and the matrix product alone: the cases."""

from __future__ import annotations

from typing import Any

import pytest

from pykernels.bench import harness
from pykernels.bench.harness import Group
from pykernels.bench.search_peers import FAISS, SKLEARN, TORCH, TUNED
from pykernels.bench.search_workloads import masking, narrow, scoring, searching

PEERS = {"ip": (FAISS, TUNED, TORCH), "l2": (FAISS, TUNED, SKLEARN, TORCH), "cosine": (FAISS, TUNED, SKLEARN, TORCH)}
QUICK = (
    *(("ip", queries, 10) for queries in (1, 16, 64, 512)),
    ("ip", 64, 100),
    ("l2", 1, 10),
    ("l2", 64, 10),
    ("cosine", 64, 10),
)


@pytest.mark.benchmark(timer=harness.CLOCK)
def test_search(benchmark: Any, record: harness.Record, group: Group, provider: str) -> None:
    harness.replay(benchmark, group, record, provider)


def groups(quick: bool) -> list[Group]:
    """All groups of this file; `quick` leaves out most of the large ones."""
    full = [(metric, queries, k) for metric in PEERS for queries in (1, 16, 64, 512, 4096) for k in (10, 100)]
    queries = (64,) if quick else (1, 64, 512)
    dtypes = ("bfloat16", "int8") if quick else ("bfloat16", "float16", "int8", "e4m3fn")
    return [
        *(searching(metric, queries, k, PEERS[metric]) for metric, queries, k in (QUICK if quick else full)),
        *(masking(q, 10, hidden, False, (FAISS,)) for q in queries for hidden in (0.5, 0.99)),
        *(masking(q, 10, hidden, True, (TORCH,)) for q in queries for hidden in (0.5, 0.99)),
        *(narrow(dtype, q, 10) for q in queries for dtype in dtypes),
        *(scoring(dtype) for dtype in (("float32",) if quick else ("float32", "bfloat16", "int8"))),
    ]
