"""Terms of named atoms: the Numba kernel against the reference, finite differences, and the published values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiered_golden import golden, needs_golden

from pykernels.kernels.tiered import reference_cmap, reference_energy
from pykernels.kernels.tiered.cpu_bonded import bonded_part
from pykernels.kernels.tiered.problem import TERMS
from pykernels.tiered.energy import ForceField
from pykernels.tiered.energy._cmap import bicubic_patches
from pykernels.tiered.energy._description import no_bonded

COORDINATES = np.array([[1.0, 1.0, 0.2], [1.0, 0.0, 0.0], [0.0, 0.1, 0.1], [-0.1, 1.1, -0.4], [0.9, 1.8, 0.4]])
TOLERANCES = {np.float32: (3e-5, 1e-4), np.float64: (1e-12, 1e-12)}


def terms_of(n_atoms=40, count=60, seed=0, limit=1.0, signed=True, dtype=np.float64):
    """A few terms of each class among random atoms."""
    rng = np.random.default_rng(seed)

    def some(width, *ranges):
        atoms = rng.permuted(np.tile(np.arange(n_atoms), (count, 1)), axis=1)[:, :width]
        return np.ascontiguousarray(atoms), np.stack([rng.uniform(*each, count) for each in ranges], 1).astype(dtype)

    cmap_atoms, _ = some(5, (0, 1))
    grids = rng.normal(size=(2, 8, 8))
    whole = [some(2, (1, 9), (1, 3)), some(3, (1, 9), (1, 3), (0, 2), (1, 3)), some(4, *[(-2, 2)] * 6)]
    whole += [some(4, (-2, 2), (0, 6), (-3, 3)), some(4, (1, 9), (-3, 3)), (cmap_atoms, rng.integers(0, 2, count))]
    whole[1][1][::2, 2] = 0  # angles without Urey-Bradley
    whole[3][1][:, 1] = np.floor(whole[3][1][:, 1])
    pair = some(2, (1, 9), (1, 9), (-9, 9))
    patches = np.stack([bicubic_patches(grid) for grid in grids]).astype(dtype)
    return type(no_bonded())(*(table for rows in whole for table in rows), patches, *pair, limit, signed)


def single(limit=1.0, signed=True, **tables):
    return no_bonded(limit, signed)._replace(**{name: np.array(value) for name, value in tables.items()})


def kernel(x, terms, parts=1):
    energies, gradient = np.zeros(len(TERMS)), np.zeros_like(x)
    for part in range(parts):
        bonded_part(x, terms, part, parts, energies, gradient)
    return energies, gradient


def reference(x, terms):
    energies, gradient = np.zeros(len(TERMS)), np.zeros(x.shape)
    for name, energy in reference_energy.bonded(x, terms, gradient).items():
        energies[TERMS.index(name)] = energy
    energies[TERMS.index("cmap")] = reference_cmap.cmap(x, terms, gradient)
    return energies, gradient


def close(found, expected, energy_tolerance, gradient_tolerance):
    np.testing.assert_allclose(found[0], expected[0], rtol=energy_tolerance, atol=energy_tolerance)
    assert np.linalg.norm(found[1] - expected[1]) <= gradient_tolerance * np.linalg.norm(expected[1])


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("limit", [0.9, 0.999999, 1.0])
def test_the_kernel_agrees_with_the_reference(dtype, signed, limit):
    x = np.random.default_rng(7).normal(size=(40, 3)).astype(dtype) * 3
    terms = terms_of(limit=limit, signed=signed, dtype=dtype)
    close(kernel(x, terms), reference(x.astype(np.float64), terms), *TOLERANCES[dtype])


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("of", [kernel, reference])
def test_gradients_are_those_of_finite_differences(signed, of):
    x = np.random.default_rng(8).normal(size=(12, 3)) * 2
    terms, step = terms_of(12, 10, seed=1, limit=0.999999, signed=signed), 1e-6
    differences = np.empty_like(x)
    for entry in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[entry] += step
        down[entry] -= step
        differences[entry] = (of(up, terms)[0].sum() - of(down, terms)[0].sum()) / (2 * step)
    np.testing.assert_allclose(of(x, terms)[1], differences, rtol=1e-6, atol=1e-6 * np.abs(differences).max())


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), parts=st.integers(1, 9), count=st.integers(0, 7))
def test_parts_together_are_the_whole_and_rigid_motion_changes_nothing(seed, parts, count):
    rng = np.random.default_rng(seed)
    x, terms = rng.normal(size=(9, 3)) * 3, terms_of(9, count, seed)
    energies, gradient = kernel(x, terms)
    close(kernel(x, terms, parts), (energies, gradient), 1e-12, 1e-12)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    close(kernel(x @ turn.T + 5, terms), (energies, gradient @ turn.T), 1e-8, 1e-6)


def test_phi_has_the_sign_of_iupac():
    x = np.array([[1.0, 0, 0], [0, 0, 0], [0, 0, 1], [np.cos(1), np.sin(1), 1]])
    tables = {"improper_atoms": [[0, 1, 2, 3]], "improper": [[2.0, 1.0]]}
    mirrored = x * (1, -1, 1)
    improper = TERMS.index("improper")
    for of in (kernel, reference):
        assert of(x, single(**tables))[0][improper] < 1e-30
        assert of(mirrored, single(**tables))[0][improper] == pytest.approx(2.0 * 4)
        assert of(mirrored, single(signed=False, **tables))[0][improper] < 1e-30
        tables_across = {"improper_atoms": [[0, 1, 2, 3]], "improper": [[2.0, -3.0]]}
        assert of(x, single(**tables_across))[0][improper] == pytest.approx(2 * (2 * np.pi - 4) ** 2)


@pytest.mark.parametrize("of", [kernel, reference])
def test_beyond_the_limit_the_value_is_constant(of):
    flat = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 1e-4]])
    series = {"series_atoms": [[0, 1, 2, 3]], "series": [[0.0, 3.0, 0, 0, 0, 0]]}
    energies, gradient = of(flat, single(0.999999, False, **series))
    assert energies.sum() == pytest.approx(3 * 0.999999, rel=1e-15) and not gradient.any()
    tables = {"improper_atoms": [[0, 1, 2, 3]], "improper": [[3.0, 0.5]]}
    energies, gradient = of(flat, single(0.999999, False, **tables))
    assert energies.sum() == pytest.approx(3 * (np.arccos(0.999999) - 0.5) ** 2, rel=1e-12) and not gradient.any()
    straight = np.array([[1.0, 0, 0], [0, 0, 0], [-1.0, 1e-4, 0]])
    tables = {"angle_atoms": [[0, 1, 2]], "angle": [[3.0, 2.0, 0, 0]]}
    energies, gradient = of(straight, single(0.999999, False, **tables))
    assert energies.sum() == pytest.approx(3 * (np.pi - np.arccos(0.999999) - 2) ** 2) and not gradient.any()


def _degenerate():
    for name, moves in {
        "on one point": {0: 1, 1: 1, 2: 1, 3: 1, 4: 1},
        "ends meet": {2: 0},
        "neighbours meet": {1: 0},
        "middle meets": {2: 1},
    }.items():
        x = COORDINATES.copy()
        for atom, onto in moves.items():
            x[atom] = COORDINATES[onto]
        yield pytest.param(x, id=name)
    line = np.outer(np.arange(5.0), [1, 2, -1])
    yield pytest.param(line, id="on a line")
    yield pytest.param(np.concatenate([line[:3], COORDINATES[3:]]), id="three on a line")
    yield pytest.param(line[[0, 1, 0, 1, 0]], id="back and forth")
    yield pytest.param(COORDINATES * (1, 1, 0), id="in a plane")


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("limit", "signed"), [(0.999999, False), (1.0, False), (1.0, True)])
@pytest.mark.parametrize("x", list(_degenerate()))
def test_nothing_is_nan_where_atoms_coincide_or_lie_on_a_line(x, limit, signed, dtype):
    terms = terms_of(5, 40, 3, limit, signed, dtype)
    energies, gradient = kernel(x.astype(dtype), terms)
    expected = reference(x.astype(dtype).astype(np.float64), terms)
    assert np.isfinite(energies).all() and np.isfinite(gradient).all()
    assert np.isfinite(expected[0]).all() and np.isfinite(expected[1]).all()
    if dtype == np.float64:
        pairs = [TERMS.index(name) for name in ("bond", "lj", "coulomb")]
        np.testing.assert_allclose(energies[pairs], expected[0][pairs], rtol=1e-12)


def test_nan_stays():
    x = COORDINATES.copy()
    x[1, 2] = np.nan
    energies, _ = kernel(x, terms_of(5, 20))
    present = [TERMS.index(name) for name in ("bond", "angle", "dihedral", "improper", "cmap", "lj", "coulomb")]
    assert np.isnan(energies[present]).all()


def test_patches_are_the_periodic_spline():
    interpolate = pytest.importorskip("scipy.interpolate")
    grid = np.random.default_rng(0).normal(size=(9, 9))
    patches, inside = bicubic_patches(grid), np.linspace(0, 1, 5)
    powers = inside[:, None] ** np.arange(4)
    for p in range(9):
        along_first = interpolate.CubicSpline(np.arange(10), np.append(grid[:, p], grid[0, p]), bc_type="periodic")
        along_second = interpolate.CubicSpline(np.arange(10), np.append(grid[p], grid[p, 0]), bc_type="periodic")
        for q in range(9):
            np.testing.assert_allclose(powers @ patches[q, p, :, 0], along_first(q + inside), atol=1e-12)
            np.testing.assert_allclose(powers @ patches[p, q, 0], along_second(q + inside), atol=1e-12)
    after = np.roll(patches, -1, 0)  # value, slope along the first axis
    np.testing.assert_allclose(patches.sum(2), after[:, :, 0], atol=1e-12)
    np.testing.assert_allclose(np.einsum("pqij,i->pqj", patches, np.arange(4)), after[:, :, 1], atol=1e-12)


@needs_golden
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_the_published_values(dtype):
    data = golden()
    names = ("bonds", "angles", "dihedrals", "impropers")
    tables = ("bond_harmonic", "angle_harmonic", "angle_charmm", "dihedral_multi", "dihedral_charmm", "improper")
    given = {name: data[name] for name in (*names, *tables, *(f"{table}_index" for table in tables))}
    terms = ForceField.from_arrays(**given).description.bonded
    terms = terms._replace(
        **{name: getattr(terms, name).astype(dtype) for name in ("bond", "angle", "series", "improper")}
    )
    terms = terms._replace(periodic=terms.periodic.astype(dtype), pair=terms.pair.astype(dtype))
    terms = terms._replace(cmap=terms.cmap.astype(dtype))
    here = [TERMS.index(name) for name in ("bond", "angle", "dihedral", "improper")]
    start = data["positions"].astype(np.float32)
    np.testing.assert_allclose(kernel(start.astype(dtype), terms)[0][here][:3], data["initial_terms"][:3], rtol=1e-5)
    np.testing.assert_allclose(kernel(start.astype(dtype), terms)[0][here][3], data["initial_terms"][3], rtol=2e-4)
    out = data["out_positions"]
    tolerance = 1e-9 if dtype == np.float64 else 3e-5
    found = kernel(out.astype(dtype), terms)
    np.testing.assert_allclose(found[0][here], data["out_terms"][:4], rtol=tolerance)
    close(found, reference(out, terms), tolerance, 1e-12 if dtype == np.float64 else 1e-4)
