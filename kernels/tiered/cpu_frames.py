"""What the transform and its gradient both need of each group and macro-group, and how they share out work.

A conformation is made in stages. All tasks of it have to end one before another begins the next.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._numba import jit
from .._sincos import sincos
from .._vector import apply, element, load, multiply_add, parts, product, store, store_matrix, zero
from .cpu_turns import axis_rotation, euler_rotation, less_identity

MEAN, SHIFT, ROTATION, FORCE, MOMENT, GROUP_ROWS = 0, 1, 2, 5, 6, 9
"""Vectors kept of a group: its mean, what its rotations and translation add to that, the product of the
rotations; the sum of its forces g and of (x - mean) g^T. Instead of the last, in the end: its torque."""
WHOLE, PIVOT, PASSED, MACRO_ROWS = 0, 3, 4, 5
"""Vectors kept of a macro-group: its rotation and pivot; the force that the pivot passes on to each point."""


class Work(NamedTuple):
    """Memory of the conformations at work, one slot after the other.

    A slot has the rows of groups, of macro-groups and two for each axis; and four angles for each group,
    Euler's and its axis's, then three for each macro-group.
    """

    rows: Any  # (n, 3)
    angles: Any
    sines: Any
    cosines: Any


@jit
def allocate(slots, tree, dtype):
    """The rows of `Work`, and its three others in one."""
    rows, angles = _sizes(tree)
    return np.empty((slots * rows, 3), dtype), np.empty((3, slots * angles), dtype)


@jit
def _sizes(tree):
    groups, macros, axes = tree.macro_of_group.size, tree.macro_ptr.size - 1, tree.axis_anchor.size
    return GROUP_ROWS * groups + MACRO_ROWS * macros + 2 * axes, 4 * groups + 3 * macros


@jit
def places(slot, tree):
    """Where a slot's rows begin, of groups, of macro-groups and of axes, and its angles of either kind of group."""
    groups, macros = tree.macro_of_group.size, tree.macro_ptr.size - 1
    rows, angles = _sizes(tree)
    first = slot * rows + GROUP_ROWS * groups
    return slot * rows, first, first + MACRO_ROWS * macros, slot * angles, slot * angles + 4 * groups


@jit
def schedule(conformations, tasks):
    """How to make about so many tasks: conformations at work at once, and the tasks for each of these."""
    slots = min(conformations, tasks)
    return slots, (tasks + slots - 1) // max(slots, 1)


@jit
def share(count, part, parts):
    """The first of `count` things that are for one of the parts, and the one after the last."""
    return part * count // parts, (part + 1) * count // parts


@jit
def group_frames(first, last, slot, b, x, row, motion, tree, work):
    """The mean, shift and rotation of some groups of conformation b, whose points begin at `row` of x."""
    group_ptr, group_atoms, axis_of_group = tree.group_ptr, tree.group_atoms, tree.axis_of_group
    anchors, bonded, translation, euler, angle = (
        tree.axis_anchor,
        tree.axis_bonded,
        motion.translation,
        motion.euler,
        motion.axis,
    )
    rows, angles, sines, cosines = work.rows, work.angles, work.sines, work.cosines
    frames, _, _, turns, _ = places(slot, tree)
    groups = axis_of_group.size
    for g in range(first, last):
        i, axis = turns + 4 * g, axis_of_group[g]
        angles[i], angles[i + 1], angles[i + 2] = parts(load(euler, b * groups + g))
        angles[i + 3] = angle[b, axis] if axis >= 0 else 0
    start, stop = turns + 4 * first, turns + 4 * last
    sincos(angles[start:stop], sines[start:stop], cosines[start:stop])
    for g in range(first, last):
        i, axis = turns + 4 * g, axis_of_group[g]
        mean = _mean(group_atoms, group_ptr[g], group_ptr[g + 1], x, row)
        shift = load(translation, b * groups + g)
        rotation = euler_rotation(sines, cosines, i)
        if axis >= 0:
            anchor = load(x, row + anchors[axis])
            turn, _, _ = axis_rotation(load(x, row + bonded[axis]) - anchor, sines[i + 3], cosines[i + 3])
            shift = shift + apply(less_identity(turn), mean - anchor)
            rotation = product(rotation, turn)
        store(mean, rows, frames + GROUP_ROWS * g + MEAN)
        store(shift, rows, frames + GROUP_ROWS * g + SHIFT)
        store_matrix(rotation, rows, frames + GROUP_ROWS * g + ROTATION)


@jit
def _mean(points, start, stop, x, row):
    origin = load(x, row + points[start])
    total = zero(x)
    for i in range(start, stop):
        total = total + (load(x, row + element(points, i)) - origin)
    return multiply_add(origin, total, x.dtype.type(1) / x.dtype.type(stop - start))


@jit
def macro_frames(first, last, slot, b, motion, tree, macro_pivot, work):
    """The rotations of some macro-groups and, if they turn whole, their pivots: the means of their moved points."""
    macro_ptr, macro_groups, group_ptr, euler = tree.macro_ptr, tree.macro_groups, tree.group_ptr, motion.macro_euler
    rows, angles, sines, cosines = work.rows, work.angles, work.sines, work.cosines
    frames, wholes, _, _, turns = places(slot, tree)
    for m in range(first, last):
        i = turns + 3 * m
        angles[i], angles[i + 1], angles[i + 2] = parts(load(euler, b * (macro_ptr.size - 1) + m))
    start, stop = turns + 3 * first, turns + 3 * last
    sincos(angles[start:stop], sines[start:stop], cosines[start:stop])
    for m in range(first, last):
        store_matrix(euler_rotation(sines, cosines, turns + 3 * m), rows, wholes + MACRO_ROWS * m + WHOLE)
        start, stop = macro_ptr[m], macro_ptr[m + 1]
        if macro_pivot and start < stop:
            middle = _pivot(macro_groups, start, stop, group_ptr, rows, frames)
            store(middle, rows, wholes + MACRO_ROWS * m + PIVOT)


@jit
def _pivot(macro_groups, start, stop, group_ptr, rows, frames):
    frame = frames + GROUP_ROWS * macro_groups[start]
    origin = load(rows, frame + MEAN) + load(rows, frame + SHIFT)
    total = zero(rows)
    for i in range(start, stop):
        g = macro_groups[i]
        frame = frames + GROUP_ROWS * g
        mean = load(rows, frame + MEAN) + load(rows, frame + SHIFT)
        total = multiply_add(total, mean - origin, rows.dtype.type(group_ptr[g + 1] - group_ptr[g]))
    points = count_points(macro_groups, start, stop, group_ptr)
    return multiply_add(origin, total, rows.dtype.type(1) / rows.dtype.type(points))


@jit
def count_points(macro_groups, start, stop, group_ptr):
    points = 0
    for i in range(start, stop):
        points += group_ptr[macro_groups[i] + 1] - group_ptr[macro_groups[i]]
    return points
