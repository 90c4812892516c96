"""generate: from a protein and a ligand to conformations of their complex."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .. import _options
from ._build import build_tiers
from ._complex import Complex
from ._constants import Schedule
from ._energies import energy_for, evaluate, is_system, split
from ._ensemble import Ensemble, pdb_path
from ._rmsd import automorphisms, rmsd, select
from ._schedule import flips, kick, kicked, relax, settle
from ._state import State, settings_of
from ._structures import read_complex

Array = np.ndarray[Any, Any]
Report = Callable[[int, int, str], None]


def generate(
    protein: Any,
    ligand: Any = None,
    *,
    n: int = 50,
    radius: float = 20.0,
    centre: Any = None,
    forcefield: Any = "builtin",
    seed: int = 0,
    schedule: Schedule | None = None,
    out: Any = None,
    resume: bool = False,
    window: float = 50.0,
    distance: float = 0.5,
    batch: int = 8,
    dtype: Any = np.float32,
    ligand_index: int = 0,
    progress: Report | None = None,
) -> Ensemble:
    """Draw conformations of a protein-ligand complex by the tiered tensor transform (arXiv 2301.00984).

    The ligand is settled in the frozen protein. Then each conformation is kicked, at random, and relaxed, by
    Adam on single atoms, rigid groups and macro-groups at once (`build_tiers`, `Schedule`).

    Parameters
    ----------
    protein, ligand : files, as for `read_complex`; or a `Complex`, and None
    n : how many conformations to draw
    radius, centre : the pocket, as for `build_tiers`
    forcefield : "builtin" (`ForceField.for_pocket`; atoms that are further than 12 angstrom from all that
        moves are left out of it); the path of a serialized OpenMM System, .xml, whose particles are exactly
        the atoms of the protein's file, water and hydrogens included, and then of the ligand; a `ForceField`;
        or a function of positions (B, N, 3) that returns a dict of (B,) terms and the gradient
    seed : conformation i depends on `seed` and i alone: neither on `n` nor on `batch`
    schedule : the constants of the method; None for the published ones
    out : a file name that ends in .pdb, for what `Ensemble.write` writes, and for the state of the run in
        .npz beside it; None to write nothing
    resume : go on with the state beside `out`, if there is one. `n`, `window`, `distance` and `batch` may be
        others than before
    window, distance : conformations are kept from the lowest energy on, up to `window` kcal/mol above it, if
        their ligand is `distance` angstrom or more (`rmsd`) from that of all kept before
    batch : how many conformations move together; memory is proportional to it, and what is finished is saved
        after each batch
    dtype : float32 or float64, of the coordinates
    progress : called with steps done, steps in all (both counted for each conformation), and what goes on

    Returns
    -------
    Ensemble of all conformations drawn, with verdicts. A `KeyboardInterrupt` writes what is finished to
    `out`, and is raised again.

    Raises
    ------
    ValueError, TypeError for options, files and structures that cannot be used, before anything is written;
    NotImplementedError where an optional library is missing.

    Examples
    --------
    >>> from pykernels.tiered import generate
    >>> ensemble = generate("protein.pdb", "ligand.sdf", n=20, out="poses.pdb")  # doctest: +SKIP
    >>> ensemble.total[ensemble.kept], ensemble.ligand_rmsd[ensemble.kept]  # doctest: +SKIP
    """
    n, batch = _options.integer("n", n, 1), _options.integer("batch", batch, 1)
    seed, dtype = _options.integer("seed", seed, 0), _dtype(dtype)
    schedule = Schedule() if schedule is None else schedule
    for name, value in (("window", window), ("distance", distance)):
        if not value >= 0:
            raise ValueError(f"{name}={value!r}: expected a number of at least 0")
    path = None if out is None else pdb_path(out)
    if resume and path is None:
        raise ValueError("resume=True without out: expected the file whose run goes on")
    report = progress or _silent
    report(0, 1, "reading")
    complex = _complex(protein, ligand, ligand_index, is_system(forcefield))
    built = build_tiers(complex, radius, centre)
    fixed = built.tiers.fixed_atoms
    energy, atoms = energy_for(forcefield, complex, fixed)
    tiers = built.only(atoms)
    moved = np.flatnonzero(~np.isin(np.arange(len(complex.positions)), fixed))
    start = complex.positions[atoms].astype(dtype)
    before = float(evaluate(energy, start[None])[1][0])
    name = str(forcefield) if isinstance(forcefield, str | Path) else type(forcefield).__name__
    state = State(
        None if path is None else path.with_suffix(".npz"),
        settings_of(complex, name, before, radius, centre, seed, dtype, schedule),
    )
    if resume:
        state.load()
    total = schedule.settling_steps + n * schedule.steps
    if "settled" not in state.arrays:
        ligand_tiers = build_tiers(complex, 0.0).only(atoms)
        energies, settled = [np.zeros(0)], start
        for history, reached in settle(energy, start, ligand_tiers, schedule):
            settled = reached
            energies.append(history)
            report(sum(map(len, energies)), total, "settling the ligand")
        state.arrays.update(settled=settled, settling=np.concatenate(energies))
    start = state.arrays["settled"]
    may_flip = flips(built, _whole(complex, atoms, start), schedule.flip_distance)
    local = np.searchsorted(atoms, moved)
    try:
        for first in range(state.done, n, batch):
            members = range(first, min(first + batch, n))
            done = schedule.settling_steps + first * schedule.steps
            note = f"conformations {first} to {members[-1]}" if len(members) > 1 else f"conformation {first}"
            descent = kicked(energy, start, tiers, kick(tiers, may_flip, schedule, seed, members, dtype), schedule)
            histories = [np.zeros((0, len(members)))]
            for history in relax(descent, schedule):
                histories.append(history)
                done += history.size
                report(done, total, note)
            terms, totals = split(descent.energies())
            state.add(
                positions=descent.coordinates()[:, local],
                history=np.concatenate(histories).T,
                total=totals,
                **{f"term_{term}": values for term, values in terms.items()},
            )
    except KeyboardInterrupt:
        if path is not None and state.done:
            _ensemble(complex, moved, state, n, window, distance).write(path)
        raise
    ensemble = _ensemble(complex, moved, state, n, window, distance)
    if path is not None:
        report(total, total, "writing")
        for missing in ensemble.write(path):
            report(total, total, f"not written: {missing}")
    return ensemble


def _complex(protein: Any, ligand: Any, ligand_index: int, waters: bool) -> Complex:
    if isinstance(protein, Complex):
        if ligand is not None:
            raise TypeError(f"ligand is a {type(ligand).__name__}: expected None, as protein is a Complex")
        return protein
    if ligand is None:
        raise TypeError("ligand is None: expected a file, or a Complex as protein")
    return read_complex(protein, ligand, ligand_index=ligand_index, waters=waters)


def _ensemble(complex: Complex, moved: Array, state: State, n: int, window: float, distance: float) -> Ensemble:
    arrays = {name: values[:n] for name, values in state.arrays.items() if name not in ("settled", "settling")}
    positions, total = arrays["positions"], arrays["total"]
    of_ligand = moved >= complex.n_protein
    heavy = np.array([element != "H" for element in complex.element])[moved] & ~of_ligand
    mappings = automorphisms(complex.ligand)
    poses, given = positions[:, of_ligand], complex.positions[moved]
    off = positions[:, heavy].astype(np.float64) - given[heavy]
    return Ensemble(
        complex=complex,
        moved=moved,
        positions=positions,
        terms={name: values[:n] for name, values in state.terms.items()},
        total=total,
        settling=state.arrays["settling"],
        history=arrays["history"].T,
        ligand_rmsd=rmsd(poses, given[of_ligand], mappings),
        pocket_rmsd=np.sqrt(np.sum(off**2, (1, 2)) / max(int(heavy.sum()), 1)),
        verdict=select(total, poses, mappings, window, distance),
    )


def _whole(complex: Complex, atoms: Array, x: Array) -> Array:
    """All atoms of the complex, of which `atoms` are at x."""
    whole: Array = complex.positions.copy()
    whole[atoms] = x
    return whole


def _dtype(dtype: Any) -> Any:
    name = _options.floating_name(dtype, "float32")
    if name not in ("float32", "float64"):
        raise TypeError(f"dtype={dtype!r}: expected float32 or float64")
    return np.dtype(name)


def _silent(done: int, total: int, note: str) -> None:
    pass
