"""The definition in NumPy float64, one conformation and one group after the other."""

from __future__ import annotations

from typing import Any

import numpy as np

from .problem import Motion, Tree
from .reference_energy import energy as energy

Array = np.ndarray[Any, Any]


def transform(positions: Array, motion: Motion, tree: Tree, macro_pivot: bool, out: Array) -> None:
    """Write the transformed `positions` (B or 1, N, 3) into `out` (B, N, 3); `macro_pivot` turns macro-groups whole."""
    for b in range(len(out)):
        out[b] = _stages(positions[b % len(positions)], _member(motion, b), tree, macro_pivot)[-1]


def transform_backward(
    grad: Array, positions: Array, motion: Motion, tree: Tree, macro_pivot: bool, grad_motion: Motion, out: Array
) -> None:
    """Given dE/dtransformed `grad` (B, N, 3), write dE/dparameters and, into `out` (B, N, 3), dE/dpositions."""
    for b in range(len(out)):
        given, found = _member(motion, b), [np.zeros_like(each) for each in _member(motion, b)]
        d_translation, d_euler, d_axis, d_macro_translation, d_macro_euler = found
        start, turned, grouped, _ = _stages(positions[b % len(positions)], given, tree, macro_pivot)
        g = grad[b].astype(np.float64)
        for m, points in _macro_parts(tree, macro_pivot):
            g[points], force, angles = _turn_backward(g[points], grouped[points], given.macro_euler[m])
            d_macro_translation[m] += force
            d_macro_euler[m] += angles
        for number, points in enumerate(_groups(tree)):
            g[points], d_translation[number], d_euler[number] = _turn_backward(
                g[points], turned[points], given.euler[number]
            )
        passed = g.copy()
        for number, points in enumerate(_groups(tree)):
            axis = tree.axis_of_group[number]
            if axis >= 0:
                anchor, bonded = tree.axis_anchor[axis], tree.axis_bonded[axis]
                at_points, at_anchor, at_bonded, d_axis[axis] = _swing_backward(
                    g[points], start[points], start[anchor], start[bonded], given.axis[axis]
                )
                passed[points] += at_points - g[points]
                passed[anchor] += at_anchor
                passed[bonded] += at_bonded
        passed[np.asarray(tree.fixed) != 0] = 0
        out[b] = passed
        for target, value in zip(grad_motion, found, strict=True):
            target[b] = value


def adam(
    parameter: Array,
    gradient: Array,
    first: Array,
    second: Array,
    rate: float,
    step: int,
    beta1: float,
    beta2: float,
    epsilon: float,
    clip: float,
) -> None:
    """Step number `step`, counted from 1, of flat arrays; `parameter`, `first` and `second` are updated."""
    g = np.clip(gradient.astype(np.float64), -clip, clip)
    m = beta1 * first.astype(np.float64) + (1 - beta1) * g
    v = beta2 * second.astype(np.float64) + (1 - beta2) * g * g
    parameter -= (rate * (m / (1 - beta1**step)) / (np.sqrt(v / (1 - beta2**step)) + epsilon)).astype(parameter.dtype)
    first[...], second[...] = m, v


def rotation(euler: Array) -> tuple[Array, Array]:
    """R = Rz(a) Ry(b) Rx(c), and its derivatives (3, 3, 3) with respect to a, b and c."""
    factors = [_about(axis, angle) for axis, angle in zip((2, 1, 0), euler, strict=True)]
    values = [f for f, _ in factors]
    derivatives = np.empty((3, 3, 3))
    for number in range(3):
        z, y, x = values[:number] + [factors[number][1]] + values[number + 1 :]
        derivatives[number] = z @ y @ x
    return values[0] @ values[1] @ values[2], derivatives


