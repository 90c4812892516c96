"""The transform twice more, without code of the kernels: by SciPy's rotations, and in torch for its gradient."""

from __future__ import annotations

import numpy as np

from pykernels._checking import on
from pykernels.kernels.tiered import cases
from pykernels.tiered import Parameters, Tiers


def random_case(name, batch=2, dtype=np.float64, shared=False, seed=0, scale=1.0):
    """Tiers, parameters and positions of a case of `cases.TREES`."""
    n, options = cases.TREES[name]
    tiers = Tiers(**cases.tiers(n, seed=seed, **options))
    motion = cases.motion(batch, tiers.n_groups, tiers.n_axes, tiers.n_macros, dtype, seed + 1, scale)
    positions = cases.positions((n,) if shared else (batch, n), dtype, seed + 2)
    return tiers, Parameters(*motion), positions


def moved(backend, *arrays):
    """`arrays`, some of them Parameters, where a backend takes them."""
    return [
        Parameters(*(on(backend, part) for part in each)) if isinstance(each, tuple) else on(backend, each)
        for each in arrays
    ]


def as_numpy(x):
    return x if isinstance(x, np.ndarray) else x.detach().cpu().numpy()


def members(tiers):
    """The atoms of each group."""
    return [tiers.group_atoms[a:z] for a, z in zip(tiers.group_ptr[:-1], tiers.group_ptr[1:], strict=True)]


def macro_sets(tiers, pivot):
    """What turns together in the last stage, and by which macro-group."""
    groups = members(tiers)
    if pivot == "micro":
        return [(m, atoms) for m, atoms in zip(tiers.macro_of_group, groups, strict=True) if m >= 0]
    sets = [
        (m, [g for g, k in zip(groups, tiers.macro_of_group, strict=True) if k == m]) for m in range(tiers.n_macros)
    ]
    return [(m, np.concatenate(parts)) for m, parts in sets if parts]


def by_scipy(params, tiers, positions, pivot):
    """The transform in float64, a group at a time."""
    from scipy.spatial.transform import Rotation

    def turn(points, euler):
        mean = points.mean(0)
        return Rotation.from_euler("ZYX", euler).apply(points - mean) + mean

    params = [np.asarray(each, np.float64) for each in params]
    translation, euler, axis, macro_translation, macro_euler = params
    batch = len(axis)
    start = np.broadcast_to(positions, (batch, *positions.shape[-2:])).astype(np.float64)
    out = start.copy()
    for b in range(batch):
        for i in range(tiers.n_axes):
            atoms = members(tiers)[tiers.axis_group[i]]
            anchor, bonded = start[b, tiers.axis_anchor[i]], start[b, tiers.axis_bonded[i]]
            about = Rotation.from_rotvec(axis[b, i] * (bonded - anchor) / np.linalg.norm(bonded - anchor))
            out[b, atoms] = about.apply(start[b, atoms] - anchor) + anchor
        for g, atoms in enumerate(members(tiers)):
            out[b, atoms] = turn(out[b, atoms], euler[b, g]) + translation[b, g]
        for m, atoms in macro_sets(tiers, pivot):
            out[b, atoms] = turn(out[b, atoms], macro_euler[b, m]) + macro_translation[b, m]
    return out


def by_torch(params, tiers, positions, pivot):
    """The transform of float64 tensors, by Rodrigues' formula; torch differentiates it."""
    import torch

    generators = torch.zeros(3, 3, 3, dtype=torch.float64)
    for i, (j, k) in enumerate(((1, 2), (2, 0), (0, 1))):
        generators[i, k, j], generators[i, j, k] = 1, -1

    def rotation(unit, angle):
        cross = torch.einsum("i,ijk->jk", unit, generators)
        return torch.eye(3, dtype=torch.float64) + angle.sin() * cross + (1 - angle.cos()) * cross @ cross

    def turn(points, euler):
        x, y, z = torch.eye(3, dtype=torch.float64)
        a, b, c = euler
        mean = points.mean(0)
        return (points - mean) @ (rotation(z, a) @ rotation(y, b) @ rotation(x, c)).T + mean

    translation, euler, axis, macro_translation, macro_euler = params
    batch = len(axis)
    start = positions.expand(batch, *positions.shape[-2:])
    results = []
    for b in range(batch):
        x = start[b]
        for i in range(tiers.n_axes):
            atoms = torch.from_numpy(members(tiers)[tiers.axis_group[i]].copy())
            anchor, bonded = start[b, tiers.axis_anchor[i]], start[b, tiers.axis_bonded[i]]
            about = rotation((bonded - anchor) / (bonded - anchor).norm(), axis[b, i])
            x = x.index_put((atoms,), (start[b, atoms] - anchor) @ about.T + anchor)
        for g, atoms in enumerate(members(tiers)):
            atoms = torch.from_numpy(atoms.copy())
            x = x.index_put((atoms,), turn(x[atoms], euler[b, g]) + translation[b, g])
        for m, atoms in macro_sets(tiers, pivot):
            atoms = torch.from_numpy(atoms.copy())
            x = x.index_put((atoms,), turn(x[atoms], macro_euler[b, m]) + macro_translation[b, m])
        results.append(x)
    return torch.stack(results) if batch else start


def gradients_by_torch(grad, params, tiers, positions, pivot):
    """dE/dparams and dE/dpositions in float64, 0 for fixed atoms."""
    import torch

    leaves = [torch.tensor(np.asarray(each, np.float64), requires_grad=True) for each in (*params, positions)]
    out = by_torch(leaves[:5], tiers, leaves[5], pivot)
    found = torch.autograd.grad(out, leaves, torch.from_numpy(grad.astype(np.float64)), allow_unused=True)
    values = [np.zeros(leaf.shape) if g is None else g.numpy() for g, leaf in zip(found, leaves, strict=True)]
    values[5][..., tiers.fixed_atoms, :] = 0
    return values
