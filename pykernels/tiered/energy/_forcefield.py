"""ForceField."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np

from ... import _options
from ..._arrays import namespace
from ..._dispatch import choose_backend, launcher
from ...kernels.tiered.problem import TERMS, System
from . import _arrays
from ._description import Description
from ._system import converted, system_of
from ._terms import Terms, present

Array = np.ndarray[Any, Any]
DTYPES = ("float32", "float64")
PAIRS = ("all", "cells")


class ForceField:
    """Energies of a molecular system and their gradient, for many conformations at once.

    Bonds, angles with Urey-Bradley, dihedrals, impropers, correction maps, Lennard-Jones, Coulomb, and the
    terms of AutoDock Vina and of MMFF94; `pykernels.kernels.tiered` has the formulas. Made by
    `from_arrays`, `from_openmm` or `for_pocket`.

    Parameters
    ----------
    description : what there is, by term
    fixed_atoms : atoms that will not move. Pairs and terms of fixed atoms alone are computed once for their
        coordinates, and again only when these differ
    pairs : "all" visits every pair of atoms, as 3T does; "cells" finds those within the cutoffs by a cell
        list, for large systems, and needs finite cutoffs of Lennard-Jones and Coulomb

    Safe to use from several threads.
    """

    def __init__(self, description: Description, fixed_atoms: Any = None, pairs: str = "all") -> None:
        _options.choice("pairs", pairs, PAIRS)
        nonbonded = description.nonbonded
        if pairs == "cells" and (nonbonded is None or np.isinf(max(nonbonded.lj_cutoff, nonbonded.coulomb_cutoff))):
            raise ValueError("pairs='cells': expected finite cutoffs of Lennard-Jones and Coulomb; see with_cutoff")
        self.description, self.n_atoms, self.pairs = description, description.n_atoms, pairs
        self.fixed_atoms = _fixed(fixed_atoms, self.n_atoms)
        self._present = tuple(name for name, has in zip(TERMS, present(description), strict=True) if has)
        self._systems: dict[Any, System] = {}
        self._lock = threading.Lock()
        self._constant: dict[Any, tuple[Array, Array, Array]] = {}

    @classmethod
    def from_arrays(
        cls,
        *,
        pairs: str = "all",
        combination: str = "lorentz-berthelot",
        lj_14: float = 1.0,
        coulomb_14: float = 1.0,
        **arrays: Any,
    ) -> ForceField:
        """The force field in flat arrays, as the 3T authors' CHARMM inputs come.

        Parameters
        ----------
        bonds (n, 2), angles (n, 3), dihedrals (n, 4), impropers (n, 4) : integer arrays of atoms
        bond_harmonic (n, 2) : k, r0; angle_harmonic (n, 2) : k, theta0; angle_charmm (n, 4) : k, theta0,
            k_ub, r_ub; dihedral_multi (n, 5) : A0..A4 of sum A_n cos^n(phi); dihedral_charmm (n, 4) : K, n,
            d, w of K (1 + cos(n phi - d)) w; improper (n, 2) : k, ref. Angles are in degrees, energies in
            kcal/mol, lengths in angstrom. Each may come with ``<name>_index``, the rows of the list of
            atoms that it is for; without one it is for all of them
        atom_type (N,), charge (N,) : types from 0 and elementary charges
        epsilon, sigma : (T, T), of every pair of types; or (T,), then combined by `combination`,
            "lorentz-berthelot" or "geometric"
        coulomb_constant, lj_cutoff : 332.33 kcal/mol angstrom and infinity unless given. The Coulomb
            energy of all pairs counts
        fixed_atoms : atoms that will not move
        lj_14, coulomb_14 : factors of pairs at the ends of a dihedral. This rule is applied last: with
            factors of 1 these pairs are as any other, also if they are bonded or share an angle. All other
            bonded pairs and ends of angles are excluded
        pairs : as for `ForceField`

        Names of the golden data that are not a force field's (positions, group_*, axis_*, p_*, ...) are
        accepted and not used. Dihedral angles have no sign and cosines are clamped to +-0.999999, as in the
        published implementation.

        Raises
        ------
        TypeError for names that are not known or missing, and for dtypes; ValueError for shapes, atoms or
        types out of range and numbers that are not finite.

        Examples
        --------
        >>> import numpy as np
        >>> from pykernels.tiered.energy import ForceField
        >>> two = ForceField.from_arrays(bonds=[[0, 1]], bond_harmonic=[[100.0, 1.5]])
        >>> terms, gradient = two.energy_and_gradient(np.array([[0, 0, 0], [0, 0, 1.6]]))
        >>> round(float(terms["bond"]), 6), gradient[1].round(3).tolist()
        (1.0, [0.0, 0.0, 20.0])
        """
        _arrays.check_options(combination, lj_14, coulomb_14)
        fixed_atoms = arrays.pop("fixed_atoms", None)
        return cls(_arrays.describe(arrays, combination, lj_14, coulomb_14), fixed_atoms, pairs)

    @classmethod
    def from_openmm(cls, system: Any, topology: Any = None, fixed_atoms: Any = None, pairs: str = "all") -> ForceField:
        """The force field in an `openmm.System`, however it was made: CHARMM, Amber, GAFF, OpenFF.

        Takes bonds, angles, periodic, Ryckaert-Bellemans and harmonic torsions, correction maps, and
        Lennard-Jones and Coulomb without a cutoff or with OpenMM's reaction field; tables of types (NBFIX) too.

        Parameters
        ----------
        system : without periodic boundaries, constraints and virtual sites
        topology : an `openmm.app.Topology`, which gives names to atoms in messages
        fixed_atoms, pairs : as for `ForceField`

        Raises
        ------
        TypeError for what is no System; ValueError for constraints; NotImplementedError naming the force that
        has no counterpart here, and what to do.

        Examples
        --------
        >>> system = openmm.app.ForceField("amber14-all.xml").createSystem(topology)  # doctest: +SKIP
        >>> terms, gradient = ForceField.from_openmm(system, topology).energy_and_gradient(x)  # doctest: +SKIP
        """
        from ._openmm import describe

        return cls(describe(system, topology), fixed_atoms, pairs)

    @classmethod
    def for_pocket(cls, complex: Any, fixed_atoms: Any = None, **options: Any) -> ForceField:
        """AutoDock Vina's terms, MMFF94 strain of the ligand, and restraints of the protein to its input geometry.

        Nothing has to be prepared, and nothing is charged: it is for drawing poses in a pocket, not for
        free energies.

        Parameters
        ----------
        complex : a `Complex`, of `read_complex`
        fixed_atoms : as for `ForceField`
        bond_stiffness, angle_stiffness, plane_stiffness : of the restraints, in kcal/mol per angstrom^2 and
            radian^2: 300, 60 and 30

        Raises
        ------
        TypeError for what is no `Complex`; ValueError for elements that Vina has no type for and a ligand that
        MMFF94 has no parameters for, naming the atom.

        Examples
        --------
        >>> from pykernels.tiered import read_complex
        >>> complex = read_complex("protein.pdb", "ligand.sdf")  # doctest: +SKIP
        >>> terms, _ = ForceField.for_pocket(complex).energy_and_gradient(complex.positions)  # doctest: +SKIP
        >>> terms["vina"], terms["mmff"]  # doctest: +SKIP
        """
        from .._complex import check_complex
        from ._pocket import describe

        check_complex(complex)
        return cls(describe(complex, **options), fixed_atoms)

    def with_fixed(self, fixed_atoms: Any) -> ForceField:
        """The same force field where other atoms do not move."""
        return type(self)(self.description, fixed_atoms, self.pairs)

    def with_cutoff(self, cutoff: float, dielectric: float | None = None) -> ForceField:
        """The same with Lennard-Jones and Coulomb cut off, and pairs found by cells.

        `dielectric` is the relative permittivity beyond the cutoff in a reaction field; None truncates
        1/r as it is.
        """
        nonbonded = self.description.nonbonded
        if nonbonded is None:
            raise ValueError("the force field has no nonbonded terms: expected some to cut off")
        if not 0 < cutoff < np.inf:
            raise ValueError(f"cutoff={cutoff!r}: expected a positive length in angstrom")
        if dielectric is not None and not dielectric >= 1:
            raise ValueError(f"dielectric={dielectric!r}: expected a relative permittivity of at least 1, or None")
        k_rf = c_rf = 0.0
        if dielectric is not None:
            k_rf = (dielectric - 1) / (2 * dielectric + 1) / cutoff**3
            c_rf = 3 * dielectric / (2 * dielectric + 1) / cutoff
        lj_cutoff = min(cutoff, nonbonded.lj_cutoff)
        nonbonded = nonbonded._replace(lj_cutoff=lj_cutoff, coulomb_cutoff=cutoff, k_rf=k_rf, c_rf=c_rf)
        description = Description(
            self.n_atoms, self.description.bonded, nonbonded, self.description.vina, self.description.mmff
        )
        return type(self)(description, self.fixed_atoms, "cells")

    def energy_and_gradient(self, positions: Any, *, backend: str | None = None) -> tuple[Terms, Any]:
        """The energy of each conformation by term, and its gradient with respect to every atom.

        Parameters
        ----------
        positions : (B, N, 3) or (N, 3), float32 or float64, NumPy or torch, in angstrom
        backend : None to follow the data, or "cpu", "gpu", "reference"

        Returns
        -------
        (terms, gradient): a dict of (B,) float64 arrays in kcal/mol, whose ``["total"]`` is the sum; and
        (B, N, 3) of the dtype of `positions`, in kcal/mol/angstrom, also for fixed atoms. Without B where
        `positions` has none. Energies are accumulated in float64. A batch gives the bits of its members, on
        any number of threads.

        Raises
        ------
        TypeError for other dtypes; ValueError for other shapes and for positions that are not finite,
        naming the atom; NotImplementedError for a backend that cannot run here, or lacks a term.
        """
        x, arrays = namespace(positions)
        dtype = _options.dtype_name(arrays, x, DTYPES, "positions")
        if x.ndim not in (2, 3) or tuple(x.shape[-2:]) != (self.n_atoms, 3):
            raise ValueError(f"positions has shape {tuple(x.shape)}: expected (B, {self.n_atoms}, 3) or without B")
        lead = tuple(x.shape[:-2])
        backend = choose_backend(arrays, x, backend)
        raw = arrays.raw(arrays.dense(x), backend, (*(lead or (1,)), self.n_atoms, 3))
        check_finite(namespace(raw)[1], raw, "positions")
        terms, terms_target = arrays.allocate((len(raw), len(TERMS)), "float64", x, backend)
        gradient, target = arrays.allocate((*lead, self.n_atoms, 3), dtype, x, backend)
        target = target.reshape(raw.shape)
        launcher("tiered", backend, "energy")(raw, self.system(raw), True, terms_target, target)
        if len(self.fixed_atoms):
            for b in range(len(raw)):
                energies, forces = self.constant(raw[b], backend)
                terms_target[b] += namespace(terms_target)[1].from_numpy(energies, terms_target)
                target[b, self.fixed_atoms] += arrays_like(forces, target)
        return self.terms(terms if lead else terms[0]), gradient

    def terms(self, table: Any) -> Terms:
        """The columns of a kernel's table that this force field has."""
        return Terms({name: table[..., TERMS.index(name)] for name in self._present})

    def system(self, like: Any) -> System:
        """What the kernels take, in the dtype and on the device of `like`."""
        _, arrays = namespace(like)
        key = arrays.dtype_name(like), arrays.__name__, str(like.device) if hasattr(like, "device") else ""
        with self._lock:
            if key not in self._systems:
                system = self._system(False, np.dtype(key[0]))
                if hasattr(arrays, "torch"):
                    system = converted(system, lambda value: arrays.from_numpy(value, like))
                self._systems[key] = system
            return self._systems[key]

    def _system(self, still: bool, dtype: Any) -> System:
        fixed = np.zeros(self.n_atoms, bool)
        fixed[self.fixed_atoms] = True
        return system_of(self.description, fixed, still, self.pairs == "cells", dtype)

    def constant(self, x: Any, backend: str) -> tuple[Array, Array]:
        """Terms (len(TERMS),) of fixed atoms alone at the positions x (N, 3), and their gradient (fixed, 3)."""
        _, arrays = namespace(x)
        there = np.asarray(arrays.to_numpy(x[self.fixed_atoms]))
        backend = "reference" if backend == "reference" else "cpu"
        key = backend, there.dtype
        known = self._constant.get(key)
        if known is None or not np.array_equal(known[0], there):
            whole = np.zeros((1, self.n_atoms, 3), there.dtype)
            whole[0, self.fixed_atoms] = there
            terms, gradient = np.zeros((1, len(TERMS))), np.empty_like(whole)
            still = self._system(True, there.dtype)
            launcher("tiered", backend, "energy")(whole, still, True, terms, gradient)
            known = self._constant[key] = there, terms[0], gradient[0, self.fixed_atoms]
        return known[1], known[2]


