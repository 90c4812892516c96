"""Ligands from SDF, MOL and MOL2 files, by RDKit."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_SUFFIXES = (".sdf", ".sd", ".mol", ".mol2")


def library(name: str) -> Any:
    """The module `name` of one of the optional libraries."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise NotImplementedError(
            f"reading structures needs {name.split('.')[0]}: pip install 'pykernels[bio]' ({error})"
        ) from error


class Record(NamedTuple):
    """One molecule of a file, unread."""

    path: Path
    line: int  # where it begins, from 1
    text: str

    @property
    def name(self) -> str:
        lines = self.text.splitlines()
        return lines[1 if self.path.suffix.lower() == ".mol2" else 0].strip() if len(lines) > 1 else ""


def records(path: Any) -> list[Record]:
    """The molecules of a file in its order; ValueError if there is none."""
    path = Path(path)
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"{path}: expected a ligand file that ends in one of {', '.join(_SUFFIXES)}")
    tripos = path.suffix.lower() == ".mol2"
    found, start, lines = [], 0, path.read_text(errors="replace").splitlines()
    ends = [i for i, line in enumerate(lines) if line.startswith("@<TRIPOS>MOLECULE" if tripos else "$$$$")]
    if tripos:
        start, ends = (ends[0] if ends else len(lines)), ends[1:]
    for end in [*ends, len(lines)]:
        block = lines[start:end]
        if any(line.strip() for line in block):
            found.append(Record(path, start + 1, "\n".join(block) + "\n"))
        start = end if tripos else end + 1
    if not found:
        raise ValueError(f"{path} holds no molecule")
    return found


def read_ligand(path: Any, index: int = 0) -> Any:
    """Molecule number `index`, from 0, of a file: an RDKit molecule with one conformer and explicit hydrogens.

    Hydrogens that an SDF or MOL file leaves out are added, with coordinates, as valences ask; they follow the
    atoms of the file. MOL2 files must have all of them. Protonation states are those of the file.

    Raises
    ------
    ValueError
        A record that does not parse, atoms of impossible valence, unknown or dummy elements, several
        molecules in one record, no coordinates, flat ones, or such that are not finite.
    NotImplementedError
        RDKit is not installed.
    """
    there = records(path)
    if not -len(there) <= index < len(there):
        raise ValueError(f"ligand_index={index}: expected one of the {len(there)} molecules of {path}, from 0")
    return molecule(there[index])


def molecule(record: Record) -> Any:
    """What `read_ligand` says, of a record."""
    chem, base = library("rdkit.Chem"), library("rdkit.rdBase")
    where = f"{record.path}, molecule {record.name or '(no name)'} from line {record.line}"
    parse = chem.MolFromMol2Block if record.path.suffix.lower() == ".mol2" else chem.MolFromMolBlock
    with base.BlockLogs():
        found = parse(record.text, sanitize=False, removeHs=False)
        if found is None:
            raise ValueError(f"{where} does not parse{_fault(record)}: repair the file, or write it anew")
        problems = [problem.Message() for problem in chem.DetectChemistryProblems(found)]
        if problems:
            raise ValueError(f"{where}: {'; '.join(problems)} (atoms from 0): correct bond orders and charges")
        chem.SanitizeMol(found)
    _check(chem, found, where)
    chem.AssignStereochemistryFrom3D(found)
    found = chem.AddHs(found, addCoords=True)
    found.SetProp("_Name", record.name)
    return found


def _check(chem: Any, found: Any, where: str) -> None:
    if not found.GetNumAtoms():
        raise ValueError(f"{where} has no atoms")
    for atom in found.GetAtoms():
        if not atom.GetAtomicNum():
            raise ValueError(f"{where}: atom {atom.GetIdx() + 1} is {atom.GetSymbol()!r}, which is no element")
        if atom.GetNumRadicalElectrons() and atom.GetNoImplicit():
            raise ValueError(
                f"{where}: atom {atom.GetIdx() + 1}, {atom.GetSymbol()}, has free valences: add the missing hydrogens; "
                "they are inferred for SDF files, not for MOL2 files"
            )
    parts = chem.GetMolFrags(found)
    if len(parts) > 1:
        raise ValueError(f"{where} is {len(parts)} separate molecules: keep one of them, without counter-ions")
    if not found.GetNumConformers():
        raise ValueError(f"{where} has no coordinates: expected a pose in the pocket")
    conformer = found.GetConformer()
    x = conformer.GetPositions()
    bad = np.nonzero(~np.isfinite(x).all(1))[0]
    if len(bad):
        raise ValueError(f"{where}: the coordinates of atom {bad[0] + 1} are {x[bad[0]].tolist()}: expected numbers")
    if len(x) > 1 and not x.any():
        raise ValueError(f"{where}: all coordinates are zero: expected a pose in the pocket")
    if len(x) > 1 and not x[:, 2].any() and not conformer.Is3D():
        raise ValueError(f"{where} is flat, a drawing: expected a pose in the pocket; dock it first")


def _fault(record: Record) -> str:
    """Where a V2000 record goes wrong, for the message; empty if that is unknown."""
    elements = {symbol.upper() for symbol in periodic_table()} | {"D", "T"}
    lines = record.text.splitlines()
    if len(lines) < 4 or "V3000" in lines[3] or record.path.suffix.lower() == ".mol2":
        return ""
    n_atoms = 0
    for number, line in enumerate(lines[3:]):
        try:
            if number == 0:
                n_atoms, n_bonds = int(line[:3]), int(line[3:6])
                if len(lines) < 4 + n_atoms + n_bonds:
                    return (
                        f" (line {record.line + 3} announces {n_atoms} atoms, {n_bonds} bonds; the file ends earlier)"
                    )
            elif number <= n_atoms:
                [float(line[start : start + 10]) for start in (0, 10, 20)]
                if line[31:34].strip().upper() not in elements:
                    return f" (line {record.line + 3 + number}: unknown element {line[31:34].strip()!r})"
            elif number <= n_atoms + n_bonds and not {int(line[:3]), int(line[3:6])} <= set(range(1, n_atoms + 1)):
                raise ValueError
        except ValueError:
            return f" (line {record.line + 3 + number}: {line!r})"
    return ""


def periodic_table() -> list[str]:
    """The symbols of the elements."""
    table = library("rdkit.Chem").GetPeriodicTable()
    return [table.GetElementSymbol(number) for number in range(1, 119)]
