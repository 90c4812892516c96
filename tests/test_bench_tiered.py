"""The benchmarks of 3T: every peer agrees with the reference, wrong ones are caught; the study of real structures."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

pytest.importorskip("pytest_benchmark")
pytest.importorskip("matplotlib")

from pykernels.bench import harness, real_tiered, tiered_data, tiered_memory, tiered_peers, tiered_plots
from pykernels.bench import tiered_workloads as workloads
from pykernels.bench.bench_tiered import groups
from pykernels.bench.harness import Disagreement
from pykernels.bench.tiered_peers import OPENMM, PUBLISHED, VECTORISED
from pykernels.bench.tiered_polymer import polymer

TINY = {"units": 40, "movable": 30, "groups": 12, "axes": 6, "macros": 3, "kinds": 5}


def forget():
    workloads._first_energy.cache_clear()
    workloads._two_energies.cache_clear()


@pytest.fixture
def small(monkeypatch):
    arrays = polymer(**TINY)
    monkeypatch.setattr(tiered_data, "system", lambda: ("tiny", arrays))
    forget()
    yield arrays
    forget()


def test_every_group_has_a_name_of_its_own():
    for quick in (True, False):
        names = [group.name for group in groups(quick)]
        assert len(set(names)) == len(names) == 6
        assert all(group.least_rounds <= harness.MIN_ROUNDS for group in groups(quick))


def test_polymer_has_the_size_of_the_published_complex():
    arrays = polymer()
    positions = arrays["positions"]
    assert len(positions) == 3321 and len(arrays["group_ptr"]) == 323 and len(arrays["axis_group"]) == 150
    assert arrays["macro_of_group"].max() == 14 and len(arrays["epsilon"]) == 52
    moved = np.concatenate([arrays["group_atoms"], arrays["fixed_atoms"]])
    assert np.array_equal(np.sort(moved), np.arange(len(positions)))
    draw = np.random.default_rng(0).integers(0, len(positions), (20_000, 2))
    apart = np.linalg.norm(positions[draw[:, 0]] - positions[draw[:, 1]], axis=1)
    assert apart[draw[:, 0] != draw[:, 1]].min() > 0.9
    for name in ("angle_harmonic", "angle_charmm"):
        assert arrays[name][:, 1].min() >= 0 and arrays[name][:, 1].max() <= 180  # OpenMM takes no others


def test_ends_of_dihedrals_are_not_excluded():
    ring = {
        "positions": np.zeros((5, 3)),
        "bonds": np.array([[0, 1], [1, 2], [2, 3], [3, 0], [3, 4]]),
        "angles": np.array([[0, 1, 2], [2, 3, 4]]),
        "dihedrals": np.array([[0, 1, 2, 3], [1, 2, 3, 4]]),
    }
    assert tiered_data.excluded(ring).tolist() == [[0, 1], [0, 2], [1, 2], [2, 3], [2, 4], [3, 4]]


@pytest.mark.parametrize("count", [1, 3])
def test_transforms_agree(small, count):
    harness.untimed(workloads.transforming(count, (PUBLISHED, VECTORISED) if count == 1 else (VECTORISED,)))


@pytest.mark.parametrize("count", [1, 3])
def test_energies_agree(small, count):
    harness.untimed(
        workloads.evaluating(count, (PUBLISHED, VECTORISED, OPENMM) if count == 1 else (VECTORISED, OPENMM))
    )


@pytest.mark.parametrize("count", [1, 2])
def test_steps_agree(small, count):
    harness.untimed(workloads.stepping(count, (PUBLISHED, VECTORISED) if count == 1 else (VECTORISED,)))


@pytest.mark.parametrize("what", ["transform", "energy", "step"])
def test_a_wrong_peer_is_caught(small, monkeypatch, what):
    pytest.importorskip("torch")
    right = getattr(tiered_peers, what)

    def wrong(*arguments):
        run = right(*arguments)
        if what == "transform":
            return lambda: (run()[0] + np.float32(1e-3), run()[1])
        return lambda: run() * np.float32(1.0002) if what == "step" else (run()[0], run()[1] * np.float32(1.0002))

    monkeypatch.setattr(tiered_peers, what, wrong)
    make = {"transform": workloads.transforming, "energy": workloads.evaluating, "step": workloads.stepping}[what]
    with pytest.raises(Disagreement, match=f"{VECTORISED}: Disagreement: .*is off by"):
        harness.untimed(make(1, (VECTORISED,)))


def test_absent_peers_are_named(small, monkeypatch):
    monkeypatch.setattr(tiered_peers, "absent", lambda: {OPENMM: "openmm is not installed"})
    record = harness.untimed(workloads.evaluating(1, (OPENMM,)))
    assert record.missing == {OPENMM: "openmm is not installed"}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_memory_of_a_step_is_small():
    assert 0 <= tiered_memory.measure("pykernels", 1) < 100e6  # the published formulation needs a gigabyte


def test_a_study_without_packages_says_so(monkeypatch):
    monkeypatch.setattr(real_tiered, "NEEDED", ("no_such_package",))
    monkeypatch.setattr(tiered_data, "published", lambda: None)
    monkeypatch.setattr(tiered_memory, "table", lambda: {"title": "memory", "columns": (), "rows": []})
    seen = []
    found = real_tiered.study(True, lambda *each: seen.append(each))
    assert [note.split(":")[0] for note in found["notes"]] == ["no published energies", "no re-docking"]
    assert seen[-1] == (2, 3, "done") and "redocking" not in found
    json.dumps(found)


def test_a_ligand_is_redocked(monkeypatch):
    for name in real_tiered.NEEDED:
        pytest.importorskip(name)
    from pykernels.bench import tiered_redocking

    monkeypatch.setattr(tiered_redocking, "CRYSTALS", ("1uou",))
    monkeypatch.setattr(tiered_data, "published", lambda: None)
    monkeypatch.setattr(tiered_memory, "table", lambda: {"title": "memory", "columns": (), "rows": []})
    effort = real_tiered.Effort(starts=2, conformations=2, settle_steps=3, relax_steps=4, rigid_steps=20, radius=3.0)
    found = real_tiered.study(True, effort=effort)
    _, recovered, sound = found["tables"]
    assert [row[:3] for row in recovered["rows"][:3]] == [["1uou", name, 2] for name in found["redocking"]]
    assert len(recovered["rows"]) == 6 and all(len(row) == len(recovered["columns"]) for row in recovered["rows"])
    assert sound["rows"][0] == ["1uou", "crystal", 1, *[1.0] * 7] and len(sound["rows"]) == 3
    assert tiered_plots.redocking(found["redocking"]) is not None and tiered_plots.descent(found["descent"]) is not None
    json.dumps(found)


def test_minimisation_turns_about_bonds_and_keeps_lengths():
    chem = pytest.importorskip("rdkit.Chem")
    chem_3d = pytest.importorskip("rdkit.Chem.AllChem")
    from pykernels.bench.tiered_redocking import minimise, torsions, turn

    diol = chem.AddHs(chem.MolFromSmiles("OCCCCO"))
    chem_3d.EmbedMolecule(diol, randomSeed=1)
    x = diol.GetConformer().GetPositions()
    axes = torsions(diol)
    assert len(axes) == 5 and all(i not in beyond and j in beyond for i, j, beyond in axes)
    target = x + [1.0, -0.5, 0.3]
    i, j, beyond = axes[0]
    about = (target[j] - target[i]) / np.linalg.norm(target[j] - target[i])
    target[beyond] = target[j] + turn(target[beyond] - target[j], 0.5 * about)

    def harmonic(poses):
        return np.sum((poses - target) ** 2, (1, 2)), 2 * (poses - target)

    start = np.stack([x, target])
    found, energies = minimise(harmonic, start.copy(), axes, 400)
    assert energies.max() < 1e-2
    bonds = np.array([(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in diol.GetBonds()])
    lengths = [
        np.linalg.norm(each[..., bonds[:, 0], :] - each[..., bonds[:, 1], :], axis=-1) for each in (start, found)
    ]
    np.testing.assert_allclose(lengths[1], lengths[0], rtol=1e-9)


def test_displacements_are_rigid_and_small():
    for name in real_tiered.NEEDED:
        pytest.importorskip(name)
    from pykernels.bench import tiered_redocking

    crystal = tiered_redocking.crystal("1uou")
    there = crystal.positions[crystal.n_protein :]
    for seed in range(5):
        moved = tiered_redocking.displaced(crystal, seed)
        here = moved.positions[crystal.n_protein :]
        np.testing.assert_array_equal(moved.positions[: crystal.n_protein], crystal.positions[: crystal.n_protein])
        np.testing.assert_array_equal(moved.ligand.GetConformer().GetPositions(), here)
        assert 0 < np.linalg.norm(here.mean(0) - there.mean(0)) <= tiered_redocking.SHIFT
        u, _, v = np.linalg.svd((here - here.mean(0)).T @ (there - there.mean(0)))
        assert 0 < np.arccos((np.trace(u @ v) - 1) / 2) <= tiered_redocking.TURN
        np.testing.assert_allclose(np.linalg.norm(here - here[0], axis=1), np.linalg.norm(there - there[0], axis=1))
