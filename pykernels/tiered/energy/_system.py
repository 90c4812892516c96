"""From a `Description` to what the kernels take: places, exclusion lists, terms of movable and of fixed atoms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...kernels.tiered.problem import Bonded, Mmff, Pairs, System, Vina
from ._description import Description, Nonbonded, VinaAtoms

Array = np.ndarray[Any, Any]


def system_of(description: Description, fixed: Array, still: bool, by_cells: bool, dtype: Any) -> System:
    """The terms and pairs with an atom that is not `fixed` (N,); or, if `still`, those of fixed atoms alone."""
    movable = np.flatnonzero(fixed if still else ~fixed)
    others = np.flatnonzero(fixed) if not still else movable[:0]
    system = System(
        Bonded(*_some(description.bonded, fixed, still)),
        _pairs(description.nonbonded, movable, others, by_cells, dtype),
        _vina(description.vina, movable, others),
        Mmff(*_some(description.mmff, fixed, still)),
    )
    return converted(system, lambda value: np.ascontiguousarray(value, dtype if value.dtype.kind == "f" else np.int64))


def converted(system: System, convert: Callable[[Array], Any]) -> System:
    """The same with a function of each of its arrays in their place."""

    def of(part: Any) -> Any:
        return type(part)(*(convert(each) if isinstance(each, np.ndarray) else each for each in part))

    return System(of(system.bonded), of(system.pairs), of(system.vina), of(system.mmff))


def _some(terms: Any, fixed: Array, still: bool) -> list[Any]:
    """The fields of `terms`, whose tables of atoms are each followed by what belongs to them."""
    chosen = list(terms)
    for number, name in enumerate(terms._fields):
        if name.endswith("_atoms"):
            keep = fixed[terms[number]].all(1) == still
            chosen[number : number + 2] = (table[keep] for table in terms[number : number + 2])
    return chosen


def _pairs(terms: Nonbonded | None, movable: Array, others: Array, by_cells: bool, dtype: Any) -> Pairs:
    if terms is None:
        none, table = np.zeros(0, np.int64), np.zeros((1, 0))
        return Pairs(
            none, 0, table[0], none, table, table, np.zeros(1, np.int64), none, np.inf, np.inf, 0.0, 0.0, False
        )
    places = [each[np.argsort(terms.kind[each], kind="stable")] for each in (movable, others)]
    atoms = np.concatenate(places)
    kind = terms.kind[atoms]
    sixth = terms.sigma**6
    dispersion = 4 * terms.epsilon * sixth
    return Pairs(
        atoms,
        len(movable),
        terms.charge[atoms],
        kind,
        (dispersion * sixth).astype(dtype)[:, kind],
        dispersion.astype(dtype)[:, kind],
        *_exclusions(terms.exclusions, atoms, len(terms.charge)),
        float(terms.lj_cutoff),
        float(terms.coulomb_cutoff),
        float(terms.k_rf),
        float(terms.c_rf),
        by_cells,
    )


def _vina(terms: VinaAtoms | None, movable: Array, others: Array) -> Vina:
    if terms is None:
        none, table = np.zeros(0, np.int64), np.zeros(0)
        return Vina(none, 0, table, table, table, table, np.zeros(1, np.int64), none, np.zeros(5), 8.0)
    first = movable[terms.scored[movable]]
    atoms = np.concatenate([first, others[terms.scored[others]]])
    kinds = (terms.radius, terms.hydrophobic, terms.donor, terms.acceptor)
    radius, hydrophobic, donor, acceptor = (each[atoms].astype(np.float64) for each in kinds)
    return Vina(
        atoms,
        len(first),
        radius,
        hydrophobic,
        donor,
        acceptor,
        *_exclusions(terms.exclusions, atoms, len(terms.scored)),
        terms.weights.astype(np.float64),
        float(terms.cutoff),
    )


def _exclusions(excluded: Array, atoms: Array, count: int) -> tuple[Array, Array]:
    """For each place the places that it does not interact with, ascending, from pairs of atoms."""
    place = np.full(count, -1)
    place[atoms] = np.arange(len(atoms))
    both = place[np.concatenate([excluded, excluded[:, ::-1]])]
    both = np.unique(both[(both >= 0).all(1) & (both[:, 0] != both[:, 1])], axis=0)
    return np.searchsorted(both[:, 0], np.arange(len(atoms) + 1)), np.ascontiguousarray(both[:, 1])
