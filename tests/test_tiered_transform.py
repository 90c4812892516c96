"""transform and its gradient against SciPy, autograd of another formula, golden data and finite differences."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from conftest import BACKENDS, HAS_TORCH, run_threads, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from tiered_golden import golden_transform, needs_golden
from tiered_oracle import as_numpy, by_scipy, gradients_by_torch, members, moved, random_case

from pykernels.kernels.tiered import cases
from pykernels.tiered import Parameters, Tiers, transform, transform_backward

DTYPES = (np.float64, np.float32)
PIVOTS = ("micro", "macro")


@pytest.fixture(params=["reference", *BACKENDS])
def backend(request):
    return str(request.param)


def run(backend, params, tiers, positions, pivot="micro", **options):
    params, positions = moved(backend, params, positions)
    return as_numpy(transform(params, tiers, positions, pivot=pivot, backend=backend, **options))


def run_backward(backend, grad, params, tiers, positions, pivot="micro"):
    grad, params, positions = moved(backend, grad, params, positions)
    of_params, of_positions = transform_backward(grad, params, tiers, positions, pivot=pivot, backend=backend)
    assert type(of_params) is Parameters
    return [as_numpy(each) for each in (*of_params, of_positions)]


def close(found, expected, dtype, terms=64, size=1.0):
    """Equal but for rounding, of sums of that many terms of at least that size."""
    assert found.dtype == dtype and found.shape == expected.shape
    size = max(size, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(found, expected, rtol=0, atol=16 * np.finfo(dtype).eps * np.sqrt(terms) * size)


@pytest.mark.parametrize("name", cases.TREES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_transform(name, dtype, backend):
    pytest.importorskip("scipy")
    for pivot, shared in zip(PIVOTS, (True, False), strict=True):
        tiers, params, positions = random_case(name, 2, dtype, shared)
        found = run(backend, params, tiers, positions, pivot)
        close(found, by_scipy(params, tiers, positions, pivot), dtype)
        fixed = tiers.fixed_atoms
        same_bits(found[:, fixed], np.broadcast_to(positions, found.shape)[:, fixed])


@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")
@pytest.mark.parametrize("name", cases.TREES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient(name, dtype, backend):
    for pivot, shared in zip(PIVOTS, (False, True), strict=True):
        tiers, params, positions = random_case(name, 2, dtype, shared, seed=5)
        grad = np.random.default_rng(1).standard_normal((2, tiers.n_atoms, 3)).astype(dtype)
        found = run_backward(backend, grad, params, tiers, positions, pivot)
        for ours, expected in zip(found, gradients_by_torch(grad, params, tiers, positions, pivot), strict=True):
            close(ours, expected, dtype, 256, size=np.abs(positions).max(initial=0))
        assert not found[-1][..., tiers.fixed_atoms, :].any()


@needs_golden
def test_golden_data(backend):
    data, tiers, params, positions = golden_transform()
    np.testing.assert_allclose(run(backend, params, tiers, positions)[0], data["out_positions"], rtol=1e-9)
    found = run_backward(backend, data["out_force_gradient"][None], params, tiers, positions)
    for name, ours in zip((*Parameters._fields, "atoms"), found, strict=True):
        expected = data[f"g_{name}"]
        ours = ours if name == "atoms" else ours[0]
        assert np.abs(ours - expected).max() <= 1e-9 * np.abs(expected).max()


@needs_golden
def test_golden_data_in_float32(backend):
    data, tiers, params, positions = golden_transform()
    params = Parameters(*(each.astype(np.float32) for each in params))
    close(run(backend, params, tiers, positions.astype(np.float32))[0], data["out_positions"], np.float32)
    grad = data["out_force_gradient"][None].astype(np.float32)
    found = run_backward(backend, grad, params, tiers, positions.astype(np.float32))
    for name, ours in zip((*Parameters._fields, "atoms"), found, strict=True):
        expected = data[f"g_{name}"]
        difference = ours.reshape(expected.shape) - expected
        assert np.linalg.norm(difference) <= 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize("pivot", PIVOTS)
def test_finite_differences(pivot, backend):
    tiers, params, positions = random_case("every group an axis", 1)
    weight = np.random.default_rng(0).standard_normal((1, tiers.n_atoms, 3))
    found = run_backward(backend, weight, params, tiers, positions, pivot)
    inputs, step = [*params, positions], 1e-5
    movable = np.setdiff1d(np.arange(tiers.n_atoms), tiers.fixed_atoms)
    for number, gradient in enumerate(found):
        rows = movable[:6] if number == 5 else np.arange(min(4, gradient.shape[1]))
        for index in np.ndindex(len(rows), *gradient.shape[2:]):
            at, energies = (0, rows[index[0]], *index[1:]), []
            for sign in (1, -1):
                shifted = [each.copy() for each in inputs]
                shifted[number][at] += sign * step
                out = run(backend, Parameters(*shifted[:5]), tiers, shifted[5], pivot)
                energies.append(np.sum(out * weight))
            assert abs((energies[0] - energies[1]) / (2 * step) - gradient[at]) < 1e-6 * np.abs(gradient).max()


@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_motion_is_the_identity_with_finite_gradients(dtype, backend):
    for name in ("single atoms", "every group an axis", "all in macro-groups"):
        tiers, _, positions = random_case(name, 3, dtype)
        params = Parameters.zeros(tiers, 3, dtype)
        for pivot in PIVOTS:
            close(run(backend, params, tiers, positions, pivot), positions, dtype)
            grad = np.random.default_rng(0).standard_normal(positions.shape).astype(dtype)
            found = run_backward(backend, grad, params, tiers, positions, pivot)
            assert all(np.isfinite(each).all() for each in found)
            expected = grad.copy()
            expected[:, tiers.fixed_atoms] = 0
            close(found[-1], expected, dtype)
            for g, atoms in enumerate(members(tiers)):
                close(found[0][:, g], grad[:, atoms].sum(1, dtype=np.float64), dtype)


def test_groups_of_one_atom_and_collinear_points(backend):
    line = np.outer([0.0, 1, 2, 4, 5], [1, 2, 2]) + [3, 0, 1]
    tiers = Tiers(5, [0, 3, 4], [1, 2, 3, 4], None, [0, 1], [0, 3], [2, 4], [0])
    params = Parameters.zeros(tiers, 1, np.float64)
    params.axis[:] = 0.7, 2.0
    np.testing.assert_allclose(run(backend, params, tiers, line)[0], line, atol=1e-14)
    params.euler[0, 1] = 1.0, -0.4, 0.3
    np.testing.assert_allclose(run(backend, params, tiers, line)[0], line, atol=1e-14)
    found = run_backward(backend, np.ones((1, 5, 3)), params, tiers, line)
    assert all(np.isfinite(each).all() for each in found)
    np.testing.assert_allclose(found[2][0], 0, atol=1e-14)  # points on their axes feel no torque about them
    np.testing.assert_allclose(found[1][0, 1], 0, atol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_batch_has_the_bits_of_its_members(dtype, backend):
    for name, pivot in (("large", "micro"), ("large groups", "macro"), ("every group an axis", "macro")):
        tiers, params, positions = random_case(name, 5, dtype)
        grad = cases.positions((5, tiers.n_atoms), dtype, 9)
        out = run(backend, params, tiers, positions, pivot)
        found = run_backward(backend, grad, params, tiers, positions, pivot)
        for b in (0, 2, 4):
            one = Parameters(*(each[b : b + 1] for each in params))
            same_bits(run(backend, one, tiers, positions[b], pivot)[0], out[b])
            alone = run_backward(backend, grad[b : b + 1], one, tiers, positions[b], pivot)
            for whole, member in zip(found, alone, strict=True):
                same_bits(member.reshape(whole[b].shape), whole[b])
        again = run_backward(backend, grad, params, tiers, positions, pivot)
        for a, b in zip(found, again, strict=True):
            same_bits(a, b)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["large groups", "every group an axis", "none fixed"]))
def test_the_transform_moves_with_space(seed, name):
    """Micro pivots keep distances in groups; shifts, and turns where nothing but axes moves, commute with it."""
    rotation = pytest.importorskip("scipy.spatial.transform").Rotation.from_quat(
        np.random.default_rng(seed).standard_normal(4)
    )
    tiers, params, positions = random_case(name, 1, seed=seed)
    out = transform(params, tiers, positions)[0]
    for atoms in members(tiers):
        before, after = (np.linalg.norm(x[atoms, None] - x[None, atoms], axis=-1) for x in (positions[0], out))
        np.testing.assert_allclose(after, before, atol=1e-11)
    shift = np.array([30.0, -7, 2])
    for pivot in PIVOTS:
        shifted = transform(params, tiers, positions + shift, pivot=pivot)
        np.testing.assert_allclose(shifted, transform(params, tiers, positions, pivot=pivot) + shift, atol=1e-11)
        turned = rotation.apply(positions[0]) + shift
        still = Parameters.zeros(tiers, 1, np.float64)
        np.testing.assert_allclose(transform(still, tiers, turned, pivot=pivot)[0], turned, atol=1e-11)
        still.axis[:] = params.axis  # axes turn with the points
        expected = rotation.apply(transform(still, tiers, positions, pivot=pivot)[0]) + shift
        np.testing.assert_allclose(transform(still, tiers, turned, pivot=pivot)[0], expected, atol=1e-11)


def test_strides_and_out():
    tiers, params, positions = random_case("large", 3, np.float32)
    expected = transform(params, tiers, positions)
    wide = np.full((3, tiers.n_atoms, 6), np.nan, np.float32)
    wide[..., ::2] = positions
    scattered = Parameters(*(np.asfortranarray(each) for each in params))
    backwards = np.ascontiguousarray(positions[::-1, :, ::-1])[::-1, :, ::-1]
    for x in (wide[..., ::2], np.asfortranarray(positions), backwards, positions.astype(">f4")):
        same_bits(transform(scattered, tiers, x), expected)
        grad = np.asfortranarray(expected)
        for a, b in zip(
            transform_backward(grad, scattered, tiers, x)[0],
            transform_backward(expected, params, tiers, positions)[0],
            strict=True,
        ):
            same_bits(a, b)
    for out in (np.full_like(expected, np.nan), np.full((3, 2 * tiers.n_atoms, 3), np.nan, np.float32)[:, ::2]):
        assert transform(params, tiers, positions, out=out) is out
        same_bits(np.ascontiguousarray(out), expected)


@pytest.mark.parametrize("name", ["no atoms", "all fixed", "no axes", "large"])
def test_no_conformations(name, backend):
    for shared in (True, False):
        tiers, params, positions = random_case(name, 0, shared=shared)
        assert run(backend, params, tiers, positions).shape == (0, tiers.n_atoms, 3)
        found = run_backward(backend, np.zeros((0, tiers.n_atoms, 3)), params, tiers, positions)
        assert [each.shape for each in found] == [each.shape for each in (*params, positions)]
        assert not found[-1].any()


def test_threads_share_tiers():
    tiers, params, positions = random_case("large", 8, np.float32)
    expected, results = transform(params, tiers, positions), [None] * 6

    def work(number):
        results[number] = [transform(params, tiers, positions) for _ in range(5)]

    run_threads(*[partial(work, number) for number in range(len(results))])
    for each in results:
        for found in each:
            same_bits(found, expected)
