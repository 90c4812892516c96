"""Sums over the points of groups and over the groups of macro-groups, in an order that only the tree decides."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .gpu_core import cross, euler_gradient, less_identity, load3, minus, plus, rotation, store3, turned
from .problem import Motion, Tree

ELEMENTS = 256
"""Points of a program at a time, over all of its groups."""

MEMBERS = 32
"""Groups of a macro-group at a time."""


@triton.jit
def _sums_kernel(
    x_ptr, grad_ptr, group_ptr, atoms_ptr, out_ptr, x_stride, B, N, G, GROUPS: tl.constexpr, LANES: tl.constexpr
):  # fmt: skip
    """The mean of each group; with `grad` also sum g and sum (x - mean) g^T."""
    b = (tl.program_id(0) % B).to(tl.int64)
    g = (tl.program_id(0) // B).to(tl.int64) * GROUPS + tl.arange(0, GROUPS)
    inside = g < G
    first = tl.load(group_ptr + g, mask=inside, other=0)
    count = tl.load(group_ptr + g + 1, mask=inside, other=0) - first
    longest = tl.max(count, axis=0)
    lane = tl.arange(0, LANES)[None, :]
    sx = tl.zeros((GROUPS, LANES), tl.float64)
    sy, sz = sx, sx
    for start in range(0, longest, LANES):
        there = start + lane < count[:, None]
        atom = tl.load(atoms_ptr + first[:, None] + start + lane, mask=there, other=0)
        x = load3(x_ptr + b * x_stride + atom * 3, 1, there)
        sx, sy, sz = sx + x[0].to(tl.float64), sy + x[1].to(tl.float64), sz + x[2].to(tl.float64)
    kind = out_ptr.dtype.element_ty
    n = tl.maximum(count, 1).to(tl.float64)
    mx = (tl.sum(sx, axis=1) / n).to(kind)
    my = (tl.sum(sy, axis=1) / n).to(kind)
    mz = (tl.sum(sz, axis=1) / n).to(kind)
    rows: tl.constexpr = 3 if grad_ptr is None else 15
    row = out_ptr + b * rows * G + g
    store3(row, G, (mx, my, mz), inside)
    if grad_ptr is not None:
        fx = tl.zeros((GROUPS, LANES), kind)
        fy, fz, xx, xy, xz, yx, yy, yz, zx, zy, zz = fx, fx, fx, fx, fx, fx, fx, fx, fx, fx, fx
        for start in range(0, longest, LANES):
            there = start + lane < count[:, None]
            atom = tl.load(atoms_ptr + first[:, None] + start + lane, mask=there, other=0)
            x = load3(x_ptr + b * x_stride + atom * 3, 1, there)
            f = load3(grad_ptr + (b * N + atom) * 3, 1, there)
            dx, dy, dz = x[0] - mx[:, None], x[1] - my[:, None], x[2] - mz[:, None]
            fx, fy, fz = fx + f[0], fy + f[1], fz + f[2]
            xx, xy, xz = xx + dx * f[0], xy + dx * f[1], xz + dx * f[2]
            yx, yy, yz = yx + dy * f[0], yy + dy * f[1], yz + dy * f[2]
            zx, zy, zz = zx + dz * f[0], zy + dz * f[1], zz + dz * f[2]
        store3(row + 3 * G, G, (tl.sum(fx, axis=1), tl.sum(fy, axis=1), tl.sum(fz, axis=1)), inside)
        store3(row + 6 * G, G, (tl.sum(xx, axis=1), tl.sum(xy, axis=1), tl.sum(xz, axis=1)), inside)
        store3(row + 9 * G, G, (tl.sum(yx, axis=1), tl.sum(yy, axis=1), tl.sum(yz, axis=1)), inside)
        store3(row + 12 * G, G, (tl.sum(zx, axis=1), tl.sum(zy, axis=1), tl.sum(zz, axis=1)), inside)


@triton.jit
def _members(groups_ptr, group_ptr, start, last, BLOCK: tl.constexpr):
    """BLOCK groups of a macro-group, which of them there are, and their numbers of points."""
    k = start + tl.arange(0, BLOCK)
    there = k < last
    g = tl.load(groups_ptr + k, mask=there, other=0)
    return g, there, tl.load(group_ptr + g + 1, mask=there, other=0) - tl.load(group_ptr + g, mask=there, other=0)


@triton.jit
def _total(v):
    return (tl.sum(v[0], axis=0), tl.sum(v[1], axis=0), tl.sum(v[2], axis=0))


@triton.jit
def _pivot(centre_ptr, base_ptr, groups_ptr, group_ptr, first, last, G, BLOCK: tl.constexpr):
    """The mean of the points of a macro-group whose groups' means are `centre`, or base + centre."""
    total = tl.zeros((BLOCK,), tl.float64)
    px, py, pz = total, total, total
    for start in range(first, last, BLOCK):
        g, there, count = _members(groups_ptr, group_ptr, start, last, BLOCK)
        c = load3(centre_ptr + g, G, there)
        if base_ptr is not None:
            c = plus(c, load3(base_ptr + g, G, there))
        n = count.to(tl.float64)
        total, px, py, pz = total + n, px + n * c[0], py + n * c[1], pz + n * c[2]
    p = _total((px, py, pz))
    n = tl.sum(total, axis=0)
    kind = centre_ptr.dtype.element_ty
    return ((p[0] / n).to(kind), (p[1] / n).to(kind), (p[2] / n).to(kind))


