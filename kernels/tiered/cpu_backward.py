"""The gradient of the transform, from two sums over the points of each group.

With F = sum g, W = sum (x - mean) g^T and P, the product of a group's rotations, the torque on the group
is the twist of P W: sum of (P (x - mean)) x g. The gradients of Euler angles are components of torques.
The points get P^T (g - F / n) + Q^T F' / n, where Q is the axis rotation and F' the force on the group
before the macro-group's rotation, which moves some of it between groups if it is about a common pivot.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .._numba import jit
from .._vector import apply, combine, cross, dot, multiply_add, parts, product, transpose, zero
from .._vector_memory import (
    element,
    gather,
    load,
    load_lanes,
    load_matrix,
    members,
    scatter,
    scatter_number,
    store,
    store_matrix,
)
from .cpu_frames import (
    FORCE,
    GROUP_ROWS,
    MACRO_ROWS,
    MEAN,
    MOMENT,
    PASSED,
    PIVOT,
    ROTATION,
    SHIFT,
    WHOLE,
    Work,
    allocate,
    count_parts,
    count_points,
    group_frames,
    macro_frames,
    places,
    schedule,
    share,
    turns_of,
)
from .cpu_turns import axis_rotation, copy, euler_gradient, less_identity, move, twist

STAGES = 4


@jit(parallel=True)
def _backward(grad, positions, motion, tree, macro_pivot, grad_motion, out, tasks):
    """About `tasks` tasks at once: if they are more than the tiles, several share one."""
    tiles, slots, blocks = schedule(out.shape[0], tasks)
    rows, turns = allocate(slots, tree, out.dtype)
    still = np.flatnonzero(tree.fixed)
    stages = STAGES if blocks == 1 else 1
    if slots * blocks == 1:
        shared = (grad, positions, motion, tree, macro_pivot, grad_motion, out, still, rows, turns)
        _task(0, tiles, 1, 1, 0, stages, *shared)
        return
    for stage in range(0, STAGES, stages):
        for task in prange(slots * blocks):
            number = np.int64(task)
            _task(
                number,
                tiles,
                slots,
                blocks,
                stage,
                stages,
                grad,
                positions,
                motion,
                tree,
                macro_pivot,
                grad_motion,
                out,
                still,
                rows,
                turns,
            )


@jit
def _task(
    task,
    tiles,
    slots,
    blocks,
    stage,
    stages,
    grad,
    positions,
    motion,
    tree,
    macro_pivot,
    grad_motion,
    out,
    still,
    rows,
    turns,
):
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
                _sums(start, stop, slot, tile, grad, positions, tree, work)
                group_frames(start, stop, slot, tile, positions, motion, tree, work)
            if part == 0 and stage <= 1 < stage + stages:
                macro_frames(first_macro, last_macro, slot, tile, motion, tree, macro_pivot, work)
                if macro_pivot:
                    _passed(first_macro, last_macro, slot, tree, work)
            if stage <= 2 < stage + stages:
                _groups(start, stop, slot, tile, grad, positions, tree, macro_pivot, grad_motion, out, work)
        if stage <= 2 < stage + stages:
            start, stop = share(tree.loose.size, block, blocks)
            copy(tree.loose, start, stop, tile, grad, out)
        if stage <= 3 < stage + stages:
            _macro_gradients(first_macro, last_macro, slot, tile, tree, grad_motion, work)
            if block == 0:
                _ends(slot, tile, still, tree, out, work)


@jit
def _sums(first, last, slot, tile, grad, x, tree, work):
    """The means, F and W of some groups: first about the first point, ``sum (x - origin) g^T``, to read points once."""
    group_ptr, group_atoms, rows = tree.group_ptr, tree.group_atoms, work.rows
    frames, _, _, _, _ = places(slot, tree)
    points, pulls = members(tile, x.shape[0], 3 * x.shape[1]), members(tile, grad.shape[0], 3 * grad.shape[1])
    for g in range(first, last):
        start, stop, frame = group_ptr[g], group_ptr[g + 1], frames + GROUP_ROWS * g
        origin, total = gather(x, points, group_atoms[start]), zero(x)
        force, wx, wy, wz = zero(x), zero(x), zero(x), zero(x)
        for i in range(start, stop):
            place = element(group_atoms, i)
            pull, arm = gather(grad, pulls, place), gather(x, points, place) - origin
            dx, dy, dz = parts(arm)
            total, force = total + arm, force + pull
            wx, wy, wz = multiply_add(wx, pull, dx), multiply_add(wy, pull, dy), multiply_add(wz, pull, dz)
        part = rows.dtype.type(1) / rows.dtype.type(stop - start)
        dx, dy, dz = parts(total * -part)
        wx, wy, wz = multiply_add(wx, force, dx), multiply_add(wy, force, dy), multiply_add(wz, force, dz)
        store(multiply_add(origin, total, part), rows, frame + MEAN)
        store(force, rows, frame + FORCE)
        store_matrix((wx, wy, wz), rows, frame + MOMENT)


@jit
def _passed(first, last, slot, tree, work):
    """What the pivots of some macro-groups pass on to each point."""
    macro_ptr, macro_groups, group_ptr, rows = tree.macro_ptr, tree.macro_groups, tree.group_ptr, work.rows
    frames, wholes, _, _, _ = places(slot, tree)
    for m in range(first, last):
        start, stop, whole = macro_ptr[m], macro_ptr[m + 1], wholes + MACRO_ROWS * m
        if start < stop:
            force = _total(macro_groups, start, stop, rows, frames + FORCE)
            passed = force - combine(force, load_matrix(rows, whole + WHOLE))
            points = count_points(macro_groups, start, stop, group_ptr)
            store(passed * (rows.dtype.type(1) / rows.dtype.type(points)), rows, whole + PASSED)


@jit
def _total(macro_groups, start, stop, rows, place):
    total = zero(rows)
    for i in range(start, stop):
        total = total + load(rows, place + GROUP_ROWS * macro_groups[i])
    return total


@jit
def _groups(first, last, slot, tile, grad, x, tree, macro_pivot, grad_motion, out, work):
    """All gradients but those of macro-groups, and what axes pass to their ends."""
    group_ptr, group_atoms = tree.group_ptr, tree.group_atoms
    macro_of_group, axis_of_group, anchors, bonded = (
        tree.macro_of_group,
        tree.axis_of_group,
        tree.axis_anchor,
        tree.axis_bonded,
    )
    at_translation, at_euler, at_axis = grad_motion.translation, grad_motion.euler, grad_motion.axis
    rows, sines, cosines = work.rows, work.sines, work.cosines
    frames, wholes, ends, turns, _ = places(slot, tree)
    points, pulls = members(tile, x.shape[0], 3 * x.shape[1]), members(tile, out.shape[0], 3 * out.shape[1])
    groups = members(tile, at_euler.shape[0], 3 * at_euler.shape[1])
    axes = members(tile, at_axis.shape[0], at_axis.shape[1])
    i = turns + 4 * first
    for g in range(first, last):
        frame = frames + GROUP_ROWS * g
        force, moment = load(rows, frame + FORCE), load_matrix(rows, frame + MOMENT)
        rotation, inner_force = load_matrix(rows, frame + ROTATION), force
        count = rows.dtype.type(group_ptr[g + 1] - group_ptr[g])
        m = macro_of_group[g]
        whole = rotation
        if m >= 0:
            whole = load_matrix(rows, wholes + MACRO_ROWS * m + WHOLE)
            rotation = product(whole, rotation)
        torque = twist(product(rotation, moment))
        own_torque = torque
        if m >= 0:
            own_torque, outer_torque = combine(torque, whole), torque
            if macro_pivot:
                inner_force = multiply_add(combine(force, whole), load(rows, wholes + MACRO_ROWS * m + PASSED), count)
                arm = load(rows, frame + MEAN) + load(rows, frame + SHIFT) - load(rows, wholes + MACRO_ROWS * m + PIVOT)
                outer_torque = torque + cross(apply(whole, arm), force)
            store(outer_torque, rows, frame + MOMENT)
        scatter(inner_force, at_translation, groups, g)
        scatter(euler_gradient(own_torque, sines, cosines, i), at_euler, groups, g)
        shift = inner_force - force
        axis = axis_of_group[g]
        if axis >= 0:
            anchor, sine, cosine = (
                gather(x, points, anchors[axis]),
                load_lanes(sines, i + 3),
                load_lanes(cosines, i + 3),
            )
            turn, unit, inverse_length = axis_rotation(gather(x, points, bonded[axis]) - anchor, sine, cosine)
            along = apply(moment, apply(rotation, unit))
            against = apply(turn, combine(combine(unit, moment), rotation))
            torque = apply(turn, combine(torque, rotation))
            arm = load(rows, frame + MEAN) - anchor
            at_angle, at_unit = _axis_gradient(along, against, torque, arm, inner_force, turn, unit, sine, cosine)
            scatter_number(at_angle, at_axis, axes, axis)
            at_bonded = (at_unit - unit * dot(unit, at_unit)) * inverse_length
            passed = combine(inner_force, less_identity(turn))
            store(at_bonded, rows, ends + 2 * axis)
            store(at_bonded + passed, rows, ends + 2 * axis + 1)
            shift = shift + passed
        scale = rows.dtype.type(1) / count
        turn, centre, shift = transpose(less_identity(rotation)), force * scale, shift * scale
        for k in range(group_ptr[g], group_ptr[g + 1]):
            place = element(group_atoms, k)
            scatter(move(gather(grad, pulls, place), centre, turn, shift), out, pulls, place)
        i += turns_of(axis)


@jit
def _axis_gradient(along, against, torque, arm, force, turn, unit, sine, cosine):
    """dE/dangle and dE/dunit, this but for its component along the unit vector u.

    With Y, the sum of (x - mean) g^T before the group's rotation, and Q, the axis rotation, `along` is Y u,
    `against` is Y^T u and `torque` the twist of Q Y. `arm` leads from the axis to the mean.
    """
    at_angle = dot(unit, torque + cross(apply(turn, arm), force))
    versine = 1 - cosine
    twisted = torque * cosine + cross(unit, against) * versine - apply(turn, along) * sine + cross(arm, force)
    stretched = along + against + arm * dot(unit, force) + force * dot(unit, arm)
    return at_angle, twisted * sine + stretched * versine


@jit
def _macro_gradients(first, last, slot, tile, tree, grad_motion, work):
    macro_ptr, macro_groups, rows = tree.macro_ptr, tree.macro_groups, work.rows
    at_translation, at_euler = grad_motion.macro_translation, grad_motion.macro_euler
    frames, _, _, _, turns = places(slot, tree)
    macros = members(tile, at_euler.shape[0], 3 * at_euler.shape[1])
    for m in range(first, last):
        start, stop = macro_ptr[m], macro_ptr[m + 1]
        force = _total(macro_groups, start, stop, rows, frames + FORCE)
        torque = _total(macro_groups, start, stop, rows, frames + MOMENT)
        scatter(force, at_translation, macros, m)
        scatter(euler_gradient(torque, work.sines, work.cosines, turns + 3 * m), at_euler, macros, m)


@jit
def _ends(slot, tile, still, tree, out, work):
    """Give the points of axes what these pass to them, in the order of the axes, and fixed points nothing."""
    anchors, bonded, rows = tree.axis_anchor, tree.axis_bonded, work.rows
    _, _, ends, _, _ = places(slot, tree)
    points = members(tile, out.shape[0], 3 * out.shape[1])
    for axis in range(anchors.size):
        at_bonded, at_anchor = load(rows, ends + 2 * axis), load(rows, ends + 2 * axis + 1)
        scatter(gather(out, points, bonded[axis]) + at_bonded, out, points, bonded[axis])
        scatter(gather(out, points, anchors[axis]) - at_anchor, out, points, anchors[axis])
    for i in range(still.size):
        scatter(zero(out), out, points, still[i])
