"""The energy of a batch: every conformation in slices that threads share.

A slice has rows of the pairs, which own their atoms' gradient, and perhaps a part of the other terms,
whose gradients go to a layer of their own; a second pass adds the layers. Slices do not depend on the
number of conformations or threads, so neither do the bits.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from .._numba import in_turn, jit
from .cpu_bonded import bonded_part
from .cpu_mmff import mmff_part
from .cpu_pairs import arrange, pair_rows
from .cpu_vina import vina_rows
from .problem import TERMS, Cells, System

Array = np.ndarray[Any, Any]

SLICES = 16
PARTS = SLICES // 2
AT_ONCE = 64
"""Conformations that are in memory together."""

LJ, VINA = TERMS.index("lj"), TERMS.index("vina")


class Scratch(NamedTuple):
    """Memory for B conformations."""

    columns: Array  # (B, 4, P): coordinates and charges in the order of the slots of `Cells`
    lanes: Array  # (B, 3, Pv): coordinates in the order of the places of `Vina`
    layers: Array  # (B, PARTS + 1, N, 3): gradients of the parts, and of `Vina`
    partial: Array  # (B, SLICES, len(TERMS))


def scratch_for(batch: int, atoms: int, system: System, dtype: Any) -> tuple[Scratch, Cells]:
    count = len(system.pairs.atoms)
    scratch = Scratch(
        np.empty((batch, 4, count), dtype),
        np.empty((batch, 3, len(system.vina.atoms)), dtype),
        np.empty((batch, PARTS + 1, atoms, 3), dtype),
        np.empty((batch, SLICES, len(TERMS))),
    )
    shapes = ((3,), (2, count + 2), (count,), (count,), (count,))
    return scratch, Cells(*(np.empty((batch, *shape), np.int64) for shape in shapes))


def energy(positions: Array, system: System, everywhere: bool, terms: Array, gradient: Array) -> None:
    scratch, cells = scratch_for(min(len(positions), AT_ONCE), positions.shape[1], system, positions.dtype)
    for first in range(0, len(positions), AT_ONCE):
        some = slice(first, first + AT_ONCE)
        in_turn(energy_kernel, positions[some], *system, everywhere, scratch, cells, terms[some], gradient[some])


@jit(parallel=True)
def energy_kernel(positions, bonded, pairs, vina, mmff, everywhere, scratch, cells, terms, gradient):
    for stage in range(3):
        for task in numba.prange(len(positions) * SLICES):
            b, number = divmod(np.int64(task), SLICES)
            x, at_x = positions[b], gradient[b]
            _task(stage, b, number, x, bonded, pairs, vina, mmff, everywhere, scratch, cells, terms, at_x)


@jit
def _task(stage, b, number, x, bonded, pairs, vina, mmff, everywhere, scratch, cells, terms, gradient):
    if stage == 0:
        if number == 0:
            _prepare(b, x, pairs, vina, scratch, cells, gradient)
    elif stage == 1:
        energies = scratch.partial[b, number]
        for term in range(len(energies)):
            energies[term] = 0
        if number % 2 == 0:
            part = number // 2
            layer = scratch.layers[b, part]
            _clear(layer)
            bonded_part(x, bonded, part, PARTS, energies, layer)
            mmff_part(x, mmff, part, PARTS, energies, layer)
        _pair_slice(b, number, pairs, everywhere, scratch, cells, energies[LJ : LJ + 2], gradient)
        energies[VINA] += _vina_slice(number, vina, everywhere, scratch.lanes[b], scratch.layers[b, PARTS])
    else:
        _collect(number, scratch.layers[b], scratch.partial[b], terms[b], gradient)


@jit
def _prepare(b, x, pairs, vina, scratch, cells, gradient):
    arrange(x, pairs, scratch.columns[b], _member(cells, b))
    for place in range(len(vina.atoms)):
        for axis in range(3):
            scratch.lanes[b, axis, place] = x[vina.atoms[place], axis]
    _clear(scratch.layers[b, PARTS])
    _clear(gradient)


@jit
def _member(cells, b):
    return Cells(cells.dims[b], cells.start[b], cells.order[b], cells.rank[b], cells.cell_of[b])


@jit
def _clear(gradient):
    for atom in range(len(gradient)):
        gradient[atom, 0] = gradient[atom, 1] = gradient[atom, 2] = 0


@jit
def _pair_slice(b, number, pairs, everywhere, scratch, cells, energies, gradient):
    count, movable = len(pairs.atoms), pairs.movable
    columns, mine = scratch.columns[b], _member(cells, b)
    bias, table = np.zeros(count, columns.dtype), np.empty((2, count if pairs.cells else 0), columns.dtype)
    first, last = _share(number, 0, movable)
    pair_rows(columns, mine, pairs, first, last, bias, table, energies, gradient)
    if everywhere:
        first, last = _share(number, movable, count)
        pair_rows(columns, mine, pairs, first, last, bias, table, energies, gradient)


@jit
def _vina_slice(number, vina, everywhere, lanes, gradient):
    count, movable = len(vina.atoms), vina.movable
    bias = np.zeros(count, lanes.dtype)
    first, last = _share(number, 0, movable)
    total = vina_rows(lanes, vina, first, last, bias, gradient)
    if everywhere:
        first, last = _share(number, movable, count)
        vina_rows(lanes, vina, first, last, bias, gradient)
    return total


@jit
def _share(number, begin, end):
    return begin + number * (end - begin) // SLICES, begin + (number + 1) * (end - begin) // SLICES


@jit
def _collect(number, layers, partial, terms, gradient):
    first, last = _share(number, 0, len(gradient))
    for layer in range(PARTS + 1):
        for atom in range(first, last):
            for axis in range(3):
                gradient[atom, axis] += layers[layer, atom, axis]
    if number == 0:
        for term in range(len(terms)):
            total = 0.0
            for each in range(SLICES):
                total += partial[each, term]
            terms[term] = total
