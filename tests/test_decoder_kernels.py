"""Norms, rotary positions and gated activations against torch in float64, complex numbers and the error function."""

from __future__ import annotations

import math

import numba
import numpy as np
import pytest
from conftest import HAS_TORCH, same_bits

from pykernels._dispatch import launcher
from pykernels.inference import _kernels
from pykernels.kernels.decoder.cases import DTYPES as TYPES
from pykernels.kernels.decoder.cases import HALF_UNIT, HEADS, ROWS, tables
from pykernels.kernels.decoder.cases import normal as random
from pykernels.kernels.decoder.problem import Gated, Norm, Rotary

if HAS_TORCH:
    import torch

BACKENDS = pytest.mark.parametrize("backend", ["reference", "cpu"])
DTYPES = pytest.mark.parametrize("dtype", TYPES)
ACTIVATIONS = pytest.mark.parametrize("activation", ["relu", "silu", "gelu", "gelu_tanh"])
KINDS = ("rms", "layer")
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")


def empty(*shape, dtype="float32"):
    return np.full(shape, np.nan, TYPES[dtype])


def torch_norm(h, weight, bias, norm):
    """In float64, by torch."""
    h, weight = torch.from_numpy(np.float64(h)), torch.from_numpy(np.float64(weight) + norm.offset)
    if norm.kind == "rms":
        out = torch.nn.functional.rms_norm(h, h.shape[1:], weight, norm.eps)
        return out.numpy() if bias is None else out.numpy() + bias
    shift = None if bias is None else torch.from_numpy(np.float64(bias))
    return torch.nn.functional.layer_norm(h, h.shape[1:], weight, shift, norm.eps).numpy()


@needs_torch
@BACKENDS
@DTYPES
@pytest.mark.parametrize(
    ("norm", "biased"), [(Norm("rms", 1e-5), False), (Norm("rms", 1e-6, 1.0), True), (Norm("layer", 1e-5), True)]
)
def test_norms_are_those_of_torch_rounded_once(norm, biased, dtype, backend):
    for rows, size in ROWS:
        x, residual = random(rows, size, dtype=dtype), random(rows, size, dtype=dtype, seed=1)
        weight, bias = random(size, seed=2), random(size, seed=3) if biased else None
        for other in (None, residual):
            total, out = _kernels.normalize(x, weight, bias, norm, other, backend)
            expected = x if other is None else (np.float64(x) + np.float64(residual)).astype(x.dtype)
            same_bits(total, expected)
            exact = torch_norm(expected, weight, bias, norm)
            size_of_terms = np.abs(exact) + (0 if bias is None else 2 * np.abs(bias)) + np.abs(weight + norm.offset)
            bound = HALF_UNIT[dtype] * np.abs(exact) + 4e-7 * size_of_terms
            assert out.dtype == x.dtype and (np.abs(np.float64(out) - exact) <= bound + 2.0**-25).all()


@BACKENDS
def test_a_norm_in_place_of_strided_rows(backend):
    launch, norm = launcher("decoder", backend, "normalize"), Norm("layer", 1e-5)
    x, weight, bias = random(9, 200), random(64, seed=1), random(64, seed=2)
    total, out = empty(9, 64), empty(9, 64)
    launch(x[:, :64], x[:, 100:164], weight, bias, total, out, norm)
    wide = x.copy()
    launch(wide[:, :64], wide[:, 100:164], weight, bias, wide[:, 100:164], wide[:, 64:100].repeat(2, 1)[:, :64], norm)
    same_bits(wide[:, 100:164], total)
    launch(total, None, weight, bias, None, total, norm)
    same_bits(total, out)
    same_bits(np.delete(wide, range(100, 164), 1), np.delete(x, range(100, 164), 1))


@BACKENDS
def test_what_is_not_finite_stays_in_its_row_pair_or_number(backend):
    x = random(5, 40)
    clean = [_kernels.normalize(x, np.ones(40, np.float32), None, Norm(kind, 0.0), None, backend)[1] for kind in KINDS]
    x[1, 3], x[3, 7] = np.nan, np.inf
    for kind, before in zip(KINDS, clean, strict=True):
        got = _kernels.normalize(x, np.ones(40, np.float32), None, Norm(kind, 0.0), None, backend)[1]
        same_bits(got[[0, 2, 4]], before[[0, 2, 4]])
        assert np.isnan(got[1]).all() and np.isnan(got[3, 7])
    spoilt = _kernels.gated(x, "silu", backend)
    assert np.argwhere(~np.isfinite(spoilt)).tolist() == [[1, 3], [3, 7]]
    heads = x.reshape(1, 5, 1, 40).copy()
    _kernels.rotary(heads, *tables(9, 20), np.array([[4]]), Rotary(), backend)
    assert np.argwhere(~np.isfinite(heads[0, :, 0])).tolist() == [[1, 3], [1, 23], [3, 7], [3, 27]]


