"""How long a context fits in a fixed memory for keys and values, and what a token costs then.

After Table 1 of "Efficiently Scaling Transformer Inference" (arXiv 2211.05102), in real memory; beside it the
errors of caches of eight bits, and the memory of prefill and of halo attention.
"""

from __future__ import annotations

import itertools
import statistics
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from pykernels import roofs
from pykernels.bench import attention_data as data
from pykernels.bench import attention_memory, harness
from pykernels.bench.attention_data import SHORT, Shape

BUDGET = 256 << 20
"""Bytes for keys and values of one layer."""

HEADS, DIM = 16, 128
COLUMNS = ("heads of keys", "cache", "bytes a token", "longest context", "of multi-head", "decode ms", "GB/s")
ERRORS = ("keys", "cache", "RMS error / RMS output", "greatest error / RMS output")
ERROR_SHAPE = data.step_of(1, 32, 8, 8192)
OUTLIERS, LOUD = 4, 10
"""Channels of keys that are as many times as loud, as some are in real models."""

ROUNDS = {True: 5, False: 21}


class Variant(NamedTuple):
    name: str
    kv_heads: int
    dtype: str

    @property
    def token(self) -> int:
        """Bytes of one token."""
        return data.cache_bytes(data.step_of(1, HEADS, self.kv_heads, 1, DIM), self.dtype)


VARIANTS = (
    Variant("multi-head", 16, "bfloat16"),
    Variant("grouped-query", 4, "bfloat16"),
    Variant("multi-query", 1, "bfloat16"),
    Variant("multi-query", 1, "int8"),
)


def study(quick: bool, progress: Callable[[int, int, str], None] | None = None) -> dict[str, Any]:
    """Tables as `real.study` has them; `quick` takes fewer rounds and images.

    `progress(done, total, label)` is called before each step and at the end.
    """
    done, tables = itertools.count(), []
    steps: dict[str, Callable[[], dict[str, Any]]] = {
        "contexts": lambda: contexts(BUDGET, ROUNDS[quick]),
        "errors": lambda: errors(ERROR_SHAPE),
    }
    if sys.platform.startswith("linux"):
        steps["memory of prefill"] = attention_memory.prefill_table
        steps["memory of halo attention"] = lambda: attention_memory.halo_table(quick)
    for label, table in steps.items():
        if progress is not None:
            progress(next(done), len(steps), label)
        tables.append(table())
    if progress is not None:
        progress(len(steps), len(steps), "done")
    notes = [
        "a context is the longest that fits; one new token attends to all of it, one sequence, one layer",
        "errors against float64 of the same bfloat16 numbers; int8 and e4m3fn have a scale for each token and head",
        "memory at the peak of one call, in a process of its own, beyond its inputs, with what it returns",
    ]
    source = f"normal numbers; {HEADS} heads of queries, D={DIM}"
    return {"title": "Attention in a fixed memory", "source": source, "tables": tables, "notes": notes}


def contexts(budget: int, rounds: int) -> dict[str, Any]:
    """The longest context of each variant, and the time of a token, beside that of reading as much memory."""
    lengths = [budget // variant.token for variant in VARIANTS]
    words = np.ones(budget // 4, np.uint32)
    calls: dict[str, Callable[[], Any]] = {"read": lambda: roofs.read(words)}
    for variant, length in zip(VARIANTS, lengths, strict=True):
        shape = data.step_of(1, HEADS, variant.kv_heads, length, DIM)
        given = data.arrays("bfloat16" if variant.dtype in data.SCALED else variant.dtype, shape)
        calls[f"{variant.name} {variant.dtype}"] = data.steps(variant.dtype, 1, *given)
    for call in calls.values():
        call()
    read, *found = map(statistics.median, harness.interleave(calls, rounds, dict.fromkeys(calls, 1)).values())
    rows: list[list[Any]] = []
    for variant, length, seconds in zip(VARIANTS, lengths, found, strict=True):
        heads, times = f"{variant.kv_heads} ({variant.name})", f"{length / lengths[0]:.1f}x"
        rate = length * variant.token / seconds / 1e9
        rows.append([heads, SHORT[variant.dtype], variant.token, length, times, 1e3 * seconds, rate])
    rows.append(["reading alone", None, None, None, None, 1e3 * read, words.nbytes / read / 1e9])
    return {"title": f"Contexts in {budget >> 20} MiB of keys and values", "columns": COLUMNS, "rows": rows}


def errors(shape: Shape) -> dict[str, Any]:
    """What storing keys and values in fewer bits does to a token's output."""
    rows: list[list[Any]] = []
    for keys in ("normal", f"{OUTLIERS} channels times {LOUD}"):
        q, k, v = data.arrays("bfloat16", shape)
        if keys != "normal":
            k[..., :OUTLIERS] *= LOUD
            q[..., :OUTLIERS] /= LOUD
        exact = data.exact_heads(q, k, v)
        scale = np.sqrt((exact**2).mean())
        for dtype in ("bfloat16", "int8", "e4m3fn"):
            off = np.abs(data.wide(data.steps(dtype, 1, q, k, v)()[0, :, 0]) - exact) / scale
            rows.append([keys, SHORT[dtype], *(f"{float(x):.2%}" for x in (np.sqrt((off**2).mean()), off.max()))])
    return {"title": f"Errors of caches, {data.described(shape)}", "columns": ERRORS, "rows": rows}


def main(quick: str = "") -> None:
    """Print the tables."""
    from pykernels.bench.report import cell_text
    from pykernels.cli.table import table

    found = study(bool(quick))
    for each in found["tables"]:
        print(f"{each['title']}\n{table(each['columns'], [[cell_text(x) for x in row] for row in each['rows']])}\n")
    print("\n".join(f"- {note}" for note in found["notes"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
