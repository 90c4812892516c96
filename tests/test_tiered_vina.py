"""AutoDock Vina's terms: the reference and the Numba kernel against scalar formulas and known numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pykernels.kernels.tiered.cpu_vina import BLOCK, vina_rows
from pykernels.kernels.tiered.problem import Vina
from pykernels.kernels.tiered.reference_vina import vina

WEIGHTS = (-0.035579, -0.005156, 0.840245, -0.035069, -0.587439)


def problem(count, movable, seed=0, excluded=0.03, weights=WEIGHTS, cutoff=8.0):
    rng = np.random.default_rng(seed)
    pairs = np.triu(rng.random((count, count)) < excluded, 1)
    pairs |= pairs.T
    flags = (rng.random((3, count)) < 0.4).astype(float)
    atoms = rng.permutation(count + 3)[:count]
    radius = rng.choice([1.2, 1.5, 1.7, 1.8, 1.9, 2.1], count)
    ptr = np.append(0, np.cumsum(pairs.sum(1)))
    return Vina(atoms, movable, radius, *flags, ptr, np.nonzero(pairs)[1], np.array(weights), cutoff)


def positions(terms, seed=0, spacing=1.5):
    return np.random.default_rng(seed).normal(size=(len(terms.atoms) + 3, 3)) * spacing * len(terms.atoms) ** (1 / 3)


def rows(x, terms, first=0, last=None, dtype=np.float64):
    """What the kernel gives for the rows: energy and gradient."""
    count = len(terms.atoms)
    lanes = np.ascontiguousarray(x[terms.atoms].T.astype(dtype))
    terms = Vina(*(each.astype(dtype) if getattr(each, "dtype", 0) == np.float64 else each for each in terms))
    bias, gradient = np.zeros(count, dtype), np.zeros(x.shape, dtype)
    energy = vina_rows(lanes, terms, first, count if last is None else last, bias, gradient)
    assert not bias.any()
    return energy, gradient


def reference(x, terms, everywhere=True):
    gradient = np.zeros(x.shape)
    return vina(x, terms, everywhere, gradient), gradient


def one_pair(r, ri, rj, greasy, bonding, weights=WEIGHTS, cutoff=8.0):
    if r >= cutoff:
        return 0.0
    d = r - ri - rj
    hydrophobic = 1 if d <= 0.5 else 0 if d >= 1.5 else 1.5 - d
    hydrogen = 1 if d <= -0.7 else 0 if d >= 0 else d / -0.7
    terms = math.exp(-((d / 0.5) ** 2)), math.exp(-(((d - 3) / 2) ** 2)), d * d if d < 0 else 0
    return sum(w * v for w, v in zip(weights, (*terms, greasy * hydrophobic, bonding * hydrogen), strict=True))


def brute_force(x, terms):
    total = 0.0
    for i in range(len(terms.atoms)):
        for j in range(i + 1, len(terms.atoms)):
            if i >= terms.movable or j in terms.exclusions[terms.exclusion_ptr[i] : terms.exclusion_ptr[i + 1]]:
                continue
            r = max(math.dist(x[terms.atoms[i]], x[terms.atoms[j]]), 0.01)
            bonding = (terms.donor[i] and terms.acceptor[j]) or (terms.acceptor[i] and terms.donor[j])
            greasy = terms.hydrophobic[i] and terms.hydrophobic[j]
            total += one_pair(r, terms.radius[i], terms.radius[j], greasy, bonding)
    return total


def two(distance, radius=(1.9, 1.9), hydrophobic=0, donor=(0, 0), acceptor=(0, 0)):
    kinds = [np.array(each, float) for each in (radius, (hydrophobic,) * 2, donor, acceptor)]
    none = np.zeros(3, np.int64), np.zeros(0, np.int64)
    terms = Vina(np.arange(2), 1, *kinds, *none, np.array(WEIGHTS), 8.0)
    return np.array([[0, 0, 0], [0, 0.6 * distance, 0.8 * distance]]), terms


KNOWN = [
    # carbons in contact: d = 0
    (two(3.8), -0.035579 - 0.005156 * math.exp(-2.25)),
    (two(3.8, hydrophobic=1), -0.035579 - 0.005156 * math.exp(-2.25) - 0.035069),
    # halfway down the hydrophobic ramp: d = 1
    (two(4.8, hydrophobic=1), -0.035579 * math.exp(-4) - 0.005156 * math.exp(-1) - 0.035069 / 2),
    # N-H...O of 2.8 angstrom: d = -0.7, a whole hydrogen bond
    (
        two(2.8, (1.8, 1.7), donor=(1, 0), acceptor=(0, 1)),
        -0.035579 * math.exp(-1.96) - 0.005156 * math.exp(-3.4225) + 0.840245 * 0.49 - 0.587439,
    ),
    # two hydroxyls, each donor and acceptor, bond once
    (
        two(2.7, (1.7, 1.7), donor=(1, 1), acceptor=(1, 1)),
        -0.035579 * math.exp(-1.96) - 0.005156 * math.exp(-3.4225) + 0.840245 * 0.49 - 0.587439,
    ),
    # two donors do not
    (
        two(2.9, (1.8, 1.8), donor=(1, 1)),
        -0.035579 * math.exp(-1.96) - 0.005156 * math.exp(-3.4225) + 0.840245 * 0.49,
    ),
    (two(8.0), 0.0),
    (two(math.inf), 0.0),
]


@pytest.mark.parametrize(("case", "energy"), KNOWN)
def test_known_pairs(case, energy):
    assert rows(*case)[0] == pytest.approx(energy, rel=1e-9, abs=1e-300)
    assert reference(*case)[0] == pytest.approx(energy, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("count", [1, 2, 7, 63, 64, 65, 130])
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_agrees_with_scalar_formulas(count, share):
    terms = problem(count, int(share * count))
    x = positions(terms)
    energy, gradient = rows(x, terms)
    expected, slope = reference(x, terms)
    assert expected == pytest.approx(brute_force(x, terms), rel=1e-11)
    assert energy == pytest.approx(expected, rel=1e-11)
    np.testing.assert_allclose(gradient, slope, rtol=1e-10, atol=1e-11)
    coarse, coarse_gradient = rows(x, terms, dtype=np.float32)
    scale = np.abs(slope).max(initial=1)
    assert coarse == pytest.approx(energy, rel=2e-6, abs=1e-5)
    np.testing.assert_allclose(coarse_gradient, slope, atol=2e-6 * scale)


@pytest.mark.parametrize("function", [rows, reference])
def test_gradient_by_finite_differences(function):
    terms = problem(40, 25, seed=3)
    x = positions(terms)
    gradient, step = function(x, terms)[1], 1e-5
    for atom in terms.atoms[[0, 11, 24, 25, 39]]:
        for axis in range(3):
            ends = []
            for sign in (1, -1):
                moved = x.copy()
                moved[atom, axis] += sign * step
                ends.append(function(moved, terms)[0])
            slope = (ends[0] - ends[1]) / (2 * step)
            assert gradient[atom, axis] == pytest.approx(slope, rel=1e-5, abs=1e-6)


def test_rows_add_up_and_those_of_fixed_places_have_no_energy():
    terms = problem(90, 50)
    x = positions(terms)
    energy, gradient = rows(x, terms)
    parts = [rows(x, terms, first, last) for first, last in ((0, 17), (17, 17), (17, 50), (50, 90))]
    assert parts[3][0] == 0 and parts[1][0] == 0
    assert sum(part[0] for part in parts) == pytest.approx(energy, rel=1e-13)
    np.testing.assert_array_equal(sum(part[1] for part in parts), gradient)
    movable_only = reference(x, terms, everywhere=False)[1]
    assert not movable_only[terms.atoms[50:]].any()
    np.testing.assert_allclose(rows(x, terms, 0, 50)[1], movable_only, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("movable", [30, 70, 100])
def test_excluded_pairs_are_exactly_nothing(dtype, movable):
    terms = problem(100, movable, excluded=1.0)
    energy, gradient = rows(np.zeros((103, 3)), terms, dtype=dtype)
    assert energy == 0 and not gradient.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_atoms_in_one_place(dtype):
    x, terms = two(0.0)
    energy, gradient = rows(x, terms, dtype=dtype)
    assert energy == pytest.approx(one_pair(0.01, 1.9, 1.9, 0, 0), rel=1e-6)
    assert not gradient.any()


@pytest.mark.parametrize("place", [0, 70, 90, BLOCK + 5])
def test_nan_is_not_hidden(place):
    terms = problem(100, 80, excluded=0)
    x = positions(terms)
    x[terms.atoms[place], 1] = np.nan
    energy, gradient = rows(x, terms)
    assert np.isnan(energy) and np.isnan(gradient[terms.atoms[place]]).any()
    assert np.isnan(reference(x, terms)[0])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(-math.pi, math.pi), st.floats(-20, 20))
def test_a_rigid_motion_changes_nothing(seed, angle, shift):
    terms = problem(30, 20, seed)
    x = positions(terms, seed)
    c, s = math.cos(angle), math.sin(angle)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    energy, gradient = rows(x, terms)
    moved_energy, moved = rows(x @ turn.T + shift, terms)
    assert moved_energy == pytest.approx(energy, rel=1e-9, abs=1e-9)
    np.testing.assert_allclose(moved, gradient @ turn.T, rtol=1e-7, atol=1e-8)
    np.testing.assert_allclose(gradient.sum(0), 0, atol=1e-9)
