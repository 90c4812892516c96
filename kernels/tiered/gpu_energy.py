"""Energies and gradients: every kernel writes what is its own, and atoms and terms gather it in a fixed order."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .._triton import on_device_of
from .gpu_bonded import bonded_parts
from .gpu_core import float64, load3, plus, store3
from .gpu_pairs import pair_parts
from .gpu_plan import EnergyPlan, plan_of_energy
from .problem import TERMS, System

ATOMS, COLUMNS = 64, 256
"""Atoms, and energies of blocks, that a program takes at a time."""


@triton.jit
def _gather_kernel(
    parts_ptr, slot_ptr, slot_list_ptr, pairs_ptr, place_ptr, out_ptr, B, N, slots, width, visited, BLOCK: tl.constexpr
):  # fmt: skip
    """Each atom's gradient, of the terms in the order of its slots and then of its pairs."""
    b = (tl.program_id(0) % B).to(tl.int64)
    atom = (tl.program_id(0) // B).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = atom < N
    first = tl.load(slot_ptr + atom, mask=inside, other=0)
    count = tl.load(slot_ptr + atom + 1, mask=inside, other=0) - first
    zero = tl.zeros((BLOCK,), tl.float64)
    g = (zero, zero, zero)
    for k in range(tl.max(count, axis=0)):
        there = k < count
        slot = tl.load(slot_list_ptr + first + k, mask=there, other=0)
        g = plus(g, float64(load3(parts_ptr + b * 3 * slots + slot, slots, there)))
    place = tl.load(place_ptr + atom, mask=inside, other=-1)
    paired = (place >= 0) & (place < visited)
    g = plus(g, float64(load3(pairs_ptr + b * 3 * width + place, width, paired)))
    store3(out_ptr + (b * N + atom) * 3, 1, g, inside)


@triton.jit
def _terms_kernel(energies_ptr, term_ptr, terms_ptr, columns, TERMS: tl.constexpr, BLOCK: tl.constexpr):
    """The sum of the columns of a term."""
    b, term = (tl.program_id(0) // TERMS).to(tl.int64), tl.program_id(0) % TERMS
    last = tl.load(term_ptr + term + 1)
    total = tl.zeros((BLOCK,), tl.float64)
    for start in range(tl.load(term_ptr + term), last, BLOCK):
        column = start + tl.arange(0, BLOCK)
        total += tl.load(energies_ptr + b * columns + column, mask=column < last, other=0.0)
    tl.store(terms_ptr + b * TERMS + term, tl.sum(total, axis=0))


def energy(
    positions: torch.Tensor, system: System, everywhere: bool, terms: torch.Tensor, gradient: torch.Tensor
) -> None:
    """Write the terms (B, len(TERMS)), float64, and dE/dx (B, N, 3) of `positions` (B, N, 3).

    Unless `everywhere`, pairs leave out the gradient of atoms in fixed places. All pairs are visited, also
    those that `cells` would pass by. Memory: 12 bytes (24 in float64) of each atom of a term and each place
    per conformation, and a bit for each pair of places.
    """
    _refuse_what_is_missing(system)
    B, N, _ = positions.shape
    if B == 0:
        return
    plan: EnergyPlan = plan_of_energy(system.bonded, system.pairs, N)
    parts, of_pairs = positions.new_empty(B, 3, plan.slots), positions.new_empty(B, 3, plan.width)
    energies = positions.new_empty((B, plan.columns), dtype=torch.float64)
    with on_device_of(positions):
        bonded_parts(positions, system.bonded, plan, parts, energies)
        visited = pair_parts(positions, system.pairs, everywhere, plan, of_pairs, energies)
        if N:
            _gather_kernel[(B * triton.cdiv(N, ATOMS),)](
                parts, plan.slot_ptr, plan.slot_of_atom, of_pairs, plan.place_of_atom, gradient,
                B, N, plan.slots, plan.width, visited, BLOCK=ATOMS, num_warps=2,
            )  # fmt: skip
        _terms_kernel[(B * len(TERMS),)](
            energies, plan.term_ptr, terms, plan.columns, TERMS=len(TERMS), BLOCK=COLUMNS, num_warps=1
        )


def _refuse_what_is_missing(system: System) -> None:
    mmff = system.mmff
    lists = (mmff.bond_atoms, mmff.angle_atoms, mmff.plane_atoms, mmff.series_atoms, mmff.pair_atoms)
    present = {
        "cmap": len(system.bonded.cmap_atoms),
        "vina": len(system.vina.atoms),
        "mmff": any(len(each) for each in lists),
    }
    missing = [name for name, count in present.items() if count]
    if missing:
        raise NotImplementedError(
            f"the gpu backend has no energy term {' or '.join(missing)}; backend='cpu' has all of them"
        )
