"""The transform and its gradient: sums over each group, a program lane per group, then a lane per point.

The three rotations of a group are one, T = R_M R S, so that a point moves to x + (T - 1) (x - mean) + shift
with twelve numbers of its group. Backward, F = sum g and K = sum (x - mean) g^T of each group give every
gradient: T K holds the torque, from which the angles' gradients follow level by level.

Bytes: positions are read twice and written once forward, read twice, with `grad` twice, and written once
backward; what is kept by group is about as much again for groups of eight points.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .._triton import on_device_of
from .gpu_core import (
    axis_rotation,
    chosen,
    cross,
    dot,
    euler_gradient,
    less_identity,
    load3,
    load9,
    minus,
    plus,
    product,
    rotation,
    scaled,
    store3,
    store9,
    torque,
    turned,
    turned_back,
)
from .gpu_plan import TreePlan, plan_of_tree
from .gpu_reduce import macro_angles, macro_forces, macro_pivots, sums
from .problem import Motion, Tree

GROUPS, POINTS = 64, 256
"""Groups, and points, of a program that gives each a lane."""


@triton.jit
def _axis(x_ptr, base, axis_ptr, anchor_ptr, bonded_ptr, b, axis, axes):
    """The rotation about the axis, the axis' unit vector, its length, sine, 1 - cosine, and anchor; none where -1."""
    has = axis >= 0
    anchor = tl.load(anchor_ptr + axis, mask=has, other=0)
    bonded = tl.load(bonded_ptr + axis, mask=has, other=0)
    a = load3(x_ptr + base + anchor * 3, 1, has)
    v = minus(load3(x_ptr + base + bonded * 3, 1, has), a)
    length = tl.sqrt(tl.where(has, dot(v, v), 1.0))
    u = (v[0] / length, v[1] / length, v[2] / length)
    half = 0.5 * tl.load(axis_ptr + b * axes + axis, mask=has, other=0.0)
    s = tl.sin(half)
    sine, versine = 2.0 * s * tl.cos(half), 2.0 * s * s
    return axis_rotation(u, sine, versine), u, length, sine, versine, a


