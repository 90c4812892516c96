"""The energy of 3T in PyTorch: dense distances on a tape, as published; and rows of the half matrix, without one."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pykernels.bench.tiered_data import excluded

torch: Any = importlib.import_module("torch")
Array = np.ndarray[Any, Any]
Tensor = Any
Energy = Callable[[Tensor], Tensor]

COS_LIMIT = 0.999999
SHORTEST = 0.01
BLOCK = 1 << 18
"""Pairs at once, which keeps their temporaries in cache."""


def dense(arrays: Mapping[str, Array]) -> Energy:
    """Totals of positions (1, N, 3): N x N distances, masked."""
    count = len(arrays["positions"])
    wanted = torch.ones(count, count, dtype=torch.bool).triu(1)
    wanted[tuple(torch.from_numpy(excluded(arrays)).T)] = False
    i, j = wanted.nonzero().unbind(1)
    kind = torch.from_numpy(arrays["atom_type"])
    epsilon, sigma = (_float(arrays[name])[kind[i], kind[j]] for name in ("epsilon", "sigma"))
    charge = _float(arrays["charge"] * np.sqrt(arrays["coulomb_constant"]))
    qq = charge[i] * charge[j]
    cutoff = float(arrays["lj_cutoff"])
    bonded = terms_of_lists(arrays)

    def energy(positions: Tensor) -> Tensor:
        x = positions[0]
        away = x[:, None] - x
        r = ((away**2).sum(-1) + torch.eye(count)).sqrt()[wanted].clamp(min=SHORTEST)
        s6 = (sigma / r) ** 6
        lj = torch.where(r < cutoff, 4 * epsilon * (s6 * s6 - s6), 0)
        return bonded(positions) + lj.sum() + (qq / r).sum()

    return energy


def half_matrix(arrays: Mapping[str, Array]) -> Energy:
    """Totals of positions (B, N, 3): closed forms on rows of the upper triangle, pairs of fixed atoms but once."""
    fixed = np.isin(np.arange(len(arrays["positions"])), arrays["fixed_atoms"])
    order = np.argsort(fixed, kind="stable")
    movable, count = int(np.sum(~fixed)), len(order)
    charge = arrays["charge"] * np.sqrt(arrays["coulomb_constant"])
    kind = arrays["atom_type"][order]
    wanted = np.ones((count, count), bool)
    wanted[tuple(excluded(arrays).T)] = wanted[tuple(excluded(arrays).T[::-1])] = False
    wanted = np.triu(wanted[np.ix_(order, order)], 1)
    repulsion, dispersion = (
        _float(np.where(wanted, (4 * arrays["epsilon"] * arrays["sigma"] ** power)[np.ix_(kind, kind)], 0))
        for power in (12, 6)
    )
    qq = _float(np.where(wanted, np.outer(charge[order], charge[order]), 0))
    cutoff2, places, bonded = float(arrays["lj_cutoff"]) ** 2, torch.from_numpy(order), terms_of_lists(arrays)

    def rows(x: Tensor, first: int, last: int, g: Tensor) -> Tensor:
        d = x[:, :, first:last, None] - x[:, :, None, first:]
        r2 = (d[:, 0] * d[:, 0]).addcmul_(d[:, 1], d[:, 1]).addcmul_(d[:, 2], d[:, 2]).clamp_(min=SHORTEST**2)
        inverse = r2.reciprocal()
        near = r2 < cutoff2
        coulomb = inverse.sqrt().mul_(qq[first:last, first:])
        r6 = (inverse * inverse).mul_(inverse).mul_(near)
        repelled = (r6 * r6).mul_(repulsion[first:last, first:])
        attracted = r6.mul_(dispersion[first:last, first:])
        value = (repelled - attracted).add_(coulomb).sum((1, 2))
        slope = repelled.mul_(12).sub_(attracted, alpha=6).add_(coulomb).mul_(inverse).neg_()
        force = d.mul_(slope[:, None])
        g[:, :, first:last] += force.sum(3)
        g[:, :, first:] -= force.sum(2)
        return value.double()

    def pairs(x: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        g, total = torch.zeros_like(x), torch.zeros(len(x), dtype=torch.float64)
        while start < stop:
            last = min(stop, start + max(1, BLOCK // (len(x) * (count - start))))
            total += rows(x, start, last, g)
            start = last
        return total, g

    start = _float(arrays["positions"])[None, places]
    constant = pairs(start.transpose(1, 2).contiguous(), movable, count)[0]

    def energy(positions: Tensor) -> Tensor:
        there = positions.detach()
        total, g = pairs(there[:, places].transpose(1, 2).contiguous(), 0, movable)
        gradient = torch.empty_like(there).index_copy_(1, places, g.transpose(1, 2))
        known = ((positions - there) * gradient).sum((1, 2))  # zero, with this gradient
        return (total + constant).float() + known + bonded(positions)

    return energy


def terms_of_lists(arrays: Mapping[str, Array]) -> Energy:
    """Bonds, angles, dihedrals and impropers, on a tape."""

    def table(name: str, of: str, degrees: int | None) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        coefficients = arrays[name].copy()
        if degrees is not None:
            coefficients[:, degrees] = np.radians(coefficients[:, degrees])
        atoms = torch.from_numpy(arrays[of][arrays[f"{name}_index"]])
        return tuple(atoms.T.contiguous()), tuple(_float(coefficients.T))

    bonds, plain = table("bond_harmonic", "bonds", None), table("angle_harmonic", "angles", 1)
    charmm, series = table("angle_charmm", "angles", 1), table("dihedral_multi", "dihedrals", None)
    periodic, impropers = table("dihedral_charmm", "dihedrals", 2), table("improper", "impropers", 1)

    def energy(x: Tensor) -> Tensor:
        (i, j), (k, r0) = bonds
        total = (k * (_distance(x, i, j) - r0) ** 2).sum(1)
        for (i, j, m), (k, theta0, *across) in (plain, charmm):
            total = total + (k * (torch.acos(_cos_angle(x, i, j, m)) - theta0) ** 2).sum(1)
            if across:
                total = total + (across[0] * (_distance(x, i, m) - across[1]) ** 2).sum(1)
        c = _cos_dihedral(x, *series[0])
        value = torch.zeros_like(c)
        for a in reversed(series[1]):
            value = value * c + a
        (k, n, d, w), phi = periodic[1], torch.acos(_cos_dihedral(x, *periodic[0]))
        total = total + value.sum(1) + (k * w * (1 + torch.cos(n * phi - d))).sum(1)
        (k, ref), phi = impropers[1], torch.acos(_cos_dihedral(x, *impropers[0]))
        return total + (k * (phi - ref) ** 2).sum(1)

    return energy


def _distance(x: Tensor, i: Tensor, j: Tensor) -> Tensor:
    return (x[:, i] - x[:, j]).norm(dim=-1)


def _cos_angle(x: Tensor, i: Tensor, j: Tensor, k: Tensor) -> Tensor:
    return _cosine(x[:, i] - x[:, j], x[:, k] - x[:, j])


def _cos_dihedral(x: Tensor, i: Tensor, j: Tensor, k: Tensor, m: Tensor) -> Tensor:
    middle = x[:, k] - x[:, j]
    return _cosine(torch.linalg.cross(x[:, i] - x[:, j], middle), torch.linalg.cross(x[:, m] - x[:, k], middle))


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return ((a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))).clamp(-COS_LIMIT, COS_LIMIT)


def _float(x: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x, np.float32))
