"""Structures and tiers from files, good and bad."""

from __future__ import annotations

import re

import numpy as np
import pytest
from tiered_files import write_files

pytest.importorskip("rdkit")
pytest.importorskip("biotite")
from rdkit import Chem
from rdkit.Chem import AllChem, rdMolAlign

from pykernels.tiered._build import BACKBONE, build_tiers, secondary_structure
from pykernels.tiered._ligand import read_ligand, records
from pykernels.tiered._rmsd import automorphisms, rmsd, select
from pykernels.tiered._structures import read_complex
from pykernels.tiered._trim import surroundings, trimmed


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("complex"))


@pytest.fixture(scope="module")
def complex_(files):
    return read_complex(*files)


def changed(tmp_path, path, *changes):
    """A copy of a text file in which patterns are replaced, each once."""
    text = path.read_text()
    for pattern, new in changes:
        text, count = re.subn(pattern, new, text, count=1, flags=re.M)
        assert count, pattern
    copy = tmp_path / path.name
    copy.write_text(text)
    return copy


def test_a_complex_has_the_atoms_and_bonds_of_its_files(files, complex_):
    peptide = Chem.MolFromPDBFile(str(files[0]))
    assert complex_.n_protein == peptide.GetNumAtoms()
    ours = {tuple(sorted(pair)) for pair in complex_.bonds.tolist() if max(pair) < complex_.n_protein}
    assert ours == {tuple(sorted((b.GetBeginAtomIdx(), b.GetEndAtomIdx()))) for b in peptide.GetBonds()}
    assert np.abs(complex_.positions[: complex_.n_protein] - peptide.GetConformer().GetPositions()).max() < 1e-3
    assert complex_.ligand.GetNumAtoms() == len(complex_.ligand_atoms) == 23
    assert complex_.element[complex_.n_protein :].count("H") == 11
    assert complex_.label(complex_.n_protein) == "O1 of LG1 1 in chain L"
    assert complex_.residue[-1] == 11 and len(set(complex_.residue.tolist())) == 12


def test_added_hydrogens_have_places(complex_):
    x, kinds = complex_.positions, np.array(complex_.element)
    pairs = complex_.bonds[(kinds[complex_.bonds] == "H").any(1)]
    lengths = np.linalg.norm(x[pairs[:, 0]] - x[pairs[:, 1]], axis=1)
    assert len(pairs) == 11 and lengths.min() > 0.8 and lengths.max() < 1.2


def test_mmcif_and_mol2_and_models_and_alternate_locations(files, complex_, tmp_path):
    from biotite.structure.io import pdb, pdbx

    cif = pdbx.CIFFile()
    pdbx.set_structure(cif, pdb.PDBFile.read(files[0]).get_structure(model=1))
    cif.write(tmp_path / "protein.cif")
    same = read_complex(tmp_path / "protein.cif", files[1])
    assert np.array_equal(same.positions, complex_.positions) and np.array_equal(same.bonds, complex_.bonds)

    lines = files[0].read_text().splitlines()
    other = lines[0][:16] + "B" + lines[0][17:30] + "   9.000" + lines[0][38:54] + "  0.30" + lines[0][60:]
    first = lines[0][:16] + "A" + lines[0][17:54] + "  0.70" + lines[0][60:]
    models = ["MODEL        1", first, other, *lines[1:-1], "ENDMDL", "MODEL        2", *lines[1:-1], "ENDMDL", "END"]
    (tmp_path / "models.pdb").write_text("\n".join(models))
    same = read_complex(tmp_path / "models.pdb", files[1])
    assert np.array_equal(same.positions, complex_.positions)

    (tmp_path / "two.mol2").write_text(MOL2 + MOL2.replace("methanol", "again"))
    assert [record.name for record in records(tmp_path / "two.mol2")] == ["methanol", "again"]
    assert Chem.MolToSmiles(Chem.RemoveHs(read_ligand(tmp_path / "two.mol2", 1))) == "CO"
    (tmp_path / "bare.mol2").write_text(
        re.sub(r"(?m)^ [3-6] H.*\n| [2-5] [12] [3-6] 1\n", "", MOL2).replace("6 5", "2 1")
    )
    with pytest.raises(ValueError, match=r"methanol from line 1: atom 1, C, has free valences: add the missing"):
        read_ligand(tmp_path / "bare.mol2")


MOL2 = """@<TRIPOS>MOLECULE
methanol
6 5 0 0 0
SMALL
NO_CHARGES

@<TRIPOS>ATOM
 1 C1 0.0 0.0 0.1 C.3
 2 O1 1.4 0.0 0.1 O.3
 3 H1 -0.4 1.0 0.1 H
 4 H2 -0.4 -0.5 0.9 H
 5 H3 -0.4 -0.5 -0.9 H
 6 H4 1.7 0.9 0.1 H
@<TRIPOS>BOND
 1 1 2 1
 2 1 3 1
 3 1 4 1
 4 1 5 1
 5 2 6 1
"""