@triton.jit
def _maps_kernel(
    x_ptr, sums_ptr, translation_ptr, euler_ptr, axis_ptr, macro_translation_ptr, macro_euler_ptr,
    macro_ptr, axis_of_group_ptr, anchor_ptr, bonded_ptr, maps_ptr, x_stride, B, G, A, M,
    WHOLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """T - 1 and the shift of each group; with `WHOLE` macro-groups their part of the shift is still missing."""
    b = (tl.program_id(0) % B).to(tl.int64)
    g = (tl.program_id(0) // B).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = g < G
    macro = tl.load(macro_ptr + g, mask=inside, other=-1)
    axis = tl.load(axis_of_group_ptr + g, mask=inside, other=-1)
    in_macro = macro >= 0
    mean = load3(sums_ptr + b * 3 * G + g, G, inside)
    s, _, _, _, _, anchor = _axis(x_ptr, b * x_stride, axis_ptr, anchor_ptr, bonded_ptr, b, axis, A)
    r_macro = rotation(load3(macro_euler_ptr + (b * M + macro) * 3, 1, in_macro))
    r = rotation(load3(euler_ptr + (b * G + g) * 3, 1, inside))
    t = less_identity(product(product(r_macro, r), s))
    shift = plus(turned(less_identity(s), minus(mean, anchor)), load3(translation_ptr + (b * G + g) * 3, 1, inside))
    if not WHOLE:
        shift = plus(shift, load3(macro_translation_ptr + (b * M + macro) * 3, 1, in_macro))
    store9(maps_ptr + b * 12 * G + g, G, t, inside)
    store3(maps_ptr + (b * 12 + 9) * G + g, G, shift, inside)


@triton.jit
def _move_kernel(
    x_ptr, sums_ptr, maps_ptr, group_of_point_ptr, out_ptr, x_stride, B, N, G, BLOCK: tl.constexpr
):  # fmt: skip
    b = (tl.program_id(0) % B).to(tl.int64)
    point = (tl.program_id(0) // B).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = point < N
    g = tl.load(group_of_point_ptr + point, mask=inside, other=-1)
    grouped = g >= 0
    x = load3(x_ptr + b * x_stride + point * 3, 1, inside)
    mean = load3(sums_ptr + b * 3 * G + g, G, grouped)
    t = load9(maps_ptr + b * 12 * G + g, G, grouped)
    step = plus(turned(t, minus(x, mean)), load3(maps_ptr + (b * 12 + 9) * G + g, G, grouped))
    store3(out_ptr + (b * N + point) * 3, 1, chosen(grouped, plus(x, step), x), inside)


@triton.jit
def _groups_backward_kernel(
    x_ptr, sums_ptr, translation_ptr, euler_ptr, axis_ptr, macro_euler_ptr, group_ptr, macro_ptr, macro_size_ptr,
    axis_of_group_ptr, anchor_ptr, bonded_ptr, d_translation_ptr, d_euler_ptr, d_axis_ptr, d_macro_translation_ptr,
    maps_ptr, ends_ptr, torques_ptr, x_stride, B, G, A, M, WHOLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of each group's parameters, the map (T, q) of its points' gradients T^T g + q, and its torque."""
    b = (tl.program_id(0) % B).to(tl.int64)
    g = (tl.program_id(0) // B).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = g < G
    macro = tl.load(macro_ptr + g, mask=inside, other=-1)
    axis = tl.load(axis_of_group_ptr + g, mask=inside, other=-1)
    in_macro = macro >= 0
    count = tl.load(group_ptr + g + 1, mask=inside, other=1) - tl.load(group_ptr + g, mask=inside, other=0)
    row = sums_ptr + b * 15 * G + g
    mean, force, k = load3(row, G, inside), load3(row + 3 * G, G, inside), load9(row + 6 * G, G, inside)
    n = count.to(mean[0].dtype)
    s, u, length, sine, versine, anchor = _axis(
        x_ptr, b * x_stride, axis_ptr, anchor_ptr, bonded_ptr, b, axis, A
    )  # fmt: skip
    r_macro = rotation(load3(macro_euler_ptr + (b * M + macro) * 3, 1, in_macro))
    euler = load3(euler_ptr + (b * G + g) * 3, 1, inside)
    r = rotation(euler)
    both = product(r_macro, r)
    t = product(both, s)
    about_mean = torque(product(t, k))

    whole_force, whole_n = force, n
    if WHOLE:
        whole_force = chosen(in_macro, load3(d_macro_translation_ptr + (b * M + macro) * 3, 1, in_macro), force)
        whole_n = tl.where(in_macro, tl.load(macro_size_ptr + macro, mask=in_macro, other=1).to(n.dtype), n)
    spread = scaled(1.0 / whole_n, minus(whole_force, turned_back(r_macro, whole_force)))
    pulled = plus(turned_back(r_macro, force), scaled(n, spread))
    twisted = turned_back(r_macro, about_mean)
    q = plus(turned_back(r, spread), scaled(1.0 / n, minus(pulled, turned_back(r, pulled))))
    store3(d_translation_ptr + (b * G + g) * 3, 1, pulled, inside)
    store3(d_euler_ptr + (b * G + g) * 3, 1, euler_gradient(euler, r, twisted), inside)
    store9(maps_ptr + b * 12 * G + g, G, t, inside)
    store3(maps_ptr + (b * 12 + 9) * G + g, G, turned_back(s, q), inside)
    store3(torques_ptr + b * 6 * G + g, G, about_mean, inside)
    if WHOLE:
        centre = plus(mean, turned(less_identity(s), minus(mean, anchor)))
        centre = plus(centre, load3(translation_ptr + (b * G + g) * 3, 1, inside))
        store3(torques_ptr + (b * 6 + 3) * G + g, G, centre, inside)

    has = axis >= 0
    arm = minus(mean, anchor)
    c = product(k, both)  # becomes sum (x - anchor) g^T, of the gradients that the axis rotation receives
    p0, p1, p2 = scaled(arm[0], pulled), scaled(arm[1], pulled), scaled(arm[2], pulled)
    c = (
        c[0] + p0[0], c[1] + p0[1], c[2] + p0[2],
        c[3] + p1[0], c[4] + p1[1], c[5] + p1[2],
        c[6] + p2[0], c[7] + p2[1], c[8] + p2[2],
    )  # fmt: skip
    at_angle = dot(u, plus(turned_back(r, twisted), cross(turned(s, arm), pulled)))
    at_u = plus(scaled(sine, torque(c)), scaled(versine, plus(turned(c, u), turned_back(c, u))))
    at_bonded = scaled(1.0 / length, minus(at_u, scaled(dot(at_u, u), u)))
    at_anchor = minus(minus(pulled, turned_back(s, pulled)), at_bonded)
    tl.store(d_axis_ptr + b * A + axis, at_angle, mask=has)
    store3(ends_ptr + b * 6 * A + axis, 2 * A, at_anchor, has)
    store3(ends_ptr + b * 6 * A + A + axis, 2 * A, at_bonded, has)


@triton.jit
def _pull_kernel(
    grad_ptr, maps_ptr, group_of_point_ptr, fixed_ptr, end_ptr, end_list_ptr, ends_ptr, out_ptr, B, N, G, A,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The points' gradients: what their group's map makes of `grad`, and what axes give to their ends."""
    b = (tl.program_id(0) % B).to(tl.int64)
    point = (tl.program_id(0) // B).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = point < N
    g = tl.load(group_of_point_ptr + point, mask=inside, other=-1)
    grouped = g >= 0
    x = load3(grad_ptr + (b * N + point) * 3, 1, inside)
    t = load9(maps_ptr + b * 12 * G + g, G, grouped)
    q = load3(maps_ptr + (b * 12 + 9) * G + g, G, grouped)
    x = chosen(grouped, plus(turned_back(t, x), q), x)
    first = tl.load(end_ptr + point, mask=inside, other=0)
    count = tl.load(end_ptr + point + 1, mask=inside, other=0) - first
    for k in range(tl.max(count, axis=0)):
        there = k < count
        end = tl.load(end_list_ptr + first + k, mask=there, other=0)
        x = plus(x, load3(ends_ptr + b * 6 * A + end, 2 * A, there))
    free = tl.load(fixed_ptr + point, mask=inside, other=0) == 0
    store3(out_ptr + (b * N + point) * 3, 1, chosen(free, x, (0.0, 0.0, 0.0)), inside)


def transform(positions: torch.Tensor, motion: Motion, tree: Tree, macro_pivot: bool, out: torch.Tensor) -> None:
    """Write the transformed `positions` (B or 1, N, 3) into `out` (B, N, 3); `macro_pivot` turns macro-groups whole."""
    B, N = out.shape[:2]
    if B == 0 or N == 0:
        return
    plan: TreePlan = plan_of_tree(tree)
    G, A, M = len(tree.macro_of_group), len(tree.axis_anchor), motion.macro_euler.shape[1]
    stride = 3 * N if len(positions) > 1 else 0
    means, maps = out.new_empty(B, 3, G), out.new_empty(B, 12, G)
    with on_device_of(out):
        if G:
            sums(positions, None, tree, plan.lanes, means)
            _maps_kernel[(B * triton.cdiv(G, GROUPS),)](
                positions, means, *motion, tree.macro_of_group, tree.axis_of_group, tree.axis_anchor, tree.axis_bonded,
                maps, stride, B, G, A, M, WHOLE=macro_pivot, BLOCK=GROUPS, num_warps=2,
            )  # fmt: skip
        if M and macro_pivot:
            macro_pivots(means, motion, tree, maps)
        _move_kernel[(B * triton.cdiv(N, POINTS),)](
            positions, means, maps, plan.group_of_point, out, stride, B, N, G, BLOCK=POINTS, num_warps=4
        )


def transform_backward(
    grad: torch.Tensor,
    positions: torch.Tensor,
    motion: Motion,
    tree: Tree,
    macro_pivot: bool,
    grad_motion: Motion,
    out: torch.Tensor,
) -> None:
    """Given dE/dtransformed `grad` (B, N, 3), write dE/dparameters and, into `out` (B, N, 3), dE/dpositions."""
    B, N = out.shape[:2]
    if B == 0:
        return
    plan: TreePlan = plan_of_tree(tree)
    G, A, M = len(tree.macro_of_group), len(tree.axis_anchor), motion.macro_euler.shape[1]
    stride = 3 * N if len(positions) > 1 else 0
    parts, maps, torques = out.new_empty(B, 15, G), out.new_empty(B, 12, G), out.new_empty(B, 6, G)
    ends = out.new_empty(B, 3, 2 * A)
    with on_device_of(out):
        if G:
            sums(positions, grad, tree, plan.lanes, parts)
        if M:
            macro_forces(parts, tree, grad_motion)
        if G:
            _groups_backward_kernel[(B * triton.cdiv(G, GROUPS),)](
                positions, parts, *motion[:3], motion.macro_euler, tree.group_ptr, tree.macro_of_group,
                plan.macro_size, tree.axis_of_group, tree.axis_anchor, tree.axis_bonded, *grad_motion[:4],
                maps, ends, torques, stride, B, G, A, M, WHOLE=macro_pivot, BLOCK=GROUPS, num_warps=2,
            )  # fmt: skip
        if M:
            macro_angles(parts, torques, motion, tree, macro_pivot, grad_motion)
        if N:
            _pull_kernel[(B * triton.cdiv(N, POINTS),)](
                grad, maps, plan.group_of_point, tree.fixed, plan.end_ptr, plan.ends, ends, out, B, N, G, A,
                BLOCK=POINTS, num_warps=4,
            )  # fmt: skip
