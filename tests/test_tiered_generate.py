"""generate: seeds, batches, interruption, files."""

from __future__ import annotations

import csv
import importlib.util
from dataclasses import replace

import numpy as np
import pytest
from conftest import same_bits
from tiered_files import Springs, write_files

pytest.importorskip("rdkit")
pytest.importorskip("biotite")
from rdkit import Chem

from pykernels.tiered._build import build_tiers
from pykernels.tiered._constants import Schedule
from pykernels.tiered._energies import energy_for
from pykernels.tiered._generate import generate
from pykernels.tiered._schedule import flips, kick
from pykernels.tiered._structures import read_complex
from pykernels.tiered.energy import ForceField

SHORT = Schedule(ligand_steps=21, frozen_steps=5, relax_steps=45, decay_step=30, final_steps=5, strength=2.0)


@pytest.fixture(scope="module")
def complex_(tmp_path_factory):
    return read_complex(*write_files(tmp_path_factory.mktemp("complex")))


@pytest.fixture
def options(complex_):
    return dict(radius=8.0, forcefield=Springs(complex_), schedule=SHORT, distance=0.1)


def table(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def same(a, b):
    """Whether two ensembles have the same bits."""
    for name in ("positions", "total", "settling", "history", "ligand_rmsd", "pocket_rmsd"):
        same_bits(np.ascontiguousarray(getattr(a, name)), np.ascontiguousarray(getattr(b, name)))
    assert a.verdict == b.verdict and a.terms.keys() == b.terms.keys()


def test_conformations_depend_on_seed_and_number_alone(complex_, options):
    whole = generate(complex_, n=5, batch=5, **options)
    same(whole, generate(complex_, n=5, batch=2, **options))
    fewer = generate(complex_, n=3, batch=2, **options)
    same_bits(whole.positions[:3], fewer.positions)
    other = generate(complex_, n=5, seed=1, **options)
    assert np.abs(other.positions - whole.positions).max() > 0.01
    assert whole.positions.dtype == np.float32 and whole.history.shape == (SHORT.steps, 5) and len(whole.settling) == 26
    assert np.all(whole.history[-1] < 0.2 * whole.history[0])
    assert len({whole.positions[i].tobytes() for i in range(5)}) == 5


@pytest.mark.parametrize("forcefield", ["springs", "builtin"])
def test_an_interrupted_run_goes_on_with_the_same_bits(complex_, options, tmp_path, forcefield):
    if forcefield == "builtin":
        options |= {"forcefield": "builtin", "schedule": replace(SHORT, relax_steps=30)}
    steps = options["schedule"].settling_steps + 3 * options["schedule"].steps

    def stop(done, total, note):
        if done > steps:
            raise KeyboardInterrupt

    out = tmp_path / "poses.pdb"
    with pytest.raises(KeyboardInterrupt):
        generate(complex_, n=4, batch=1, out=out, progress=stop, **options)
    assert len(table(tmp_path / "poses.csv")) == 3
    resumed = generate(complex_, n=4, batch=3, out=out, resume=True, **options)
    straight = generate(complex_, n=4, batch=2, out=tmp_path / "straight.pdb", **options)
    same(resumed, straight)
    for suffix in (".pdb", ".csv"):
        assert out.with_suffix(suffix).read_bytes() == (tmp_path / "straight.pdb").with_suffix(suffix).read_bytes()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_resumed_run_must_be_the_same_run(complex_, options, tmp_path):
    out = tmp_path / "poses.pdb"
    generate(complex_, n=1, out=out, **options)
    changes = [
        (dict(seed=5), "seed was 0, is 5"),
        (dict(radius=9.0), "radius was 8.0, is 9.0"),
        (dict(schedule=replace(SHORT, rate=0.2)), "rate was 0.1, is 0.2"),
        (dict(dtype="float64"), "dtype was float32, is float64"),
        (dict(forcefield=lambda x: ({"none": np.zeros(len(x))}, np.zeros_like(x))), "forcefield was Springs"),
    ]
    before = out.with_suffix(".npz").read_bytes()
    for change, message in changes:
        with pytest.raises(ValueError, match=rf"poses.npz is of another run: .*{message}"):
            generate(complex_, n=2, out=out, resume=True, **{**options, **change})
    moved = replace(complex_, positions=complex_.positions + np.eye(3)[0] * 1e-3)
    with pytest.raises(ValueError, match=r"protein was .*ligand was "):
        generate(moved, n=2, out=out, resume=True, **options)
    assert out.with_suffix(".npz").read_bytes() == before
    out.with_suffix(".npz").write_bytes(before[: len(before) // 2])
    with pytest.raises(ValueError, match="cannot be resumed"):
        generate(complex_, n=2, out=out, resume=True, **options)


def test_files_tell_what_the_ensemble_holds(complex_, options, tmp_path):
    from biotite.structure.io import pdb

    ensemble = generate(complex_, n=4, out=tmp_path / "poses.pdb", **{**options, "distance": 0.0})
    assert ensemble.kept == np.argsort(ensemble.total).tolist()
    stack = pdb.PDBFile.read(tmp_path / "poses.pdb").get_structure()
    assert stack.coord.shape == (4, len(complex_.positions), 3)
    for model, i in enumerate(ensemble.kept):
        np.testing.assert_allclose(stack.coord[model], ensemble.coordinates(i), atol=6e-4)
    assert stack.res_name.tolist() == complex_.residue_name and stack.atom_name.tolist() == complex_.atom_name
    fixed = build_tiers(complex_, 8.0).tiers.fixed_atoms
    assert len(fixed) and np.abs(stack.coord[:, fixed] - complex_.positions[fixed]).max() < 6e-4
    records = [line.split()[1:] for line in (tmp_path / "poses.pdb").read_text().splitlines() if line[:6] == "CONECT"]
    pairs = {tuple(sorted((int(a), int(b)))) for a, *others in records for b in others}
    ligand = complex_.bonds[complex_.bonds.min(1) >= complex_.n_protein] + 1
    assert pairs == {tuple(sorted(pair)) for pair in ligand.tolist()}

    rows = table(tmp_path / "poses.csv")
    assert [row["kept"] for row in rows] == ensemble.verdict and list(rows[0])[2:4] == ["bond", "place"]
    np.testing.assert_allclose([float(row["total"]) for row in rows], ensemble.total, atol=1e-5)
    for row in rows:
        assert float(row["bond"]) + float(row["place"]) == pytest.approx(float(row["total"]), abs=1e-5)
    poses = list(Chem.SDMolSupplier(str(tmp_path / "poses.sdf"), removeHs=False))
    assert [int(pose.GetProp("conformation")) for pose in poses] == ensemble.kept
    if importlib.util.find_spec("matplotlib"):
        assert (tmp_path / "poses.png").read_bytes()[:4] == b"\x89PNG"


def test_kicks_and_flips(complex_):
    built = build_tiers(complex_, 100.0)
    tiers, n = built.tiers, built.tiers.n_axes
    many = kick(tiers, np.array([], int), Schedule(), 0, range(200), "float64")
    assert many.translation.min() >= 0 and 1.49 < many.translation.max() <= 1.5
    assert many.euler.min() >= 0 and 0.149 < many.euler.max() <= 0.15
    assert np.abs(many.axis).max() <= 0.15 and many.axis.min() < -0.14
    assert not many.macro_translation.any() and not many.macro_euler.any()
    flipped = kick(tiers, np.arange(n), Schedule(), 0, range(200), "float64")
    assert 0.45 < np.mean(flipped.axis > 2) < 0.55
    same_bits(flipped.axis[17:18], kick(tiers, np.arange(n), Schedule(), 0, [17], "float64").axis)
    possible = np.flatnonzero(built.flippable)
    assert flips(built, complex_.positions, 0.0).tolist() == possible.tolist()
    assert flips(built, complex_.positions, 50.0).tolist() == []


def test_a_trimmed_pocket_has_the_forces_of_the_whole(complex_):
    """What is left out is out of reach: the built-in force field with it and without it moves the ligand alike."""
    fixed = np.arange(complex_.n_protein)
    energy, atoms = energy_for("builtin", complex_, fixed)
    whole = ForceField.for_pocket(complex_, fixed)
    ours = energy.energy_and_gradient(complex_.positions[atoms])[1]
    theirs = whole.energy_and_gradient(complex_.positions)[1]
    ligand = complex_.ligand_atoms
    np.testing.assert_allclose(ours[np.searchsorted(atoms, ligand)], theirs[ligand], atol=1e-9)


def test_a_conformation_that_is_lost_is_not_kept(complex_, options):
    springs = options.pop("forcefield")

    def broken(x):
        terms, gradient = springs(x)
        return {name: np.where(np.arange(len(x)) == 1, np.nan, values) for name, values in terms.items()}, gradient

    ensemble = generate(complex_, n=3, forcefield=broken, **options)
    assert ensemble.verdict[1] == "energy is not finite" and 1 not in ensemble.kept and ensemble.kept


def test_options_that_cannot_be_used_write_nothing(complex_, options, tmp_path):
    bad = [
        (dict(n=0), ValueError, "n=0: expected an integer at least 1"),
        (dict(n=2.5), TypeError, r"n=2\.5: expected an integer"),
        (dict(window=-1.0), ValueError, "window=-1.0"),
        (dict(seed=-1), ValueError, "seed=-1"),
        (dict(dtype="float16"), TypeError, "dtype='float16': expected float32 or float64"),
        (dict(forcefield="amber"), ValueError, "forcefield='amber': expected 'builtin'"),
        (dict(out=tmp_path / "poses.txt"), ValueError, r"expected a file name that ends in \.pdb"),
        (dict(out=tmp_path / "none" / "poses.pdb"), ValueError, "the folder .* does not exist"),
        (dict(out=None, resume=True), ValueError, "resume=True without out"),
        (dict(ligand="ligand.sdf"), TypeError, "expected None, as protein is a Complex"),
    ]
    for change, kind, message in bad:
        with pytest.raises(kind, match=message):
            generate(complex_, **{**options, "out": tmp_path / "poses.pdb", **change})
    with pytest.raises(TypeError, match="ligand is None"):
        generate("protein.pdb")
    assert not list(tmp_path.iterdir())
    for field, value, kind in (
        ("rate", -0.1, ValueError),
        ("relax_steps", 1.5, TypeError),
        ("clip", np.nan, ValueError),
    ):
        with pytest.raises(kind, match=f"{field}={value}"):
            Schedule(**{field: value})


def test_a_schedule_of_no_steps_is_the_kick_alone(complex_, options):
    none = Schedule(
        ligand_steps=0, frozen_steps=0, relax_steps=0, final_steps=0, strength=0.0, kick_axis=0.0, flip_probability=0.0
    )
    ensemble = generate(complex_, n=2, **{**options, "schedule": none})
    np.testing.assert_allclose(ensemble.coordinates(1), complex_.positions, atol=1e-5)
    assert ensemble.history.shape == (0, 2) and ensemble.ligand_rmsd.max() < 1e-5


def test_matplotlib_is_optional(complex_, options, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "pykernels.tiered._plots", raising=False)
    notes = []
    generate(complex_, n=1, out=tmp_path / "p.pdb", progress=lambda done, total, note: notes.append(note), **options)
    assert notes[-1].endswith("p.png: matplotlib is not installed (pip install matplotlib)")
    assert not (tmp_path / "p.png").exists()
