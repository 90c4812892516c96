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
from .cpu_problem import BASE, KEYS, LSE, OUT, QUERIES, TYPES, VALUE_DIM, Places, Q, Rules, in_pairs, rules
from .cpu_store import AS_THEY_ARE, FORMATS, store_token
from .cpu_tasks import heads_of, tasks_of
from .problem import Cache, Pages, Scoring

Array = np.ndarray[Any, Any]
Heads = tuple[int, int, int]
"""Hq, Hkv and D."""

_NONE = np.empty(0, np.float32)

_X, _PAGES, _SCALES, _WHERE = 0, 2, 6, 10
_KIND, _FORM, _ROWS, _HEADS, _KV_HEADS, _GIVEN, _KEPT, _PAGE = range(12, 20)
"""Words of the steps that store; a vector has two. Of a token's head, bytes that are given and bytes that are kept."""

_Q, _K, _V, _OUT, _LSE, _K_SCALE, _V_SCALE, _TABLE, _SEQUENCES, _SIZES, _NUMBERS = range(0, 22, 2)
_TASKS, _HIGHEST, _TOTAL, _SUMS, _ROOM, _SCALE, _SOFTCAP = 22, 24, 26, 28, 30, 31, 32
"""Words of the steps that attend, and merge."""


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
    rows, first, count, kept, page = a[_ROWS], a[_HEADS], a[_KV_HEADS], a[_KEPT], a[_PAGE]
    x = vector(a, _X, np.uint8).reshape((rows, first + 2 * count, 1, a[_GIVEN]))
    where = vector(a, _WHERE, np.int64)
    for i in range(2):
        pages, scale = vector(a, _PAGES + 2 * i, np.uint8), vector(a, _SCALES + 2 * i, np.float32)
        pages = pages.reshape((pages.size // (count * page * kept), count, page, kept))
        scale = scale.reshape((scale.size // (count * page), count, page))
        own = x[:, first + i * count : first + (i + 1) * count]
        store_token(a[_KIND], a[_FORM], own, pages, scale, row, 0, where[row], where[rows + row])


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
    numbers = _room(group), float(rule.scale), float(rule.softcap)
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
    q, out, lse = vector(a, _Q, q_kind), vector(a, _OUT, q_kind), vector(a, _LSE, np.float32)
    k, k_scale = vector(a, _K, kept_kind), vector(a, _K_SCALE, np.float32)
    v, v_scale = vector(a, _V, kept_kind), vector(a, _V_SCALE, np.float32)
    sequences, sizes, table = (
        _rows(vector(a, _SEQUENCES, np.int64), 7),
        vector(a, _SIZES, np.int64),
        vector(a, _TABLE, np.int64),
    )
    table = _rows(table, table.size // len(sequences))
    places = Places(q, k, v, out, lse, k_scale, v_scale, table, sequences, sizes)
    none, no_mask = lse[:0], vector(a, _LSE, np.uint8)[:0]
    rule = Rules(number(a, _SCALE), number(a, _SOFTCAP), vector(a, _NUMBERS, np.int64), none, none, none, no_mask)
    highest, total = (_rows(vector(a, _HIGHEST, np.float32), a[_ROOM]), _rows(vector(a, _TOTAL, np.float32), a[_ROOM]))
    sums = _rows(vector(a, _SUMS, np.float32), a[_ROOM] * sizes[VALUE_DIM])
    return places, rule, vector(a, _TASKS, np.int64), highest, total, sums


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