def arrays_like(value: Array, like: Any) -> Any:
    """A float64 NumPy array in the kind, dtype and on the device of `like`."""
    _, arrays = namespace(like)
    return arrays.cast(arrays.from_numpy(value, like), arrays.dtype_name(like))


def check_finite(arrays: Any, x: Any, name: str) -> None:
    """Refuse (B, N, 3) coordinates that are NaN or Inf."""
    if math.isfinite(float(x.sum())):
        return
    wrong = np.argwhere(~np.isfinite(np.asarray(arrays.to_numpy(x))))
    if len(wrong):
        b, atom = (int(each) for each in wrong[0][:2])
        raise ValueError(f"{name} of atom {atom} in conformation {b} is not finite: expected numbers")


def _fixed(fixed_atoms: Any, n_atoms: int) -> Array:
    if fixed_atoms is None:
        return np.zeros(0, np.int64)
    fixed = np.asarray(fixed_atoms)
    if fixed.size and fixed.dtype.kind not in "iu":
        raise TypeError(f"fixed_atoms has dtype {fixed.dtype}: expected integers")
    if fixed.ndim != 1 or (fixed.size and not 0 <= fixed.min() <= fixed.max() < n_atoms):
        raise ValueError(f"fixed_atoms has shape {fixed.shape}: expected (n,), atoms from 0 to {n_atoms - 1}")
    return np.unique(fixed.astype(np.int64))
