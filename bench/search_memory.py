"""Peak memory of a search, measured in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import pykernels

D, K = 128, 10
QUERIES, ROWS, WORKSPACE = 10_000, 1_000_000, 64 << 20
COLUMNS = ("queries", "rows", "metric", "inputs MB", "workspace MB", "added at the peak MB", "seconds")


def table() -> dict[str, Any]:
    """What the search of a million rows adds to its inputs and results; for every metric."""
    rows = []
    for metric in ("ip", "l2", "cosine"):
        added, seconds = measure(QUERIES, ROWS, WORKSPACE, metric)
        inputs = 4 * D * (QUERIES + ROWS)
        sizes = (round(size / 1e6, 1) for size in (inputs, WORKSPACE, added))
        rows.append([QUERIES, ROWS, metric, *sizes, round(seconds, 1)])
    return {"title": f"Peak memory of a search, D={D}, k={K}", "columns": COLUMNS, "rows": rows}


def measure(queries: int, rows: int, workspace: int, metric: str = "ip") -> tuple[int, float]:
    """Bytes that a search adds at its peak to a process that holds inputs and results, and its seconds."""
    command = [sys.executable, "-m", __name__, *map(str, (queries, rows, workspace)), metric]
    path = os.pathsep.join([str(Path(pykernels.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    ran = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path})
    added, seconds = json.loads(ran.stdout)
    return added, seconds


def main(queries: str, rows: str, workspace: str, metric: str) -> None:
    """Print the JSON that `measure` reads. Linux only: the peak is reset by /proc/self/clear_refs."""
    import time

    from pykernels.search import knn

    draw = np.random.default_rng(0)
    q, x = (draw.standard_normal((int(n), D), np.float32) for n in (queries, rows))
    out = np.zeros((len(q), K), np.float32), np.zeros((len(q), K), np.int64)
    knn(q, x[:4096], K, metric=metric, workspace=int(workspace), out=out)  # compile all kernels, start the threads
    before = _kilobytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    start = time.perf_counter()
    knn(q, x, K, metric=metric, workspace=int(workspace), out=out)
    seconds = time.perf_counter() - start
    print(json.dumps([1024 * (_kilobytes("VmHWM") - before), seconds]))


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main(*sys.argv[1:])
