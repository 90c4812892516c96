"""A token of each of few sequences, stored in a cache and attended to, as steps of a program.

Programs are given the arrays of `arrays_of_step`, and those of all layers of a cache by the names of `Pages`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from .._floats import KINDS
from .._numba import jit
from .._program import Given, Program, Room, Task, number, vector
from .cpu_few import SPLIT, are_few, attend_split, merge_split
from .cpu_few_product import WIDTH
from .cpu_problem import BASE, KEYS, LSE, OUT, QUERIES, TYPES, Places, Q, Rules, in_pairs, rules
from .cpu_store import AS_THEY_ARE, FORMATS, store_token
from .cpu_tasks import heads_of, tasks_of
from .problem import Cache, Pages, Scoring

Array = np.ndarray[Any, Any]
Heads = tuple[int, int, int]
"""Hq, Hkv and D."""

_NONE = np.empty(0, np.float32)


def query_dtype(heads: Heads, dtype: Any, kept: Any) -> Any:
    """The dtype that queries and results of `add_attend` have for activations and pages of these; None for none."""
    query_heads, kv_heads, dim = heads
    if not are_few(query_heads // kv_heads, dim, dim):
        return None
    return dtype if dtype == kept and in_pairs(dtype, dim, dim, True) else np.dtype(np.float32)


def add_store(program: Program, x: Room, rows: int, heads: Heads, dtype: Any, layers: Pages, layer: int) -> None:
    """`store` of the keys and values in x (rows, Hq + 2 Hkv, D), in one of the `layers` (L, P, ...) of pages."""
    query_heads, kv_heads, dim = heads
    form = AS_THEY_ARE if layers.k_scale is None else FORMATS[layers.k.dtype]
    numbers = KINDS[dtype], form, rows, query_heads, kv_heads, dim * dtype.itemsize, dim * layers.k.itemsize
    program.add(_STORE, rows, x, *_pages(layers, layer), Given("where"), *numbers, layers.k.shape[3])


def _store(row, a):
    kind, form, rows, first, count, given, kept, page = a[12], a[13], a[14], a[15], a[16], a[17], a[18], a[19]
    x, where = vector(a, 0, np.uint8).reshape((rows, first + 2 * count, 1, given)), vector(a, 10, np.int64)
    for i in range(2):
        pages, scale = vector(a, 2 + 2 * i, np.uint8), vector(a, 6 + 2 * i, np.float32)
        pages = pages.reshape((pages.size // (count * page * kept), count, page, kept))
        scale = scale.reshape((scale.size // (count * page), count, page))
        own = x[:, first + i * count : first + (i + 1) * count]
        store_token(kind, form, own, pages, scale, row, 0, where[row], where[rows + row])


def add_attend(
    program: Program,
    x: Room,
    out: Room,
    rows: int,
    heads: Heads,
    dtype: Any,
    layers: Pages,
    layer: int,
    scoring: Scoring,
) -> None:
    """`decode` of the queries in x (rows, Hq + 2 Hkv, D) into out (rows, Hq, D), both of `query_dtype`."""
    query_heads, kv_heads, dim = heads
    page, group = layers.k.shape[3], query_heads // kv_heads
    head, token, block = (dim, page * dim, page * dim, dim, 1), (0, dim, dim, 0, 0), kv_heads * page * dim
    sizes = np.array((*head, *token, 0, block, block, 0, 0, kv_heads, group, dim, dim, page))
    rule = rules(scoring, np.float32)
    k, v, k_scale, v_scale = _pages(layers, layer)
    places = x, k, v, out, program.room(4 * rows * query_heads), k_scale, v_scale, Given("table"), Given("sequences")
    parts = Given("highest"), Given("total"), Given("sums")
    numbers = _room(group), _room(group) * dim, float(rule.scale), float(rule.softcap)
    kinds: tuple[Any, Any] = TYPES[dtype].type, TYPES[layers.k.dtype].type
    for task, count, tasks in (
        (_attend(*kinds), "parts", Given("tasks")),
        (_merge(*kinds), rows * kv_heads, Given("heads")),
    ):
        program.add(task, count, *places, sizes, rule.numbers, tasks, *parts, *numbers)


def arrays_of_step(kept: Cache, heads: Heads) -> tuple[dict[str, int], dict[str, Array]]:
    """Numbers of tasks, and arrays, that steps are given for sequences that a cache has with their new tokens."""
    query_heads, kv_heads, dim = heads
    rows, group = len(kept.lengths), query_heads // kv_heads
    sequences = np.zeros((rows, 7), np.int64)
    for at, elements in ((Q, (query_heads + 2 * kv_heads) * dim), (OUT, query_heads * dim), (LSE, query_heads)):
        sequences[:, BASE + at] = elements * np.arange(rows)
    sequences[:, QUERIES], sequences[:, KEYS] = 1, kept.lengths
    parts = np.maximum(1, -(-sequences[:, KEYS] // SPLIT))
    tasks, room = tasks_of(parts, kv_heads), _room(group)
    highest, total = np.empty((2, len(tasks), room), np.float32)
    arrays = {
        "table": np.ascontiguousarray(kept.table, np.int64).reshape(rows, -1),
        "sequences": sequences,
        "tasks": tasks,
        "heads": heads_of(parts, kv_heads),
        "highest": highest,
        "total": total,
        "sums": np.empty((len(tasks), room * dim), np.float32),
    }
    return {"parts": len(tasks)}, arrays


def _room(group: int) -> int:
    return -(-group // WIDTH) * WIDTH


def _pages(layers: Pages, layer: int) -> list[Given | Array]:
    named = zip(Pages._fields, layers, strict=True)
    return [_NONE if x is None else Given(name, layer * x[0].nbytes) for name, x in named]


@jit
def _rows(x, width):
    return x.reshape((x.size // width, width))


@jit
def _of(a, q_kind, kept_kind):
    """`Places`, `Rules`, the list of tasks, and what the parts of sequences come to: maxima, totals and sums."""
    q, k, v, out = vector(a, 0, q_kind), vector(a, 2, kept_kind), vector(a, 4, kept_kind), vector(a, 6, q_kind)
    lse, k_scale, v_scale = vector(a, 8, np.float32), vector(a, 10, np.float32), vector(a, 12, np.float32)
    sequences = _rows(vector(a, 16, np.int64), 7)
    table = _rows(vector(a, 14, np.int64), vector(a, 14, np.int64).size // len(sequences))
    places = Places(q, k, v, out, lse, k_scale, v_scale, table, sequences, vector(a, 18, np.int64))
    none, no_mask = lse[:0], vector(a, 8, np.uint8)[:0]
    rule = Rules(number(a, 32), number(a, 33), vector(a, 20, np.int64), none, none, none, no_mask)
    parts = _rows(vector(a, 24, np.float32), a[30]), _rows(vector(a, 26, np.float32), a[30])
    return places, rule, vector(a, 22, np.int64), *parts, _rows(vector(a, 28, np.float32), a[31])


@cache
def _attend(q_kind: Any, kept_kind: Any) -> Task:
    def task(i, a):
        places, rule, tasks, highest, total, sums = _of(a, q_kind, kept_kind)
        attend_split(places, rule, tasks[3 * i : 3 * i + 3], highest[i], total[i], sums[i])

    return Task(task)


@cache
def _merge(q_kind: Any, kept_kind: Any) -> Task:
    def task(i, a):
        places, rule, heads, highest, total, sums = _of(a, q_kind, kept_kind)
        merge_split(places, rule, heads[4 * i : 4 * i + 4], highest, total, sums)

    return Task(task)


_STORE = Task(_store)
