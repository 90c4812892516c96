"""ForceField: against the published implementation, a brute force in float64, and finite differences."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from tiered_golden import golden, needs_golden

from pykernels.tiered.energy import ForceField

BACKENDS = ("reference", "cpu")


def molecule(seed: int = 0, atoms: int = 24) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A chain with a bond, angle, dihedral and improper at every turn, and its coordinates."""
    draw = np.random.default_rng(seed)
    chain = np.arange(atoms)
    bonds, angles, dihedrals = (np.stack([chain[i : atoms - n + i + 1] for i in range(n)], 1) for n in (2, 3, 4))
    arrays = {
        "bonds": bonds,
        "angles": angles,
        "dihedrals": dihedrals,
        "impropers": dihedrals[::3],
        "bond_harmonic": draw.uniform((100, 1.2), (300, 1.6), (len(bonds), 2)),
        "angle_charmm": draw.uniform((30, 100, 5, 2.2), (60, 120, 20, 2.6), (len(angles), 4)),
        "dihedral_multi_index": np.arange(0, len(dihedrals), 2),
        "dihedral_multi": draw.normal(size=(len(dihedrals[::2]), 5)),
        "dihedral_charmm_index": np.arange(1, len(dihedrals), 2),
        "dihedral_charmm": np.array([[0.7, 3, 0, 1], [0.4, 2, 180, 0.5]])[np.arange(len(dihedrals[1::2])) % 2],
        "improper": draw.uniform((10, 0), (90, 40), (len(dihedrals[::3]), 2)),
        "atom_type": draw.integers(0, 5, atoms),
        "charge": draw.normal(size=atoms) / 3,
        "epsilon": (table := draw.uniform(0.02, 0.2, (5, 5))) + table.T,
        "sigma": (table := draw.uniform(1.2, 1.7, (5, 5))) + table.T,
        "lj_cutoff": 6.0,
    }
    x = np.cumsum(draw.normal(size=(atoms, 3)), 0)
    return arrays, 1.3 * x / np.linalg.norm(np.diff(x, axis=0), axis=1).mean()


def brute_force(arrays: dict[str, np.ndarray], x: np.ndarray) -> dict[str, float]:
    """Lennard-Jones and Coulomb by the rules of the golden data's description, pair by pair."""
    bonded = {frozenset(map(int, (row[0], row[-1]))) for name in ("bonds", "angles") for row in arrays[name]}
    included = {frozenset(map(int, row[[0, 3]])) for row in arrays["dihedrals"]}
    lj = coulomb = 0.0
    for i, j in itertools.combinations(range(len(x)), 2):
        if {i, j} in bonded and {i, j} not in included:
            continue
        r = np.linalg.norm(x[i] - x[j])
        kinds = arrays["atom_type"][i], arrays["atom_type"][j]
        s = (arrays["sigma"][kinds] / r) ** 6
        lj += 4 * arrays["epsilon"][kinds] * (s * s - s) * (r < arrays["lj_cutoff"])
        coulomb += 332.33 * arrays["charge"][i] * arrays["charge"][j] / r
    return {"lj": lj, "coulomb": coulomb}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "free"])
@needs_golden
def test_published_energies(backend, fixed):
    data = golden()
    names = list(data["term_names"])
    field = ForceField.from_arrays(**{k: v for k, v in data.items() if fixed or k != "fixed_atoms"})
    terms, _ = field.energy_and_gradient(
        data["positions"].astype(np.float32 if backend == "cpu" else np.float64), backend=backend
    )
    for name, value in zip(names, data["initial_terms"], strict=True):
        assert terms[name] == pytest.approx(value, rel=2e-4 if name == "improper" else 1e-5)
    terms, gradient = field.energy_and_gradient(data["out_positions"], backend=backend)
    for name, value in zip(names, data["out_terms"], strict=True):
        assert terms[name] == pytest.approx(value, rel=1e-12)
    expected = data["out_force_gradient"]
    assert np.abs(gradient - expected).max() < 1e-12 * np.abs(expected).max()
    if backend == "cpu":
        terms, gradient = field.energy_and_gradient(data["out_positions"].astype(np.float32))
        for name, value in zip(names, data["out_terms"], strict=True):
            assert terms[name] == pytest.approx(value, rel=3e-5)
        assert np.linalg.norm(gradient - expected) < 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(3))
def test_pairs_against_a_loop(backend, seed):
    arrays, x = molecule(seed)
    terms, _ = ForceField.from_arrays(**arrays).energy_and_gradient(x, backend=backend)
    for name, value in brute_force(arrays, x).items():
        assert terms[name] == pytest.approx(value, rel=1e-11)


@pytest.mark.parametrize("options", [{}, {"lj_14": 0.5, "coulomb_14": 0.8333}, {"fixed_atoms": np.arange(9)}], ids=str)
def test_gradient_by_finite_differences(options):
    arrays, x = molecule(1)
    field = ForceField.from_arrays(**arrays, **options)
    _, gradient = field.energy_and_gradient(x)
    steps = 1e-5 * np.eye(x.size).reshape(-1, *x.shape)
    above, below = (field.energy_and_gradient(x + each)[0]["total"] for each in (steps, -steps))
    differences = (above - below) / 2e-5
    assert np.abs(gradient.reshape(-1) - differences).max() < 1e-7 * np.abs(differences).max()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_batch_is_its_members_and_a_rigid_motion_changes_nothing(dtype):
    arrays, x = molecule(2)
    field = ForceField.from_arrays(**arrays, fixed_atoms=[0, 1, 2])
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    batch = np.stack([x, x + 0.01 * np.sin(np.arange(x.size)).reshape(x.shape), x @ turn.T + 5]).astype(dtype)
    terms, gradient = field.energy_and_gradient(batch)
    for b, member in enumerate(batch):
        alone, its_gradient = field.energy_and_gradient(member)
        assert all(terms[name][b] == alone[name] for name in terms)
        assert np.array_equal(gradient[b], its_gradient)
    tolerance = 1e-10 if dtype == np.float64 else 1e-4
    assert terms["total"][2] == pytest.approx(terms["total"][0], rel=tolerance)
    assert np.abs(gradient[2] - gradient[0] @ turn.T).max() < tolerance * np.abs(gradient[0]).max()