@BACKENDS
@DTYPES
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("n", "heads", "t", "d", "turned"), HEADS)
def test_rotary_multiplies_complex_numbers(n, heads, t, d, turned, interleaved, dtype, backend):
    cos, sin = tables(400, turned // 2)
    positions = np.random.default_rng(1).integers(0, 400, (n, t))
    projection = random(n, t, heads + 2, d, dtype=dtype)
    x = projection.transpose(0, 2, 1, 3)[:, :heads]
    first, second = (
        (np.arange(0, turned, 2), np.arange(1, turned, 2))
        if interleaved
        else (np.arange(turned // 2), np.arange(turned // 2, turned))
    )
    z = (np.float64(x[..., first]) + 1j * np.float64(x[..., second])) * (
        cos.astype(np.float64) + 1j * sin.astype(np.float64)
    )[positions][:, None]
    before, out = projection.copy(), empty(n, heads, t, d, dtype=dtype)
    launcher("decoder", backend, "rotary")(x, cos, sin, positions, out, Rotary(interleaved))
    same_bits(projection, before)
    for part, exact in ((first, z.real), (second, z.imag)):
        error = np.abs(np.float64(out[..., part]) - exact)
        assert (error <= HALF_UNIT[dtype] * np.abs(exact) + 2.0**-22 * np.abs(z) + 2.0**-25).all()
    same_bits(out[..., turned:], x[..., turned:])
    _kernels.rotary(x, cos, sin, positions, Rotary(interleaved), backend)
    same_bits(np.ascontiguousarray(x), out)
    same_bits(projection[:, :, heads:], before[:, :, heads:])


@needs_torch
@BACKENDS
@DTYPES
@ACTIVATIONS
def test_gates_are_those_of_torch(activation, dtype, backend):
    name, options = ("gelu", {"approximate": "tanh"}) if activation == "gelu_tanh" else (activation, {})
    for rows, size in ROWS:
        x = 3 * random(rows, 2 * size, dtype=dtype)
        gate, up = np.float64(x[:, :size]), np.float64(x[:, size:])
        exact = getattr(torch.nn.functional, name)(torch.from_numpy(gate), **options).numpy() * up
        out = _kernels.gated(x, activation, backend)
        bound = HALF_UNIT[dtype] * np.abs(exact) + 3e-6 * np.abs(exact) + 2.0**-25
        assert out.dtype == x.dtype and (np.abs(np.float64(out) - exact) <= bound).all()


@ACTIVATIONS
def test_the_ends_of_activations(activation):
    z = np.float32([0, -0.0, np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-40, -200, 200])
    x, given = np.concatenate([z, np.ones_like(z)])[None], empty(2, 10)
    for out, backend in zip(given, ("cpu", "reference"), strict=True):
        launcher("decoder", backend, "gated")(x, out[None], Gated(activation))
    np.testing.assert_array_equal(given[0], given[1])
    assert np.isnan(given[0]).tolist() == [False] * 3 + [activation != "relu", True] + [False] * 5


def test_tails_keep_their_digits():
    z = np.linspace(-13, 13, 4001).astype(np.float32)
    x = np.concatenate([z, np.ones_like(z)])[None]
    gelu = np.array([v * 0.5 * math.erfc(-v / math.sqrt(2)) for v in np.float64(z)])
    silu = np.array([v / (1 + math.exp(-v)) for v in np.float64(z)])
    for activation, exact, error in (("gelu", gelu, 5e-7), ("silu", silu, 3e-7)):
        got = np.float64(_kernels.gated(x, activation)[0])
        assert (np.abs(got - exact) <= error * np.abs(exact) + 2.0**-140).all()


def results(x, threads):
    weight, cos_sin = random(x.shape[1]), tables(9, 16)
    numba.set_num_threads(threads)
    heads = x.reshape(len(x), -1, 1, 32).copy()
    _kernels.rotary(heads, *cos_sin, np.zeros((len(x), 1), np.int64) + 5, Rotary())
    return [
        *_kernels.normalize(x, weight, weight, Norm("layer", 1e-6), x),
        _kernels.gated(x, "gelu"),
        heads.reshape(x.shape),
    ]


@DTYPES
def test_rows_are_the_same_bits_in_any_company(dtype):
    x, most = random(300, 128, dtype=dtype), numba.get_num_threads()
    try:
        together = results(x, most)
        for single, each in zip(results(x, 1), together, strict=True):
            same_bits(single, each)
        for some in (slice(7, 8), slice(40, 45)):
            for alone, each in zip(results(x[some], most), together, strict=True):
                same_bits(alone, each[some])
    finally:
        numba.set_num_threads(most)


@BACKENDS
def test_nothing_is_done_of_nothing(backend):
    for shape in ((0, 4), (3, 0)):
        x = empty(*shape)
        total, out = _kernels.normalize(x, empty(shape[1]), None, Norm("rms", 1e-5), x, backend)
        assert total.shape == out.shape == shape
        assert _kernels.gated(x, "silu", backend).shape == (shape[0], shape[1] // 2)
    for shape in ((0, 2, 3, 4), (1, 0, 3, 4), (2, 2, 0, 4)):
        _kernels.rotary(empty(*shape), *tables(5, 2), np.zeros((shape[0], shape[2]), np.int64), Rotary(), backend)


@needs_torch
@DTYPES
def test_tensors_give_what_arrays_give(dtype):
    x, weight = random(3, 64, dtype=dtype), random(64)
    tensor = torch.from_numpy(np.float32(x)).to(getattr(torch, dtype))
    pairs = list(
        zip(
            _kernels.normalize(tensor, torch.from_numpy(weight), None, Norm("rms", 1e-5), tensor),
            _kernels.normalize(x, weight, None, Norm("rms", 1e-5), x),
            strict=True,
        )
    )
    pairs.append((_kernels.gated(tensor, "silu"), _kernels.gated(x, "silu")))
    turned, heads = tensor.clone().reshape(3, 2, 1, 32), x.copy().reshape(3, 2, 1, 32)
    positions = np.array([[1], [0], [7]])
    for given, convert in ((turned, torch.from_numpy), (heads, np.asarray)):
        _kernels.rotary(given, *map(convert, tables(9, 16)), convert(positions), Rotary())
    for got, expected in (*pairs, (turned, heads)):
        assert got.dtype == tensor.dtype
        np.testing.assert_array_equal(got.float().numpy(), np.float32(expected))
