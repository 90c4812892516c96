"""Numba launchers of the transform and of its gradient: names and signatures of `reference`.

Arrays are C-contiguous, and groups have at least one point.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import prange

from .._numba import SERIAL_BYTES, jit, kernel
from .._vector import apply, load, load_matrix, product, transpose
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
    group_frames,
    macro_frames,
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
    nbytes = positions.nbytes + out.nbytes
    _transform(nbytes, positions, motion, tree, macro_pivot, out, _tasks(nbytes))


def transform_backward(
    grad: Array, positions: Array, motion: Motion, tree: Tree, macro_pivot: bool, grad_motion: Motion, out: Array
) -> None:
    """Given dE/dtransformed `grad` (B, N, 3), write dE/dparameters and, into `out` (B, N, 3), dE/dpositions."""
    nbytes = grad.nbytes + positions.nbytes + out.nbytes
    _backward(nbytes, grad, positions, motion, tree, macro_pivot, grad_motion, out, _tasks(nbytes))


def _tasks(nbytes: int) -> int:
    return numba.get_num_threads() if nbytes >= SERIAL_BYTES else 1


@kernel
def _transform(positions, motion, tree, macro_pivot, out, tasks):
    """About `tasks` tasks at once: if they are more than the conformations, several share one."""
    slots, blocks = schedule(out.shape[0], tasks)
    rows, turns = allocate(slots, tree, out.dtype)
    stages = STAGES if blocks == 1 else 1
    for stage in range(0, STAGES, stages):
        for task in prange(slots * blocks):
            _task(np.int64(task), slots, blocks, stage, stages, positions, motion, tree, macro_pivot, out, rows, turns)


@jit
def _task(task, slots, blocks, stage, stages, positions, motion, tree, macro_pivot, out, rows, turns):
    """Some stages of a block's share of the conformations that a slot has."""
    slot, block = divmod(task, blocks)
    work = Work(rows, turns[0], turns[1], turns[2])
    points = out.shape[1]
    first, last = share(tree.macro_of_group.size, block, blocks)
    first_macro, last_macro = share(tree.macro_ptr.size - 1, block, blocks)
    low, high = share(out.shape[0], slot, slots)
    for b in range(low, high):
        row = b * points if positions.shape[0] > 1 else 0
        if stage == 0:
            group_frames(first, last, slot, b, positions, row, motion, tree, work)
        if stage <= 1 < stage + stages:
            macro_frames(first_macro, last_macro, slot, b, motion, tree, macro_pivot, work)
        if stage <= 2 < stage + stages:
            _groups(first, last, slot, b, positions, row, motion, tree, macro_pivot, out, work)
            start, stop = share(tree.loose.size, block, blocks)
            copy(tree.loose, start, stop, positions, row, out, b * points)


@jit
def _groups(first, last, slot, b, x, row, motion, tree, macro_pivot, out, work):
    group_ptr, group_atoms, macro_of_group = tree.group_ptr, tree.group_atoms, tree.macro_of_group
    rows, translation = work.rows, motion.macro_translation
    frames, wholes, _, _, _ = places(slot, tree)
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
            shift = shift + load(translation, b * (tree.macro_ptr.size - 1) + m)
        columns = transpose(less_identity(rotation))
        move(group_atoms, group_ptr[g], group_ptr[g + 1], x, row, mean, columns, shift, out, b * out.shape[1])