def test_fixed_atoms_change_neither_energy_nor_gradient():
    arrays, x = molecule(3)
    free = ForceField.from_arrays(**arrays)
    fixed = free.with_fixed(np.arange(3, 15))
    moved = x.copy()
    moved[5] += 0.1
    for positions in (x, moved, x):  # what is computed once follows the coordinates of the fixed atoms
        expected, at = free.energy_and_gradient(positions)
        terms, gradient = fixed.energy_and_gradient(positions)
        assert all(terms[name] == pytest.approx(expected[name], rel=1e-11) for name in expected)
        assert gradient == pytest.approx(at, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("dielectric", [None, 78.5])
def test_cells_find_what_all_pairs_have(dtype, dielectric):
    draw = np.random.default_rng(4)
    count = 700
    x = draw.uniform(0, 30, (2, count, 3)).astype(dtype)
    x[1, 0] = 500  # one atom far away makes the grid sparse
    arrays = {
        "charge": draw.normal(size=count) / 3,
        "atom_type": draw.integers(0, 4, count),
        "epsilon": np.full(4, 0.1),
        "sigma": draw.uniform(1, 2, 4),
        "bonds": draw.integers(0, count, (50, 2)),
    }
    cells = ForceField.from_arrays(**arrays, fixed_atoms=np.arange(0, count, 5)).with_cutoff(5.0, dielectric)
    everything = ForceField(cells.description, cells.fixed_atoms)
    terms, gradient = cells.energy_and_gradient(x)
    expected, at = everything.energy_and_gradient(x)
    tolerance = 1e-10 if dtype == np.float64 else 2e-5
    for name in expected:
        assert terms[name] == pytest.approx(expected[name], rel=tolerance)
    assert np.linalg.norm(gradient - at) < tolerance * np.linalg.norm(at)


def test_excluded_pairs_contribute_nothing_at_all():
    pair = {"charge": [1.0, -1.0], "atom_type": [0, 0], "epsilon": [[0.1]], "sigma": [[3.0]], "bonds": [[0, 1]]}
    for x in ([[0.0, 0, 0], [0, 0, 1e-3]], [[0.0, 0, 0], [0, 0, 4]]):
        for dtype in (np.float32, np.float64):
            terms, gradient = ForceField.from_arrays(**pair).energy_and_gradient(np.array(x, dtype))
            assert terms["lj"] == terms["coulomb"] == 0
            assert not gradient.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_coincident_atoms_are_finite(dtype):
    arrays, x = molecule(5)
    x[7] = x[20]
    x[3] = x[2]
    terms, gradient = ForceField.from_arrays(**arrays).energy_and_gradient(x.astype(dtype))
    assert np.isfinite(terms["total"]) and np.isfinite(gradient).all()


def test_terms_by_name():
    arrays, x = molecule(6)
    terms, _ = ForceField.from_arrays(**arrays).energy_and_gradient(x)
    assert list(terms) == ["bond", "angle", "dihedral", "improper", "lj", "coulomb"]
    assert terms["total"] == pytest.approx(sum(terms.values()))
    with pytest.raises(KeyError, match="expected one of"):
        terms["vdw"]


def test_combination_rules():
    arrays, x = molecule(7)
    sigma, epsilon = np.array([1.0, 2, 3, 2, 1]), np.array([0.1, 0.2, 0.3, 0.1, 0.2])
    root = np.sqrt(np.outer(epsilon, epsilon))
    for rule, table in (
        ("geometric", np.sqrt(np.outer(sigma, sigma))),
        ("lorentz-berthelot", np.add.outer(sigma, sigma) / 2),
    ):
        by_rule = ForceField.from_arrays(**arrays | {"epsilon": epsilon, "sigma": sigma}, combination=rule)
        by_table = ForceField.from_arrays(**arrays | {"epsilon": root, "sigma": table})
        assert by_rule.energy_and_gradient(x)[0]["lj"] == pytest.approx(by_table.energy_and_gradient(x)[0]["lj"])


def test_threads_and_thread_counts_give_the_same_bits():
    code = """
import hashlib, numpy as np
from test_tiered_energy import molecule
from pykernels.tiered.energy import ForceField
arrays, x = molecule(8, 300)
terms, gradient = ForceField.from_arrays(**arrays).energy_and_gradient(np.stack([x, x + 1]))
print(hashlib.sha256(gradient.tobytes() + terms["total"].tobytes()).hexdigest())
"""
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    environments = [{**os.environ, "NUMBA_NUM_THREADS": count, "PYTHONPATH": path} for count in "12"]
    command = [sys.executable, "-c", code]
    here = Path(__file__).parent
    runs = [subprocess.run(command, env=e, cwd=here, capture_output=True, text=True) for e in environments]
    assert runs[0].stdout and runs[0].stdout == runs[1].stdout, runs[0].stderr

    arrays, x = molecule(8, 300)
    field, found = ForceField.from_arrays(**arrays), []
    workers = [threading.Thread(target=lambda: found.append(field.energy_and_gradient(x)[1])) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 4 and all(np.array_equal(each, found[0]) for each in found)
