"""Descent: compiled steps against the launchers of the reference, one by one."""

from __future__ import annotations

import re

import numpy as np
import pytest
from test_tiered_energy import molecule

from pykernels.tiered import Descent, Parameters, Tiers
from pykernels.tiered.energy import ForceField

MACROS = [0, -1, 0, 1, 1]


def system(seed: int = 0) -> tuple[Tiers, ForceField, np.ndarray]:
    arrays, x = molecule(seed)
    tiers = Tiers(24, [0, 1, 6, 11, 15, 20], np.arange(2, 22), MACROS, [1, 3], [2, 12], [3, 13], [0, 1, 22, 23])
    return tiers, ForceField.from_arrays(**arrays), np.stack([x, x + 0.05 * np.cos(np.arange(72)).reshape(24, 3)])


def started(tiers: Tiers, batch: int, dtype: type = np.float64) -> Parameters:
    draw = np.random.default_rng(3)
    return Parameters(*(0.1 * draw.normal(size=each.shape).astype(dtype) for each in Parameters.zeros(tiers, batch)))


@pytest.mark.parametrize("pivot", ["micro", "macro"])
def test_compiled_steps_are_those_of_the_definition(pivot):
    tiers, field, x = system()
    runs = []
    for backend in ("cpu", "reference"):
        descent = Descent(tiers, field, x, parameters=started(tiers, 2), pivot=pivot, backend=backend)
        history = np.concatenate([descent.run(4, 1e-2, 1e-3), descent.run(3, [3e-3, 2e-3, 1e-3])])
        runs.append((history, descent.coordinates(), *descent.parameters, descent.energies()["total"]))
    for ours, expected in zip(*runs, strict=True):
        assert ours == pytest.approx(expected, rel=1e-8, abs=1e-9)


def test_any_function_drives_it():
    tiers, field, x = system(1)
    compiled, called = Descent(tiers, field, x), Descent(tiers, field.energy_and_gradient, x)
    assert compiled.run(5, 1e-2) == pytest.approx(called.run(5, 1e-2), rel=1e-10)
    assert compiled.coordinates() == pytest.approx(called.coordinates(), rel=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_batch_is_its_members_and_a_run_its_parts(dtype):
    tiers, field, x = system(2)
    x = x.astype(dtype)
    together = Descent(tiers, field, x)
    history = together.run(6, 1e-2)
    for b in range(2):
        alone = Descent(tiers, field, x[b : b + 1])
        parts = np.concatenate([alone.run(2, 1e-2), alone.run(4, 1e-2)])
        assert np.array_equal(parts[:, 0], history[:, b])
        assert np.array_equal(alone.coordinates()[0], together.coordinates()[b])


def test_it_descends_and_leaves_fixed_atoms_and_the_input_alone():
    tiers, field, x = system(3)
    before = x.copy()
    descent = Descent(tiers, field, x)
    history = descent.run(200, 1e-3)
    assert np.all(history[-1] < history[0])
    assert descent.energies()["total"] == pytest.approx(history[-1], rel=0.1)
    assert np.array_equal(x, before)
    assert np.array_equal(descent.coordinates()[:, tiers.fixed_atoms], x[:, tiers.fixed_atoms])
    assert descent.steps == 200


def test_torch_tensors_take_the_same_steps():
    torch = pytest.importorskip("torch")
    tiers, field, x = system(4)
    ours, theirs = Descent(tiers, field, x), Descent(tiers, field, torch.from_numpy(x))
    assert np.array_equal(ours.run(3, 1e-2), theirs.run(3, 1e-2))
    assert np.array_equal(ours.coordinates(), theirs.coordinates().numpy())


def test_a_gpu_takes_the_same_steps():
    torch = pytest.importorskip("torch")
    pytest.importorskip("triton")
    tiers, field, x = system(4)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    ours = Descent(tiers, field, x)
    theirs = Descent(tiers, field, torch.from_numpy(x).to(device), backend="gpu")
    assert ours.run(2, 1e-2) == pytest.approx(theirs.run(2, 1e-2), rel=1e-10)
    assert ours.coordinates() == pytest.approx(theirs.coordinates().cpu().numpy(), rel=1e-9)
    terms, gradient = field.energy_and_gradient(torch.from_numpy(x).to(device), backend="gpu")
    expected, at = field.energy_and_gradient(x)
    assert terms["total"].cpu().numpy() == pytest.approx(expected["total"], rel=1e-11)
    assert gradient.cpu().numpy() == pytest.approx(at, rel=1e-8, abs=1e-8 * np.abs(at).max())


def test_clipped_gradients():
    tiers, _, x = system(5)
    steep = Descent(tiers, lambda y: (np.zeros(2), np.full_like(y, 1e6)), x, clip=1.0)
    unit = Descent(tiers, lambda y: (np.zeros(2), np.ones_like(y)), x, clip=1.0)
    steep.run(1, 0.1)
    unit.run(1, 0.1)
    assert steep.parameters.translation == pytest.approx(unit.parameters.translation)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"positions": np.zeros((24, 3))}, ValueError, "positions has shape (24, 3): expected (B, 24, 3)"),
        ({"positions": np.zeros((1, 24, 3), int)}, TypeError, "positions has dtype int64"),
        ({"positions": np.full((1, 24, 3), np.nan)}, ValueError, "positions: atom 0"),
        ({"energy": 3}, TypeError, "energy is a int: expected a ForceField or a function"),
        (
            {"energy": ForceField.from_arrays(bonds=[[0, 1]], bond_harmonic=[[1, 1]])},
            ValueError,
            "energy is of 2 atoms",
        ),
        ({"pivot": "centre"}, ValueError, "pivot='centre'"),
        ({"beta1": 1.0}, ValueError, "beta1=1.0"),
        ({"epsilon": 0}, ValueError, "epsilon=0"),
        ({"clip": -1}, ValueError, "clip=-1"),
    ],
)
def test_bad_input(change, error, message):
    tiers, field, x = system()
    with pytest.raises(error, match=re.escape(message)):
        Descent(**{"tiers": tiers, "energy": field, "positions": x} | change)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((-1, 0.1), ValueError, "steps=-1"),
        ((2, [0.1]), ValueError, "rate has shape (1,): expected a number, or one for each of 2 steps"),
        ((2, 0.1, -1), ValueError, "macro_rate=-1: expected finite numbers >= 0"),
        ((2, np.nan), ValueError, "rate=nan"),
    ],
)
def test_bad_runs(arguments, error, message):
    tiers, field, x = system()
    with pytest.raises(error, match=re.escape(message)):
        Descent(tiers, field, x).run(*arguments)