def _about(axis: int, angle: float) -> tuple[Array, Array]:
    """The right-handed rotation about a coordinate axis, and its derivative."""
    cross = np.zeros((3, 3))
    cross[(axis + 2) % 3, (axis + 1) % 3], cross[(axis + 1) % 3, (axis + 2) % 3] = 1, -1
    plane = -cross @ cross
    c, s = np.cos(angle), np.sin(angle)
    return np.eye(3) + (c - 1) * plane + s * cross, -s * plane + c * cross


def _member(motion: Motion, b: int) -> Motion:
    return Motion(*(each[b].astype(np.float64) for each in motion))


def _groups(tree: Tree) -> list[Array]:
    return [tree.group_atoms[a:z] for a, z in zip(tree.group_ptr[:-1], tree.group_ptr[1:], strict=True)]


def _macro_parts(tree: Tree, whole: bool) -> list[tuple[int, Array]]:
    """The sets of points that turn together in the last stage, each with its macro-group."""
    groups = _groups(tree)
    parts: list[tuple[int, Array]] = []
    for m, (a, z) in enumerate(zip(tree.macro_ptr[:-1], tree.macro_ptr[1:], strict=True)):
        members = [groups[g] for g in tree.macro_groups[a:z]]
        parts += [(m, np.concatenate(members))] if whole and members else [(m, points) for points in members]
    return parts


def _stages(positions: Array, motion: Motion, tree: Tree, macro_pivot: bool) -> tuple[Array, Array, Array, Array]:
    """The points at the start, after the axes, after the groups and after the macro-groups."""
    start = positions.astype(np.float64)
    turned = start.copy()
    for number, points in enumerate(_groups(tree)):
        axis = tree.axis_of_group[number]
        if axis >= 0:
            ends = start[tree.axis_anchor[axis]], start[tree.axis_bonded[axis]]
            turned[points] = _swing(start[points], *ends, motion.axis[axis])
    grouped = turned.copy()
    for number, points in enumerate(_groups(tree)):
        grouped[points] = _turn(turned[points], motion.euler[number]) + motion.translation[number]
    final = grouped.copy()
    for m, points in _macro_parts(tree, macro_pivot):
        final[points] = _turn(grouped[points], motion.macro_euler[m]) + motion.macro_translation[m]
    return start, turned, grouped, final


def _turn(x: Array, euler: Array) -> Array:
    mean = x.mean(0)
    turned: Array = (x - mean) @ rotation(euler)[0].T + mean
    return turned


def _turn_backward(g: Array, x: Array, euler: Array) -> tuple[Array, Array, Array]:
    """dE/dx, dE/dtranslation and dE/deuler."""
    turned, derivatives = rotation(euler)
    force, mean = g.sum(0), x.mean(0)
    angles = np.einsum("aij,ni,nj->a", derivatives, g, x - mean)
    return g @ turned + (force - force @ turned) / len(x), force, angles


def _swing(x: Array, anchor: Array, bonded: Array, angle: float) -> Array:
    u = (bonded - anchor) / np.linalg.norm(bonded - anchor)
    r = x - anchor
    along = (r @ u)[:, None] * u
    across = r - along
    swung: Array = anchor + along + across * np.cos(angle) + np.cross(u, across) * np.sin(angle)
    return swung


def _swing_backward(
    g: Array, x: Array, anchor: Array, bonded: Array, angle: float
) -> tuple[Array, Array, Array, float]:
    """dE/dx, dE/danchor, dE/dbonded and dE/dangle."""
    length = np.linalg.norm(bonded - anchor)
    u = (bonded - anchor) / length
    r = x - anchor
    c, s = np.cos(angle), np.sin(angle)
    across = r - (r @ u)[:, None] * u
    at_angle = np.sum(g * (np.cross(u, across) * c - across * s))
    at_r = c * g - s * np.cross(u, g) + (1 - c) * (g @ u)[:, None] * u
    at_u = s * np.cross(r, g).sum(0) + (1 - c) * ((g @ u) @ r + (r @ u) @ g)
    at_bonded = (at_u - (at_u @ u) * u) / length
    return at_r, (g - at_r).sum(0) - at_bonded, at_bonded, at_angle
