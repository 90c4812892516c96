"""The gradient of the transform, from two sums over the points of each group.

With F = sum g, W = sum (x - mean) g^T and P, the product of a group's rotations, the torque on the group
is the twist of P W: sum of (P (x - mean)) x g. The gradients of Euler angles are components of torques.
The points get P^T (g - F / n) + Q^T F' / n, where Q is the axis rotation and F' the force on the group
before the macro-group's rotation, which moves some of it between groups if it is about a common pivot.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from .._numba import jit, kernel
from .._vector import (
    apply,
    combine,
    cross,
    dot,
    element,
    load,
    load_matrix,
    multiply_add,
    parts,
    product,
    store,
    store_matrix,
    zero,
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
    count_points,
    group_frames,
    macro_frames,
    places,
    schedule,
    share,
)
from .cpu_turns import axis_rotation, copy, euler_gradient, less_identity, move, twist

STAGES = 4


@kernel
def _backward(grad, positions, motion, tree, macro_pivot, grad_motion, out, tasks):
    """About `tasks` tasks at once: if they are more than the conformations, several share one."""
    slots, blocks = schedule(out.shape[0], tasks)
    rows, turns = allocate(slots, tree, out.dtype)
    still = np.flatnonzero(tree.fixed)
    stages = STAGES if blocks == 1 else 1
    for stage in range(0, STAGES, stages):
        for task in prange(slots * blocks):
            number = np.int64(task)
            _task(
                number,
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
    task, slots, blocks, stage, stages, grad, positions, motion, tree, macro_pivot, grad_motion, out, still, rows, turns
):
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
            _sums(first, last, slot, b, grad, positions, row, tree, work)
        if stage <= 1 < stage + stages:
            macro_frames(first_macro, last_macro, slot, b, motion, tree, macro_pivot, work)
            _macro_forces(first_macro, last_macro, slot, b, tree, macro_pivot, grad_motion, work)
        if stage <= 2 < stage + stages:
            _groups(first, last, slot, b, grad, positions, row, tree, macro_pivot, grad_motion, out, work)
            start, stop = share(tree.loose.size, block, blocks)
            copy(tree.loose, start, stop, grad, b * points, out, b * points)
        if stage <= 3 < stage + stages:
            _macro_torques(first_macro, last_macro, slot, b, tree, grad_motion, work)
            if block == 0:
                _ends(slot, b * points, still, tree, out, work)


@jit
def _sums(first, last, slot, b, grad, x, row, tree, work):
    group_ptr, group_atoms, rows = tree.group_ptr, tree.group_atoms, work.rows
    frames, _, _, _, _ = places(slot, tree)
    for g in range(first, last):
        frame = frames + GROUP_ROWS * g
        mean = load(rows, frame + MEAN)
        force, moment = _sum(group_atoms, group_ptr[g], group_ptr[g + 1], grad, b * grad.shape[1], x, row, mean)
        store(force, rows, frame + FORCE)
        store_matrix(moment, rows, frame + MOMENT)


@jit
def _sum(points, start, stop, grad, grad_row, x, row, mean):
    """F and W of a group."""
    force, wx, wy, wz = zero(x), zero(x), zero(x), zero(x)
    for i in range(start, stop):
        place = element(points, i)
        pull = load(grad, grad_row + place)
        dx, dy, dz = parts(load(x, row + place) - mean)
        force = force + pull
        wx, wy, wz = multiply_add(wx, pull, dx), multiply_add(wy, pull, dy), multiply_add(wz, pull, dz)
    return force, (wx, wy, wz)


@jit
def _macro_forces(first, last, slot, b, tree, macro_pivot, grad_motion, work):
    macro_ptr, macro_groups, group_ptr, rows = tree.macro_ptr, tree.macro_groups, tree.group_ptr, work.rows
    frames, wholes, _, _, _ = places(slot, tree)
    for m in range(first, last):
        start, stop, whole = macro_ptr[m], macro_ptr[m + 1], wholes + MACRO_ROWS * m
        force = _total(macro_groups, start, stop, rows, frames + FORCE)
        store(force, grad_motion.macro_translation, b * (macro_ptr.size - 1) + m)
        if macro_pivot and start < stop:
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
def _groups(first, last, slot, b, grad, x, row, tree, macro_pivot, grad_motion, out, work):
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
    groups, grad_row = axis_of_group.size, b * out.shape[1]
    for g in range(first, last):
        frame, i = frames + GROUP_ROWS * g, turns + 4 * g
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
        store(inner_force, at_translation, b * groups + g)
        store(euler_gradient(own_torque, sines, cosines, i), at_euler, b * groups + g)
        shift = inner_force - force
        axis = axis_of_group[g]
        if axis >= 0:
            anchor, sine, cosine = load(x, row + anchors[axis]), sines[i + 3], cosines[i + 3]
            turn, unit, inverse_length = axis_rotation(load(x, row + bonded[axis]) - anchor, sine, cosine)
            along = apply(moment, apply(rotation, unit))
            against = apply(turn, combine(combine(unit, moment), rotation))
            torque = apply(turn, combine(torque, rotation))
            arm = load(rows, frame + MEAN) - anchor
            at_angle, at_unit = _axis_gradient(along, against, torque, arm, inner_force, turn, unit, sine, cosine)
            at_axis[b, axis] = at_angle
            at_bonded = (at_unit - unit * dot(unit, at_unit)) * inverse_length
            passed = combine(inner_force, less_identity(turn))
            store(at_bonded, rows, ends + 2 * axis)
            store(at_bonded + passed, rows, ends + 2 * axis + 1)
            shift = shift + passed
        scale = rows.dtype.type(1) / count
        columns = less_identity(rotation)
        move(
            group_atoms,
            group_ptr[g],
            group_ptr[g + 1],
            grad,
            grad_row,
            force * scale,
            columns,
            shift * scale,
            out,
            grad_row,
        )


@jit
def _axis_gradient(along, against, torque, arm, force, turn, unit, sine, cosine):
    """dE/dangle and dE/dunit, this but for its component along the unit vector u.

    With Y, the sum of (x - mean) g^T before the group's rotation, and Q, the axis rotation, `along` is Y u,
    `against` is Y^T u and `torque` the twist of Q Y. `arm` leads from the axis to the mean.
    """
    at_angle = dot(unit, torque + cross(apply(turn, arm), force))
    versine = type(sine)(1) - cosine
    twisted = torque * cosine + cross(unit, against) * versine - apply(turn, along) * sine + cross(arm, force)
    stretched = along + against + arm * dot(unit, force) + force * dot(unit, arm)
    return at_angle, twisted * sine + stretched * versine


@jit
def _macro_torques(first, last, slot, b, tree, grad_motion, work):
    macro_ptr, macro_groups, rows, sines, cosines = (
        tree.macro_ptr,
        tree.macro_groups,
        work.rows,
        work.sines,
        work.cosines,
    )
    frames, _, _, _, turns = places(slot, tree)
    for m in range(first, last):
        torque = _total(macro_groups, macro_ptr[m], macro_ptr[m + 1], rows, frames + MOMENT)
        store(
            euler_gradient(torque, sines, cosines, turns + 3 * m), grad_motion.macro_euler, b * (macro_ptr.size - 1) + m
        )


@jit
def _ends(slot, row, still, tree, out, work):
    """Give the points of axes what these pass to them, in the order of the axes, and fixed points nothing."""
    anchors, bonded, rows = tree.axis_anchor, tree.axis_bonded, work.rows
    _, _, ends, _, _ = places(slot, tree)
    for axis in range(anchors.size):
        store(load(out, row + bonded[axis]) + load(rows, ends + 2 * axis), out, row + bonded[axis])
        store(load(out, row + anchors[axis]) - load(rows, ends + 2 * axis + 1), out, row + anchors[axis])
    for i in range(still.size):
        store(zero(out), out, row + still[i])
