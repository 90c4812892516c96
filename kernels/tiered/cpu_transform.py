"""Numba launchers of the transform and of its gradient: names and signatures of `reference`.

Arrays are C-contiguous, and groups have at least one point.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import prange

from .._numba import SERIAL_BYTES, in_turn, jit
from .._vector import WIDTH, apply, product
from .._vector_memory import element, gather, load, load_matrix, members, scatter
from .cpu_backward import _backward
from .cpu_frames import (
    GROUP_ROWS,
    MACRO_ROWS,
    MEAN,
    PIVOT,
    ROTATION,
    SHIFT,
    WHOLE,
    Work,
    allocate,
    count_parts,
    group_frames,
    macro_frames,
    means,
    places,
    schedule,
    share,
)
from .cpu_turns import copy, less_identity, move
from .problem import Motion, Tree

Array = np.ndarray[Any, Any]

STAGES = 3


def transform(positions: Array, motion: Motion, tree: Tree, macro_pivot: bool, out: Array) -> None:
    """Write the transformed `positions` (B or 1, N, 3) into `out` (B, N, 3); `macro_pivot` turns macro-groups whole."""
    in_turn(_transform, positions, motion, tree, macro_pivot, out, tasks_for(out))


def transform_backward(
    grad: Array, positions: Array, motion: Motion, tree: Tree, macro_pivot: bool, grad_motion: Motion, out: Array
) -> None:
    """Given dE/dtransformed `grad` (B, N, 3), write dE/dparameters and, into `out` (B, N, 3), dE/dpositions."""
    in_turn(_backward, grad, positions, motion, tree, macro_pivot, grad_motion, out, tasks_for(out))


def tasks_for(out: Array) -> int:
    """As many as threads, unless what they read and write is little; a tile costs the same however full it is."""
    padded = (len(out) + WIDTH - 1) // WIDTH * WIDTH
    nbytes = 2 * padded * out.shape[1] * 3 * out.itemsize
    return numba.get_num_threads() if nbytes >= STAGES * WIDTH * SERIAL_BYTES or len(out) > WIDTH else 1


@jit(parallel=True)
def _transform(positions, motion, tree, macro_pivot, out, tasks):
    """About `tasks` tasks at once: if they are more than the tiles, several share one."""
    tiles, slots, blocks = schedule(out.shape[0], tasks)
    rows, turns = allocate(slots, tree, out.dtype)
    stages = STAGES if blocks == 1 else 1
    if slots * blocks == 1:
        _task(0, tiles, 1, 1, 0, stages, positions, motion, tree, macro_pivot, out, rows, turns)
        return
    for stage in range(0, STAGES, stages):
        for task in prange(slots * blocks):
            number = np.int64(task)
            _task(number, tiles, slots, blocks, stage, stages, positions, motion, tree, macro_pivot, out, rows, turns)


@jit
def _task(task, tiles, slots, blocks, stage, stages, positions, motion, tree, macro_pivot, out, rows, turns):
    """Some stages of a block's share of the tiles that a slot has."""
    slot, block = divmod(task, blocks)
    work = Work(rows, turns[0], turns[1], turns[2])
    first, last = share(tree.macro_of_group.size, block, blocks)
    first_macro, last_macro = share(tree.macro_ptr.size - 1, block, blocks)
    low, high = share(tiles, slot, slots)
    parts = count_parts(first, last, macro_pivot)
    for tile in range(low, high):
        for part in range(parts):
            start, stop = share(last - first, part, parts)
            start, stop = first + start, first + stop
            if stage == 0:
                means(start, stop, slot, tile, positions, tree, work)
                group_frames(start, stop, slot, tile, positions, motion, tree, work)
            if part == 0 and stage <= 1 < stage + stages:
                macro_frames(first_macro, last_macro, slot, tile, motion, tree, macro_pivot, work)
            if stage <= 2 < stage + stages:
                _groups(start, stop, slot, tile, positions, motion, tree, macro_pivot, out, work)
        if stage <= 2 < stage + stages:
            start, stop = share(tree.loose.size, block, blocks)
            copy(tree.loose, start, stop, tile, positions, out)


@jit
def _groups(first, last, slot, tile, x, motion, tree, macro_pivot, out, work):
    group_ptr, group_atoms, macro_of_group = tree.group_ptr, tree.group_atoms, tree.macro_of_group
    rows, translation = work.rows, motion.macro_translation
    frames, wholes, _, _, _ = places(slot, tree)
    points, out_points = members(tile, x.shape[0], 3 * x.shape[1]), members(tile, out.shape[0], 3 * out.shape[1])
    macros = members(tile, translation.shape[0], 3 * translation.shape[1])
    for g in range(first, last):
        frame = frames + GROUP_ROWS * g
        mean, shift, rotation = load(rows, frame + MEAN), load(rows, frame + SHIFT), load_matrix(rows, frame + ROTATION)
        m = macro_of_group[g]
        if m >= 0:
            whole = load_matrix(rows, wholes + MACRO_ROWS * m + WHOLE)
            rotation = product(whole, rotation)
            if macro_pivot:
                arm = mean + shift - load(rows, wholes + MACRO_ROWS * m + PIVOT)
                shift = shift + apply(less_identity(whole), arm)
            shift = shift + gather(translation, macros, m)
        turn = less_identity(rotation)
        for i in range(group_ptr[g], group_ptr[g + 1]):
            place = element(group_atoms, i)
            moved = move(gather(x, points, place), mean, turn, shift)
            scatter(moved, out, out_points, place)