@triton.jit
def _macro_pivots_kernel(
    means_ptr, macro_translation_ptr, macro_euler_ptr, group_ptr, macro_ptr, groups_ptr, maps_ptr, B, G, M,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Complete the shifts of a macro-group's groups, which turn about its mean."""
    b = (tl.program_id(0) % B).to(tl.int64)
    m = (tl.program_id(0) // B).to(tl.int64)
    first, last = tl.load(macro_ptr + m), tl.load(macro_ptr + m + 1)
    means, shifts = means_ptr + b * 3 * G, maps_ptr + (b * 12 + 9) * G
    p = _pivot(shifts, means, groups_ptr, group_ptr, first, last, G, BLOCK)
    whole = tl.full((), True, tl.int1)
    r = less_identity(rotation(load3(macro_euler_ptr + (b * M + m) * 3, 1, whole)))
    t = load3(macro_translation_ptr + (b * M + m) * 3, 1, whole)
    for start in range(first, last, BLOCK):
        g, there, _ = _members(groups_ptr, group_ptr, start, last, BLOCK)
        shift = load3(shifts + g, G, there)
        centre = plus(shift, load3(means + g, G, there))
        store3(shifts + g, G, plus(shift, plus(turned(r, minus(centre, p)), t)), there)


@triton.jit
def _macro_forces_kernel(
    sums_ptr, group_ptr, macro_ptr, groups_ptr, d_macro_translation_ptr, B, G, M, BLOCK: tl.constexpr
):  # fmt: skip
    b = (tl.program_id(0) % B).to(tl.int64)
    m = (tl.program_id(0) // B).to(tl.int64)
    last = tl.load(macro_ptr + m + 1)
    f = tl.zeros((BLOCK,), sums_ptr.dtype.element_ty)
    force = (f, f, f)
    for start in range(tl.load(macro_ptr + m), last, BLOCK):
        g, there, _ = _members(groups_ptr, group_ptr, start, last, BLOCK)
        force = plus(force, load3(sums_ptr + (b * 15 + 3) * G + g, G, there))
    store3(d_macro_translation_ptr + (b * M + m) * 3, 1, _total(force), None)


@triton.jit
def _macro_angles_kernel(
    sums_ptr, torques_ptr, macro_euler_ptr, group_ptr, macro_ptr, groups_ptr, d_macro_euler_ptr, B, G, M,
    WHOLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient of a macro-group's angles: of its groups' torques and, if it is `WHOLE`, of their forces."""
    b = (tl.program_id(0) % B).to(tl.int64)
    m = (tl.program_id(0) // B).to(tl.int64)
    first, last = tl.load(macro_ptr + m), tl.load(macro_ptr + m + 1)
    euler = load3(macro_euler_ptr + (b * M + m) * 3, 1, tl.full((), True, tl.int1))
    r = rotation(euler)
    torques, centres = torques_ptr + b * 6 * G, torques_ptr + (b * 6 + 3) * G
    p = _pivot(centres, None, groups_ptr, group_ptr, first, last, G, BLOCK) if WHOLE else euler
    t = tl.zeros((BLOCK,), sums_ptr.dtype.element_ty)
    twist = (t, t, t)
    for start in range(first, last, BLOCK):
        g, there, _ = _members(groups_ptr, group_ptr, start, last, BLOCK)
        twist = plus(twist, load3(torques + g, G, there))
        if WHOLE:
            force = load3(sums_ptr + (b * 15 + 3) * G + g, G, there)
            twist = plus(twist, cross(turned(r, minus(load3(centres + g, G, there), p)), force))
    store3(d_macro_euler_ptr + (b * M + m) * 3, 1, euler_gradient(euler, r, _total(twist)), None)


def sums(positions: torch.Tensor, grad: torch.Tensor | None, tree: Tree, lanes: int, out: torch.Tensor) -> None:
    """Means (B, 3, G) of the groups' points; with `grad` (B, N, 3) then also its sum and first moments, (B, 15, G)."""
    B, _, G = out.shape
    N = positions.shape[1]
    groups = ELEMENTS // lanes
    _sums_kernel[(B * triton.cdiv(G, groups),)](
        positions, grad, tree.group_ptr, tree.group_atoms, out, 3 * N if len(positions) > 1 else 0, B, N, G,
        GROUPS=groups, LANES=lanes, num_warps=4,
    )  # fmt: skip


def macro_pivots(means: torch.Tensor, motion: Motion, tree: Tree, maps: torch.Tensor) -> None:
    B, M, _ = motion.macro_euler.shape
    _macro_pivots_kernel[(B * M,)](
        means, motion.macro_translation, motion.macro_euler, tree.group_ptr, tree.macro_ptr, tree.macro_groups,
        maps, B, means.shape[2], M, BLOCK=MEMBERS, num_warps=1,
    )  # fmt: skip


def macro_forces(parts: torch.Tensor, tree: Tree, grad_motion: Motion) -> None:
    B, M, _ = grad_motion.macro_euler.shape
    _macro_forces_kernel[(B * M,)](
        parts, tree.group_ptr, tree.macro_ptr, tree.macro_groups, grad_motion.macro_translation, B, parts.shape[2], M,
        BLOCK=MEMBERS, num_warps=1,
    )  # fmt: skip


def macro_angles(
    parts: torch.Tensor, torques: torch.Tensor, motion: Motion, tree: Tree, whole: bool, grad_motion: Motion
) -> None:
    B, M, _ = motion.macro_euler.shape
    _macro_angles_kernel[(B * M,)](
        parts, torques, motion.macro_euler, tree.group_ptr, tree.macro_ptr, tree.macro_groups,
        grad_motion.macro_euler, B, parts.shape[2], M, WHOLE=whole, BLOCK=MEMBERS, num_warps=1,
    )  # fmt: skip
