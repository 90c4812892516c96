"""3T written in PyTorch, from the definition: group by group with a tape, as published; and all groups at once.

Both take lists of parameters in the order of `tiered_data.PARAMETERS` and use torch's own threads.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from pykernels.bench.tiered_torch_energy import Energy, Tensor

torch: Any = importlib.import_module("torch")
Array = np.ndarray[Any, Any]
Transform = Callable[[Sequence[Tensor], Tensor], Tensor]

CLIP = 1e11


def group_by_group(arrays: Mapping[str, Array]) -> Transform:
    """One conformation: small operations on one group after another; positions (1, N, 3)."""
    bounds, atoms = arrays["group_ptr"], torch.from_numpy(arrays["group_atoms"])
    groups = [atoms[first:last] for first, last in itertools.pairwise(bounds)]
    macro_of_group = arrays["macro_of_group"].tolist()
    ends = zip(arrays["axis_anchor"].tolist(), arrays["axis_bonded"].tolist(), strict=True)
    axes = dict(zip(arrays["axis_group"].tolist(), enumerate(ends), strict=True))

    def transform(parameters: Sequence[Tensor], positions: Tensor) -> Tensor:
        translation, euler, axis, macro_translation, macro_euler = (each[0] for each in parameters)
        x, moved = positions[0], []
        for number, members in enumerate(groups):
            points = x[members]
            if number in axes:
                turn, (anchor, bonded) = axes[number]
                points = _swing(points, x[anchor], x[bonded], axis[turn])
            mean = points.mean(0)
            points = (points - mean) @ _rotation(euler[number]).T + mean + translation[number]
            macro = macro_of_group[number]
            if macro >= 0:
                mean = points.mean(0)
                points = (points - mean) @ _rotation(macro_euler[macro]).T + mean + macro_translation[macro]
            moved.append(points)
        return x.index_copy(0, atoms, torch.cat(moved))[None]

    return transform


def all_groups(arrays: Mapping[str, Array]) -> Transform:
    """Any number of conformations: means by scattered sums, rotations gathered to the atoms; positions (B, N, 3)."""
    atoms = torch.from_numpy(arrays["group_atoms"])
    sizes = np.diff(arrays["group_ptr"])
    group = torch.from_numpy(np.repeat(np.arange(len(sizes)), sizes))
    share = torch.from_numpy((1 / sizes).astype(np.float32))[:, None]
    turning = np.isin(group.numpy(), arrays["axis_group"])
    axis_of_group = np.zeros(len(sizes), np.int64)
    axis_of_group[arrays["axis_group"]] = np.arange(len(arrays["axis_group"]))
    on_axis, axis_of = torch.from_numpy(np.flatnonzero(turning)), axis_of_group[group.numpy()[turning]]
    anchor, bonded = (torch.from_numpy(arrays[name][axis_of]) for name in ("axis_anchor", "axis_bonded"))
    in_macro = torch.from_numpy(np.flatnonzero(arrays["macro_of_group"] >= 0))
    macro = torch.from_numpy(arrays["macro_of_group"])[in_macro]

    def means(points: Tensor) -> Tensor:
        empty = points.new_zeros(len(points), len(sizes), 3)
        return empty.index_add(1, group, points) * share

    def transform(parameters: Sequence[Tensor], positions: Tensor) -> Tensor:
        translation, euler, axis, macro_translation, macro_euler = parameters
        points = positions[:, atoms]
        swung = _swing(points[:, on_axis], positions[:, anchor], positions[:, bonded], axis[:, axis_of])
        points = points.index_copy(1, on_axis, swung)
        mean = means(points)
        # the mean of a turned group is its mean and translation, so both tiers are one turn of each group
        turn, shift = _rotation(euler), translation
        if len(in_macro):
            turn = turn.index_copy(1, in_macro, _rotation(macro_euler)[:, macro] @ turn[:, in_macro])
            shift = shift.index_add(1, in_macro, macro_translation[:, macro])
        turned = (turn[:, group] @ (points - mean[:, group])[..., None])[..., 0] + (mean + shift)[:, group]
        return positions.index_copy(1, atoms, turned)

    return transform


def forward_backward(
    transform: Transform, parameters: Sequence[Array], positions: Array, grad: Array
) -> Callable[[], Any]:
    """The transformed positions, and the gradients with respect to parameters and positions."""
    leaves = [torch.tensor(each, requires_grad=True) for each in (*parameters, positions)]
    given = torch.from_numpy(grad)

    def run() -> tuple[Array, list[Array]]:
        out = transform(leaves[:-1], leaves[-1])
        found = torch.autograd.grad(out, leaves, given)
        return out.detach().numpy(), [each.numpy() for each in found]

    return run


def energy_and_gradient(energy: Energy, positions: Array) -> Callable[[], tuple[Array, Array]]:
    leaf = torch.tensor(positions, requires_grad=True)

    def run() -> tuple[Array, Array]:
        total = energy(leaf)
        (gradient,) = torch.autograd.grad(total.sum(), leaf)
        return total.detach().numpy(), gradient.numpy()

    return run


def descent(
    transform: Transform,
    energy: Energy,
    arrays: Mapping[str, Array],
    parameters: Sequence[Array],
    positions: Array,
    rate: float,
) -> Callable[[], Array]:
    """A step of gradient descent a call; the energies before it."""
    leaves = [torch.tensor(each, requires_grad=True) for each in (*parameters, positions)]
    optimiser = torch.optim.Adam(leaves, lr=rate)
    fixed = torch.from_numpy(arrays["fixed_atoms"])

    def run() -> Array:
        optimiser.zero_grad()
        total = energy(transform(leaves[:-1], leaves[-1]))
        total.sum().backward()
        leaves[-1].grad[:, fixed] = 0
        torch.nn.utils.clip_grad_value_(leaves, CLIP)
        optimiser.step()
        found: Array = total.detach().numpy()
        return found

    return run


def _rotation(euler: Tensor) -> Tensor:
    """Rz(a) Ry(b) Rx(c) of angles (..., 3)."""
    ca, cb, cc = torch.cos(euler).unbind(-1)
    sa, sb, sc = torch.sin(euler).unbind(-1)
    first = ca * cb, ca * sb * sc - sa * cc, ca * sb * cc + sa * sc
    second = sa * cb, sa * sb * sc + ca * cc, sa * sb * cc - ca * sc
    return torch.stack((*first, *second, -sb, cb * sc, cb * cc), -1).unflatten(-1, (3, 3))


def _swing(points: Tensor, anchor: Tensor, bonded: Tensor, angle: Tensor) -> Tensor:
    """Points turned by `angle` about the line from `anchor` to `bonded`."""
    along = bonded - anchor
    u = (along / along.norm(dim=-1, keepdim=True)).expand_as(points)
    r = points - anchor
    on_line = (r * u).sum(-1, keepdim=True) * u
    across = r - on_line
    c, s = torch.cos(angle)[..., None], torch.sin(angle)[..., None]
    return anchor + on_line + across * c + torch.linalg.cross(u, across) * s
