"""What the transform and its gradient both need of each group and macro-group, and how they share out work.

Conformations are made in tiles of `WIDTH`, and a tile in stages. All tasks of it have to end one stage
before another begins the next.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._numba import jit
from .._sincos import sincos
from .._vector import WIDTH, apply, multiply_add, parts, product, zero
from .._vector_memory import element, gather, gather_number, load, load_lanes, members, store, store_matrix
from .cpu_turns import axis_rotation, euler_rotation, less_identity

MEAN, SHIFT, ROTATION, FORCE, MOMENT, GROUP_ROWS = 0, 1, 2, 5, 6, 9
"""Vectors kept of a group: its mean, what its rotations and translation add to that, the product of the
rotations; the sum of its forces g and of (x - mean) g^T. Instead of the last, in the end: its torque."""
WHOLE, PIVOT, PASSED, MACRO_ROWS = 0, 3, 4, 5
"""Vectors kept of a macro-group: its rotation and pivot; the force that the pivot passes on to each point."""

PART = 64
"""Groups that are in cache together."""


class Work(NamedTuple):
    """Memory of the tiles at work, one slot after the other.

    A slot has the rows of groups, of macro-groups and two for each axis; and places of four angles for each
    group, then of three for each macro-group. Groups that one call makes have theirs one after the other from
    the first one's place: Euler's and, where they have one, the axis's.
    """

    rows: Any  # (n, 3, WIDTH)
    angles: Any  # (n * WIDTH,)
    sines: Any
    cosines: Any


@jit
def allocate(slots, tree, dtype):
    """The rows of `Work`, and its three others in one."""
    rows, angles = _sizes(tree)
    return np.empty((slots * rows, 3, WIDTH), dtype), np.empty((3, slots * angles * WIDTH), dtype)


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
    """How to make about so many tasks: tiles, those at work at once, and the tasks for each of these."""
    tiles = (conformations + WIDTH - 1) // WIDTH
    slots = min(tiles, tasks)
    return tiles, slots, (tasks + slots - 1) // max(slots, 1)


@jit
def share(count, part, parts):
    """The first of `count` things that are for one of the parts, and the one after the last."""
    return part * count // parts, (part + 1) * count // parts


@jit
def count_parts(first, last, macro_pivot):
    """How often to go on to other stages with some of the groups, in cache, unless they wait for a common pivot."""
    return 1 if macro_pivot else max(1, (last - first) // PART)


@jit
def means(first, last, slot, tile, x, tree, work):
    """The means of some groups of a tile."""
    group_ptr, group_atoms, rows = tree.group_ptr, tree.group_atoms, work.rows
    frames, _, _, _, _ = places(slot, tree)
    points = members(tile, x.shape[0], 3 * x.shape[1])
    for g in range(first, last):
        start, stop = group_ptr[g], group_ptr[g + 1]
        origin, total = gather(x, points, group_atoms[start]), zero(x)
        for i in range(start, stop):
            total = total + (gather(x, points, element(group_atoms, i)) - origin)
        mean = multiply_add(origin, total, rows.dtype.type(1) / rows.dtype.type(stop - start))
        store(mean, rows, frames + GROUP_ROWS * g + MEAN)


@jit
def group_frames(first, last, slot, tile, x, motion, tree, work):
    """The shift and rotation of some groups of a tile, given their means."""
    axis_of_group, anchors, bonded = tree.axis_of_group, tree.axis_anchor, tree.axis_bonded
    translation, euler, axes = motion.translation, motion.euler, motion.axis
    rows, angles, sines, cosines = work.rows, work.angles, work.sines, work.cosines
    frames, _, _, turns, _ = places(slot, tree)
    points = members(tile, x.shape[0], 3 * x.shape[1])
    groups = members(tile, euler.shape[0], 3 * euler.shape[1])
    own_axes = members(tile, axes.shape[0], axes.shape[1])
    i = turns + 4 * first
    for g in range(first, last):
        axis = axis_of_group[g]
        _store_angles(gather(euler, groups, g), angles, i)
        if axis >= 0:
            store(gather_number(axes, own_axes, axis), angles, i + 3)
        i += turns_of(axis)
    start, stop = WIDTH * (turns + 4 * first), WIDTH * i
    sincos(angles[start:stop], sines[start:stop], cosines[start:stop])
    i = turns + 4 * first
    for g in range(first, last):
        axis, frame = axis_of_group[g], frames + GROUP_ROWS * g
        shift, rotation = gather(translation, groups, g), euler_rotation(sines, cosines, i)
        if axis >= 0:
            anchor = gather(x, points, anchors[axis])
            sine, cosine = load_lanes(sines, i + 3), load_lanes(cosines, i + 3)
            turn, _, _ = axis_rotation(gather(x, points, bonded[axis]) - anchor, sine, cosine)
            shift = shift + apply(less_identity(turn), load(rows, frame + MEAN) - anchor)
            rotation = product(rotation, turn)
        store(shift, rows, frame + SHIFT)
        store_matrix(rotation, rows, frame + ROTATION)
        i += turns_of(axis)


@jit
def turns_of(axis):
    """How many angles a group has."""
    return 4 if axis >= 0 else 3


@jit
def _store_angles(euler, angles, at):
    a, b, c = parts(euler)
    store(a, angles, at)
    store(b, angles, at + 1)
    store(c, angles, at + 2)


@jit
def macro_frames(first, last, slot, tile, motion, tree, macro_pivot, work):
    """The rotations of some macro-groups and, if they turn whole, their pivots: the means of their moved points."""
    macro_ptr, macro_groups, group_ptr, euler = tree.macro_ptr, tree.macro_groups, tree.group_ptr, motion.macro_euler
    rows, angles, sines, cosines = work.rows, work.angles, work.sines, work.cosines
    frames, wholes, _, _, turns = places(slot, tree)
    macros = members(tile, euler.shape[0], 3 * euler.shape[1])
    for m in range(first, last):
        _store_angles(gather(euler, macros, m), angles, turns + 3 * m)
    start, stop = WIDTH * (turns + 3 * first), WIDTH * (turns + 3 * last)
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