def test_water_is_left_out_unless_asked_for(files, tmp_path):
    text = (
        files[0]
        .read_text()
        .replace("END\n", "HETATM 9999  O   HOH A 900      50.000  50.000  50.000  1.00  0.00           O\nEND\n")
    )
    (tmp_path / "wet.pdb").write_text(text)
    dry = read_complex(tmp_path / "wet.pdb", files[1])
    wet = read_complex(tmp_path / "wet.pdb", files[1], waters=True)
    assert wet.n_protein == dry.n_protein + 1 and "HOH" not in dry.residue_name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([(r"^(ATOM +8 .{18}).{8}", r"\1   x.0000")], r"protein.pdb does not parse \(line 8: 'ATOM +8 "),
        ([(r"^(ATOM +6 .{18}).{8}", r"\1     nan")], r"coordinates of CA of PHE 2 in chain A are \[nan"),
        ([(r"(CA  PHE.*) C  $", r"\1QQ  ")], r"CA of PHE 2 in chain A has the unknown element 'QQ'"),
        ([(r"SER", "0?0")] * 6, r"residue 0\?0 5 in chain A is unknown"),
        ([(r"OG  SER(.{10}).{8}", r"QG  SER\1  99.000")], r"QG of SER 5 in chain A is bonded to nothing"),
        ([(r"(?s)^.*$", "REMARK nothing\n")], r"protein.pdb (does not parse|has no atoms)"),
    ],
)
def test_proteins_that_cannot_be_used(files, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        read_complex(changed(tmp_path, files[0], *changes), files[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([(r"^(.{10}) .{9}(.*C   0)", r"\1    x.0000\2")], r"LG1 from line 1 does not parse \(line \d+: '.*x\.0000"),
        ([(r" C   0", " Qq  0")], r"does not parse \(line 6: unknown element 'Qq'\)"),
        ([(r"^  1  2  1", "  1 99  1")], r"does not parse \(line 17: '  1 99  1"),
        ([(r" C   0", " A   0")], r"atom 2 is '\*', which is no element"),
        ([(r"^  1  2  1", "  1  2  3")], r"Explicit valence for atom # \d [CO], \d, is greater than permitted"),
        ([(r"(?s)^LG1.*$", "\n")], r"holds no molecule"),
        ([(r"^( +\S+ +\S+) +\S*[1-9]\S* (?=[CON] )", r"\1    0.0000 ")] * 12 + [("3D", "2D")], r"is flat, a drawing"),
        (
            [(r"^ +\S+ +\S+ +\S*[1-9]\S* (?=[CON] )", "    0.0000    0.0000    0.0000 ")] * 12,
            r"all coordinates are zero",
        ),
        ([(r"^  1  2  1  0\n", ""), (r" 12 12 ", " 12 11 ")], r"is 2 separate molecules: keep one"),
    ],
)
def test_ligands_that_cannot_be_used(files, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        read_complex(files[0], changed(tmp_path, files[1], *changes))


def test_ligands_elsewhere_or_twice(files, complex_, tmp_path):
    far = Chem.Mol(complex_.ligand)
    far.GetConformer().SetPositions(far.GetConformer().GetPositions() + 40.0)
    Chem.MolToMolFile(far, str(tmp_path / "far.sdf"))
    with pytest.raises(ValueError, match=r"the ligand is \d+\.\d angstrom from the closest atom .* expected at most 6"):
        read_complex(files[0], tmp_path / "far.sdf")
    info = Chem.AtomPDBResidueInfo()
    info.SetResidueName("BEN")
    hetero = "".join(
        f"HETATM 99{i:02d}  {'ABCDEFGHIJKL'[i]}1  BEN B   7    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           C\n"
        for i, (x, y, z) in enumerate(complex_.positions[complex_.n_protein :][:12])
    )
    (tmp_path / "both.pdb").write_text(files[0].read_text().replace("END\n", hetero + "END\n"))
    with pytest.raises(ValueError, match=r"residue BEN 7 in chain B of .* lies where the ligand is"):
        read_complex(tmp_path / "both.pdb", files[1])
    with pytest.raises(ValueError, match=r"ligand_index=3: expected one of the 1 molecules"):
        read_complex(*files, ligand_index=3)
    with pytest.raises(ValueError, match=r"expected a protein file that ends in"):
        read_complex(files[1], files[1])


def test_tiers_follow_residues_and_rotatable_bonds(complex_):
    built = build_tiers(complex_, radius=100.0)
    tiers = built.tiers
    groups = np.split(tiers.group_atoms, tiers.group_ptr[1:-1])
    assert not len(tiers.fixed_atoms) and len(groups) == len(built.group_names)
    for group, name in zip(groups, built.group_names, strict=True):
        inside = {complex_.atom_name[atom] in BACKBONE for atom in group}
        if not name.startswith("ligand"):
            assert inside == {name.startswith("backbone")} and len({complex_.residue[atom] for atom in group}) == 1
    turning = {built.group_names[group] for group in tiers.axis_group}
    assert "side chain of PHE 2 in chain A" in turning
    assert "side chain of PRO 10 in chain A" not in turning and not any("backbone of LYS" in each for each in turning)
    for group, anchor, bonded in zip(tiers.axis_group, tiers.axis_anchor, tiers.axis_bonded, strict=True):
        leaving = [tuple(pair) for pair in complex_.bonds if np.isin(pair, groups[group]).sum() == 1]
        assert [set(pair) for pair in leaving] == [{anchor, bonded}] and bonded in groups[group]
    flips = {built.group_names[group] for group in tiers.axis_group[built.flippable]}
    assert flips == {f"side chain of {name} in chain A" for name in ("PHE 2", "HIS 3", "TYR 4", "TRP 6")}


def test_ligand_is_the_last_macro_group_and_moves_alone_at_radius_0(complex_):
    built = build_tiers(complex_, radius=0.0)
    tiers = built.tiers
    assert np.array_equal(np.sort(tiers.group_atoms), complex_.ligand_atoms)
    assert built.macro_names == ["ligand"] and set(tiers.macro_of_group) == {0}
    heavy = [[a for a in g if a < complex_.n_protein + 12] for g in np.split(tiers.group_atoms, tiers.group_ptr[1:-1])]
    assert sorted(map(len, heavy)) == [1, 1, 1, 1, 2, 6]  # CH2, CH2, NH2, OH, CO, ring
    assert build_tiers(complex_, radius=100.0).macro_names[-1] == "ligand"


def test_the_pocket_is_every_group_with_an_atom_within_the_radius(complex_):
    centre = complex_.positions[0]
    built = build_tiers(complex_, radius=7.0, centre=centre)
    near = set(np.flatnonzero(np.linalg.norm(complex_.positions - centre, axis=1) <= 7.0).tolist())
    everything = build_tiers(complex_, radius=100.0)
    expected = {
        name
        for name, group in zip(
            everything.group_names,
            np.split(everything.tiers.group_atoms, everything.tiers.group_ptr[1:-1]),
            strict=True,
        )
        if near & set(group.tolist()) or name.startswith("ligand")
    }
    assert set(built.group_names) == expected and len(built.tiers.fixed_atoms)
    for bad in (-1.0, np.nan):
        with pytest.raises(ValueError, match="radius="):
            build_tiers(complex_, radius=bad)
    with pytest.raises(ValueError, match="centre="):
        build_tiers(complex_, centre=[0, 1])


def test_chain_breaks_end_loops(files, tmp_path):
    kept = [line for line in files[0].read_text().splitlines() if " SER " not in line]
    (tmp_path / "gap.pdb").write_text("\n".join(kept))
    gapped = read_complex(tmp_path / "gap.pdb", files[1])
    kinds, follows = secondary_structure(gapped)
    assert len(kinds) == 10 and np.flatnonzero(~follows).tolist() == [0, 4]
    if set(kinds) == {"c"}:
        assert len(build_tiers(gapped, radius=100.0).macro_names) == 3


def test_a_trimmed_complex_is_the_same_where_it_is_kept(complex_):
    atoms = surroundings(complex_, complex_.ligand_atoms, 5.0)
    part = trimmed(complex_, atoms)
    assert complex_.n_protein > part.n_protein > 0 and len(part.positions) == len(atoms)
    inside = np.isin(complex_.bonds, atoms).all(1)
    assert np.array_equal(atoms[part.bonds], complex_.bonds[inside])
    assert [part.label(i) for i in range(len(atoms))] == [complex_.label(i) for i in atoms]
    distances = np.linalg.norm(complex_.positions[:, None] - complex_.positions[complex_.n_protein :], axis=2).min(1)
    assert set(complex_.residue[distances <= 5.0]) == set(complex_.residue[atoms])
    tiers = build_tiers(complex_, 0.0).only(atoms)
    assert np.array_equal(np.sort(tiers.group_atoms), part.ligand_atoms)


@pytest.mark.parametrize("smiles", ["OC(=O)c1ccc(CCN)cc1", "CC(C)(C)c1cc(F)cc(F)c1", "[O-]C(=O)CP(=O)([O-])[O-]", "C"])
def test_rmsd_is_rdkits(smiles):
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    AllChem.EmbedMultipleConfs(molecule, 6, randomSeed=2)
    poses = np.array([conformer.GetPositions() for conformer in molecule.GetConformers()])
    ours = rmsd(poses, poses[0], automorphisms(molecule))
    bare = Chem.RemoveHs(molecule)
    theirs = [rdMolAlign.CalcRMS(Chem.Mol(bare), bare, prbId=i, refId=0) for i in range(6)]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_selection_is_greedy_from_the_lowest_energy():
    poses = np.zeros((6, 1, 3))
    poses[:, 0, 0] = [0.0, 0.2, 5.0, 5.1, 9.0, 20.0]
    energies = np.array([3.0, 1.0, 2.0, 1.5, 99.0, np.nan])
    verdicts = select(energies, poses, np.zeros((1, 1), int), window=10.0, distance=0.5)
    assert [verdict == "kept" for verdict in verdicts] == [False, True, False, True, False, False]
    assert verdicts[0] == "within 0.20 A of conformation 1" and verdicts[2] == "within 0.10 A of conformation 3"
    assert verdicts[4] == "98.0 kcal/mol above the lowest" and verdicts[5] == "energy is not finite"
