"""A protein-ligand complex from two files; biotite and RDKit read them."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from ._complex import Complex
from ._ligand import library, periodic_table, read_ligand

Array = np.ndarray[Any, Any]
_PEPTIDE_LIMIT = 2.5
"""Neighbours in sequence whose connecting atoms are further apart than this, in angstrom, are a chain break."""
_HYDROGEN_LIMIT, _HEAVY_LIMIT, _DISULFIDE_LIMIT = 1.3, 2.0, 2.5
_SAME_PLACE = 0.75


def read_complex(
    protein: Any, ligand: Any, *, ligand_index: int = 0, waters: bool = False, farthest: float = 6.0
) -> Complex:
    """Read a protein (PDB or mmCIF) and a ligand posed in it (SDF, MOL or MOL2).

    Of several models the first is read; of alternate locations, those of the highest occupancy. Water is
    left out unless `waters`. What else the file holds (cofactors, ions, hydrogens) is kept. Bonds of the
    protein come from the names of its residues, as the Chemical Component Dictionary has them, and from
    CONECT records; atoms whose names are unknown there are joined to the closest atom of their residue.
    Bonds between residues that are more than 2.5 angstrom long are chain breaks. The ligand is as
    `read_ligand` has it: missing hydrogens are added to it, and none to the protein.

    Raises
    ------
    ValueError
        A file that does not parse or has no atoms, coordinates that are not finite, unknown elements or
        residues, atoms without a bond, a ligand more than `farthest` angstrom from the protein, a protein
        file that contains the ligand. The message names the line, atom or residue.
    NotImplementedError
        RDKit or biotite is not installed.
    """
    return join(read_protein(protein, waters=waters), read_ligand(ligand, ligand_index), farthest, str(protein))


def join(atoms: Any, ligand: Any, farthest: float = 6.0, source: str = "the protein") -> Complex:
    """The complex of a protein, as `read_protein` returns it, and an RDKit molecule with its hydrogens."""
    struc = library("biotite.structure")
    start, x = ligand.GetNumAtoms(), ligand.GetConformer().GetPositions()
    n_protein = len(atoms)
    bounds = struc.get_residue_starts(atoms, add_exclusive_stop=True)
    residue = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    heavy = np.array([atom.GetAtomicNum() > 1 for atom in ligand.GetAtoms()])
    _check_pocket(atoms.coord.astype(np.float64), residue, atoms, x[heavy], farthest, source)

    symbols = [atom.GetSymbol() for atom in ligand.GetAtoms()]
    name = ligand.GetProp("_Name").strip() if ligand.HasProp("_Name") else ""
    name = name.upper() if 0 < len(name) <= 3 and name.isalnum() else "LIG"
    chains = set(atoms.chain_id.tolist())
    chain = next(letter for letter in "LXYZABCDEFGHIJKMNOPQRSTUVW0123456789l" if letter not in chains or letter == "l")
    bonds = np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in ligand.GetBonds()], np.int64).reshape(-1, 2)
    inserted = zip(atoms.res_id.tolist(), atoms.ins_code.tolist(), strict=True)
    return Complex(
        positions=np.concatenate([atoms.coord.astype(np.float64), x]),
        element=[each.capitalize() for each in atoms.element.tolist()] + symbols,
        atom_name=atoms.atom_name.tolist() + _names(symbols),
        residue_name=atoms.res_name.tolist() + [name] * start,
        residue_number=[f"{number}{code}" for number, code in inserted] + ["1"] * start,
        chain=atoms.chain_id.tolist() + [chain] * start,
        residue=np.concatenate([residue, np.full(start, len(bounds) - 1)]).astype(np.int64),
        bonds=np.concatenate([atoms.bonds.as_array()[:, :2].astype(np.int64), bonds + n_protein]),
        n_protein=n_protein,
        ligand=ligand,
    )


def read_protein(path: Any, *, waters: bool = False) -> Any:
    """The protein as `read_complex` describes it: a biotite AtomArray with bonds."""
    struc = library("biotite.structure")
    atoms = _parse(Path(path))
    if not waters:
        atoms = atoms[~struc.filter_solvent(atoms)]
    if not len(atoms):
        raise ValueError(f"{path} has no atoms but water: expected a protein")
    atoms.element[:] = np.char.upper(np.char.strip(atoms.element))
    known = {symbol.upper() for symbol in periodic_table()}
    for atom in np.nonzero(~np.isfinite(atoms.coord).all(1))[0][:1]:
        raise ValueError(f"{path}: the coordinates of {_label(atoms, atom)} are {atoms.coord[atom].tolist()}")
    for atom in np.nonzero(~np.isin(atoms.element, sorted(known)))[0][:1]:
        raise ValueError(
            f"{path}: {_label(atoms, atom)} has the unknown element {str(atoms.element[atom])!r}: correct columns "
            "77 and 78 of its line"
        )
    atoms.bonds = _bonds(atoms, str(path))
    return atoms


def _parse(path: Path) -> Any:
    options = dict(model=1, altloc="occupancy", include_bonds=True, extra_fields=["atom_id"])
    suffix = path.suffix.lower()
    if suffix not in (".pdb", ".ent", ".cif", ".mmcif"):
        raise ValueError(f"{path}: expected a protein file that ends in .pdb, .ent, .cif or .mmcif")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        if suffix in (".pdb", ".ent"):
            return library("biotite.structure.io.pdb").PDBFile.read(path).get_structure(**options)
        pdbx = library("biotite.structure.io.pdbx")
        return pdbx.get_structure(pdbx.CIFFile.read(path), **options)
    except NotImplementedError:
        raise
    except Exception as error:
        raise ValueError(f"{path} does not parse{_fault(path)}: {error}") from error


def _fault(path: Path) -> str:
    """The first line of a PDB file whose numbers do not read, for the message."""
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        if line.startswith(("ATOM", "HETATM")):
            try:
                [float(line[start : start + 8]) for start in (30, 38, 46)]
            except ValueError:
                return f" (line {number}: {line.rstrip()!r})"
    return ""


def _bonds(atoms: Any, path: str) -> Any:
    """The bonds of templates and records without those across chain breaks, with those that names do not tell."""
    struc, info = library("biotite.structure"), library("biotite.structure.info")
    x, heavy = atoms.coord.astype(np.float64), atoms.element != "H"
    given = atoms.bonds.as_array()[:, :2].astype(np.int64)
    bounds = struc.get_residue_starts(atoms, add_exclusive_stop=True)
    residue = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    between = residue[given[:, 0]] != residue[given[:, 1]]
    given = given[~between | (np.linalg.norm(x[given[:, 0]] - x[given[:, 1]], axis=1) < _PEPTIDE_LIMIT)]
    joined = np.zeros(len(atoms), bool)
    joined[given.ravel()] = True
    more = []
    for atom in np.nonzero(~joined)[0]:
        start, stop = bounds[residue[atom] : residue[atom] + 2]
        if stop - start == 1:
            continue  # an ion
        if not joined[start:stop].any() and info.link_type(str(atoms.res_name[atom])) is None:
            raise ValueError(
                f"{path}: residue {_label(atoms, atom).split(' of ')[1]} is unknown: take it out, give it the name "
                "that the Chemical Component Dictionary has, or add its CONECT records"
            )
        others = np.arange(start, stop)
        others = others[(others != atom) & heavy[start:stop]]
        distances = np.linalg.norm(x[others] - x[atom], axis=1)
        if not len(others) or distances.min() > (_HEAVY_LIMIT if heavy[atom] else _HYDROGEN_LIMIT):
            raise ValueError(
                f"{path}: {_label(atoms, atom)} is bonded to nothing: its name is unknown in this residue, and no atom "
                "of the residue is close; correct the name or the coordinates, or take it out"
            )
        more.append((others[distances.argmin()], atom))
    sulfur = np.nonzero((atoms.res_name == "CYS") & (atoms.atom_name == "SG"))[0]
    i, j = np.nonzero(np.triu(np.linalg.norm(x[sulfur, None] - x[sulfur], axis=2) < _DISULFIDE_LIMIT, 1))
    parts = [given, np.array(more, np.int64).reshape(-1, 2), np.stack([sulfur[i], sulfur[j]], 1)]
    return struc.BondList(len(atoms), np.concatenate(parts))


def _check_pocket(x: Array, residue: Array, atoms: Any, ligand: Array, farthest: float, source: str) -> None:
    """Refuse a ligand that is elsewhere, or that is in the protein's file as well."""
    heavy = np.nonzero(atoms.element != "H")[0]
    closest = np.sqrt([np.min(np.sum((ligand - each) ** 2, 1)) for each in x[heavy]])
    if closest.min() > farthest:
        atom = heavy[closest.argmin()]
        raise ValueError(
            f"the ligand is {closest.min():.1f} angstrom from the closest atom of {source}, {_label(atoms, atom)}: "
            f"expected at most {farthest:g}; are both files in the same frame, is the ligand docked?"
        )
    for number in np.unique(residue[heavy[closest < _SAME_PLACE]]):
        own = residue[heavy] == number
        if own.sum() > 2 and (closest[own] < _SAME_PLACE).all():
            atom = heavy[own][0]
            raise ValueError(
                f"residue {_label(atoms, atom).split(' of ')[1]} of {source} lies where the ligand is: take it out of "
                "the protein's file"
            )


def _label(atoms: Any, atom: Any) -> str:
    one = atoms[int(atom)]
    return f"{one.atom_name} of {one.res_name} {one.res_id}{one.ins_code} in chain {one.chain_id or '-'}"


def _names(symbols: list[str]) -> list[str]:
    """C1, C2, N1, ... as in PDB files."""
    counters = {symbol: count(1) for symbol in symbols}
    return [f"{symbol.upper()}{next(counters[symbol])}" for symbol in symbols]
