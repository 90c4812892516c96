"""What kernels need to know of a Tree or a System beside its arrays, made by torch on the arrays' device.

A plan is made once: it is remembered for as long as the first tensor of what it was made of lives, so
callers should keep their tensors, and must not write into them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
import triton
from torch.utils.weak import WeakTensorKeyDictionary

from .problem import TERMS, Bonded, Pairs, Tree

Plan = TypeVar("Plan")

PAIR_ROWS, PAIR_COLUMNS = 16, 64
"""A program of pairs has PAIR_ROWS places, and visits PAIR_COLUMNS others at a time."""

TERM_BLOCK = 128
"""Bonded terms of a program."""

CLASSES = ("bond", "angle", "series", "periodic", "improper", "pair")


def remembered(make: Callable[..., Plan]) -> Callable[..., Plan]:
    """`make` of tuples of tensors and numbers; calls with the same objects give the plan made before."""
    plans: Any = WeakTensorKeyDictionary()

    @functools.wraps(make)
    def plan(*problems: Any) -> Plan:
        key, *rest = (each for problem in problems for each in (problem if isinstance(problem, tuple) else (problem,)))
        known = plans.get(key)
        if known is None or not all(map(_same, known[0], rest)):
            known = plans[key] = rest, make(*problems)
        return known[1]

    return plan


def _same(a: Any, b: Any) -> bool:
    return a is b or (not isinstance(a, torch.Tensor) and bool(a == b))


def by_owner(owners: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Offsets (count + 1,), and where in `owners` each of 0..count - 1 occurs, ascending."""
    ordered, places = torch.sort(owners, stable=True)
    return torch.searchsorted(ordered, torch.arange(count + 1, device=owners.device)), places


class TreePlan(NamedTuple):
    lanes: int  # points of a group that a program takes at a time
    group_of_point: torch.Tensor  # (N,), or -1
    macro_size: torch.Tensor  # (M,): points in each macro-group
    end_ptr: torch.Tensor  # (N + 1,): where points are anchors (axis i) or bonded (axes + i)
    ends: torch.Tensor


@remembered
def plan_of_tree(tree: Tree) -> TreePlan:
    N, G = len(tree.fixed), len(tree.macro_of_group)
    sizes = tree.group_ptr.diff()
    numbers = torch.arange(G, device=sizes.device)
    group_of_point = torch.full((N,), -1, device=sizes.device)
    group_of_point[tree.group_atoms] = numbers.repeat_interleave(sizes)
    sums = torch.nn.functional.pad(sizes[tree.macro_groups].cumsum(0), (1, 0))
    mean = triton.cdiv(len(tree.group_atoms), max(1, G))
    lanes = min(64, max(8, triton.next_power_of_2(mean)))
    ends = torch.cat([tree.axis_anchor, tree.axis_bonded])
    return TreePlan(lanes, group_of_point, sums[tree.macro_ptr].diff(), *by_owner(ends, N))


class EnergyPlan(NamedTuple):
    first_slot: tuple[int, ...]  # of each class's forces
    slots: int
    first_column: tuple[int, ...]  # of each class's energies by block; then of the Coulomb terms of "pair", of
    columns: int  # Lennard-Jones and of Coulomb of all pairs
    term_ptr: torch.Tensor  # (len(TERMS) + 1,): columns of each term
    slot_ptr: torch.Tensor  # (N + 1,): slots of each atom
    slot_of_atom: torch.Tensor
    place_of_atom: torch.Tensor  # (N,), or -1
    width: int  # of what follows: places, padded with atoms that have no energy
    charge: torch.Tensor  # (width,)
    repulsion: torch.Tensor  # (kinds, width)
    dispersion: torch.Tensor
    excluded: torch.Tensor  # (P, width / 32) int32: bit j % 32 of word j / 32, j = i included


@remembered
def plan_of_energy(bonded: Bonded, pairs: Pairs, N: int) -> EnergyPlan:
    device = pairs.atoms.device
    atoms = [getattr(bonded, f"{name}_atoms") for name in CLASSES]
    slots = [0]
    for each in atoms:
        slots.append(slots[-1] + each.numel())
    owners = torch.cat([each.T.reshape(-1) for each in atoms])
    bond, angle, series, periodic, improper, pair = (triton.cdiv(len(each), TERM_BLOCK) for each in atoms)
    rows = triton.cdiv(pairs.movable, PAIR_ROWS)
    columns = [0]
    for blocks in (bond, angle, series, periodic, improper, pair, rows, pair, rows):
        columns.append(columns[-1] + blocks)
    firsts = (*columns[:6], columns[7], columns[6], columns[8])
    ends = {"bond": 1, "angle": 2, "dihedral": 4, "improper": 5, "cmap": 5, "lj": 7}
    term_ptr = torch.tensor([0, *(columns[ends.get(term, 9)] for term in TERMS)], device=device)
    P = len(pairs.atoms)
    place_of_atom = torch.full((N,), -1, device=device)
    place_of_atom[pairs.atoms] = torch.arange(P, device=device)
    width = triton.cdiv(P, PAIR_COLUMNS) * PAIR_COLUMNS
    charge, repulsion, dispersion = (
        torch.nn.functional.pad(each, (0, width - P)) for each in (pairs.charge, pairs.repulsion, pairs.dispersion)
    )
    return EnergyPlan(
        tuple(slots[:6]), slots[6], firsts, columns[9], term_ptr, *by_owner(owners, N), place_of_atom,
        width, charge, repulsion, dispersion, excluded_bits(pairs, width),
    )  # fmt: skip


def excluded_bits(pairs: Pairs, width: int) -> torch.Tensor:
    """The exclusions, and each place itself, as one bit each."""
    places = torch.arange(len(pairs.atoms), device=pairs.atoms.device)
    i = torch.cat([places.repeat_interleave(pairs.exclusion_ptr.diff()), places])
    bits = torch.unique(i * width + torch.cat([pairs.exclusions, places]))
    words = torch.zeros(len(places) * (width // 32), dtype=torch.int64, device=places.device)
    words.index_add_(0, bits // 32, torch.ones_like(bits) << (bits % 32))
    signed = torch.where(words >= 1 << 31, words - (1 << 32), words)
    return signed.to(torch.int32).reshape(len(places), width // 32)
