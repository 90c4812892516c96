"""Bad input of the transform: the exact exception, naming the argument, and nothing written."""

from __future__ import annotations

import re

import numpy as np
import pytest
from conftest import HAS_TORCH
from tiered_oracle import moved, random_case

from pykernels.tiered import Parameters, transform, transform_backward

TIERS, PARAMS, X = random_case("large", 3, np.float32)
N, G, A, M = TIERS.n_atoms, TIERS.n_groups, TIERS.n_axes, TIERS.n_macros
GRAD = np.ones((3, N, 3), np.float32)


def params(**changed):
    return PARAMS._replace(**changed)


def spoiled(values, index, value=np.nan):
    copy = values.copy()
    copy[index] = value
    return copy


def read_only():
    out = np.empty_like(X)
    out.flags.writeable = False
    return out


BAD = {
    "tiers": (TypeError, "tiers is a dict: expected Tiers", lambda f: f(PARAMS, {}, X)),
    "pivot": (ValueError, "pivot='mean': expected one of micro, macro", lambda f: f(PARAMS, TIERS, X, pivot="mean")),
    "pivot type": (TypeError, "pivot=True", lambda f: f(PARAMS, TIERS, X, pivot=True)),
    "params": (TypeError, "params is a ndarray: expected Parameters", lambda f: f(PARAMS.axis, TIERS, X)),
    "params length": (TypeError, "params is a tuple", lambda f: f(PARAMS[:4], TIERS, X)),
    "params kind": (TypeError, "params.axis is a list", lambda f: f(params(axis=[]), TIERS, X)),
    "params dtype": (
        TypeError,
        "params.macro_euler has dtype float64: expected float32, that of positions",
        lambda f: f(params(macro_euler=PARAMS.macro_euler.astype(float)), TIERS, X),
    ),
    "params shape": (
        ValueError,
        f"params.euler has shape (3, {G}, 4): expected (3, {G}, 3)",
        lambda f: f(params(euler=np.zeros((3, G, 4), "f4")), TIERS, X),
    ),
    "params batch": (
        ValueError,
        f"params.axis has shape (2, {A}): expected (3, {A})",
        lambda f: f(params(axis=PARAMS.axis[:2]), TIERS, X),
    ),
    "params groups": (
        ValueError,
        f"params.translation has shape (3, 1, 3): expected (B, {G}, 3)",
        lambda f: f(params(translation=np.zeros((3, 1, 3), "f4")), TIERS, X),
    ),
    "params scalar": (
        ValueError,
        "params.translation has shape ()",
        lambda f: f(params(translation=np.array(0, "f4")), TIERS, X),
    ),
    "positions dtype": (TypeError, "positions has dtype float16", lambda f: f(PARAMS, TIERS, X.astype("f2"))),
    "positions integers": (TypeError, "positions has dtype int64", lambda f: f(PARAMS, TIERS, X.astype("i8"))),
    "dtypes": (TypeError, "params.translation has dtype float32", lambda f: f(PARAMS, TIERS, X.astype(float))),
    "positions batch": (
        ValueError,
        f"positions has shape (2, {N}, 3): expected ({N}, 3), or (3, {N}, 3)",
        lambda f: f(PARAMS, TIERS, X[:2]),
    ),
    "positions one": (ValueError, f"positions has shape (1, {N}, 3)", lambda f: f(PARAMS, TIERS, X[:1])),
    "positions atoms": (ValueError, f"positions has shape ({N - 1}, 3)", lambda f: f(PARAMS, TIERS, X[0, 1:])),
    "positions flat": (ValueError, f"positions has shape ({3 * N},)", lambda f: f(PARAMS, TIERS, X[0].reshape(-1))),
    "backend": (ValueError, "backend='tpu'", lambda f: f(PARAMS, TIERS, X, backend="tpu")),
    "backend gpu": (NotImplementedError, "backend='gpu'", lambda f: f(PARAMS, TIERS, X, backend="gpu")),
    "NaN": (
        ValueError,
        "positions: atom 1024 of conformation 2 is at [",
        lambda f: f(PARAMS, TIERS, spoiled(X, (2, 1024, 2))),
    ),
    "Inf, shared": (
        ValueError,
        "positions: atom 0 is at [",
        lambda f: f(PARAMS, TIERS, spoiled(X[0], (0, 1), -np.inf)),
    ),
    "NaN in params": (
        ValueError,
        "params.euler: group 7 of conformation 1 has [",
        lambda f: f(params(euler=spoiled(PARAMS.euler, (1, 7, 0))), TIERS, X),
    ),
    "NaN in axes": (
        ValueError,
        "params.axis: axis 2 of conformation 0 has nan",
        lambda f: f(params(axis=spoiled(PARAMS.axis, (0, 2))), TIERS, X),
    ),
    "Inf in macro-groups": (
        ValueError,
        "params.macro_translation: macro-group 0 of conformation 2 has [",
        lambda f: f(params(macro_translation=spoiled(PARAMS.macro_translation, (2, 0, 2), np.inf)), TIERS, X),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    error, text, call = BAD[name]
    out = np.full_like(X, 7)
    calls = (
        lambda *args, **options: transform(*args, out=out, **options),
        lambda *args, **options: transform_backward(GRAD, *args, **options),
    )
    for function in calls:
        with pytest.raises(error, match=re.escape(text)) as raised:
            call(function)
        assert raised.type is error
    assert (out == 7).all()


OUT = {
    "kind": (TypeError, "out is a list", list),
    "shape": (ValueError, "out has shape", lambda: np.empty_like(X[0])),
    "dtype": (TypeError, "out has dtype float64: expected float32", lambda: np.empty(X.shape)),
    "read-only": (ValueError, "out is read-only", read_only),
    "positions": (ValueError, "out shares memory with the input", lambda: X),
    "positions in part": (ValueError, "out shares memory with the input", lambda: X[::-1]),
}


@pytest.mark.parametrize("name", OUT)
def test_bad_out(name):
    error, text, make = OUT[name]
    before = X.copy()
    with pytest.raises(error, match=re.escape(text)) as raised:
        transform(PARAMS, TIERS, X, out=make())
    assert raised.type is error
    np.testing.assert_array_equal(X, before)


def test_out_that_shares_memory_with_parameters_is_refused():
    memory = np.zeros(3 * N * 3 + 3 * G * 3, np.float32)
    shared = params(euler=memory[: 9 * G].reshape(3, G, 3))
    with pytest.raises(ValueError, match=r"out shares memory with params\.euler"):
        transform(shared, TIERS, X, out=memory[: 9 * N].reshape(3, N, 3))
    assert not memory.any()


def test_bad_grad():
    for error, text, grad in (
        (TypeError, "grad is a list", []),
        (TypeError, "grad has dtype float64: expected float32", GRAD.astype(float)),
        (ValueError, f"grad has shape ({N}, 3): expected (3, {N}, 3)", GRAD[0]),
    ):
        with pytest.raises(error, match=re.escape(text)):
            transform_backward(grad, PARAMS, TIERS, X)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_every_place_is_looked_at(dtype, value):
    tiers, good, x = random_case("every group an axis", 2, dtype)
    for number, values in enumerate((*good, x)):
        for at in range(values.size):
            changed = spoiled(values.reshape(-1), at, value).reshape(values.shape)
            inputs = [*good, x]
            inputs[number] = changed
            with pytest.raises(ValueError, match="expected finite"):
                transform(Parameters(*inputs[:5]), tiers, inputs[5])


@pytest.mark.parametrize(
    "backend",
    ["reference", "cpu", pytest.param("gpu", marks=pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed"))],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_axis_without_a_direction(dtype, backend):
    tiers, good, x = random_case("every group an axis", 2, dtype)
    i = 3
    anchor, bonded = tiers.axis_anchor[i], tiers.axis_bonded[i]
    expected = re.escape(f"the ends of axis {i}, atoms {anchor} and {bonded}, coincide in conformation 1: expected an")
    for apart in (0, np.finfo(dtype).tiny):
        x[1, bonded] = 0
        x[1, anchor] = apart, 0, 0
        p, positions = moved(backend, good, x)
        with pytest.raises(ValueError, match=expected):
            transform(p, tiers, positions, backend=backend)
    x[1, anchor] = 1e-12, 0, 0
    if backend == "reference":
        assert np.isfinite(transform(good, tiers, x, backend=backend)).all()
    x[0, bonded] = x[0, anchor]
    one = Parameters(*(each[:1] for each in good))
    p, positions = moved(backend, one, x[0])
    with pytest.raises(ValueError, match=re.escape(f"atoms {anchor} and {bonded}, coincide")):
        transform(p, tiers, positions, backend=backend)


def test_huge_finite_numbers_are_accepted():
    tiers, good, x = random_case("no axes", 1, np.float32)
    x[:] = 3e38
    with np.errstate(over="ignore"):
        assert transform(good, tiers, x, backend="reference").shape == x.shape


@pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")
def test_bad_tensors():
    import torch

    p, x = Parameters(*map(torch.from_numpy, PARAMS)), torch.from_numpy(X)
    with pytest.raises(TypeError, match=r"params\.translation is a Tensor: expected the same kind of array"):
        transform(p, TIERS, X)
    with pytest.raises(TypeError, match=r"params\.axis is a ndarray"):
        transform(p._replace(axis=PARAMS.axis), TIERS, x)
    with pytest.raises(TypeError, match="grad is a ndarray"):
        transform_backward(GRAD, p, TIERS, x)
    with pytest.raises(ValueError, match=r"params\.euler is on device 'meta': expected 'cpu'"):
        transform(p._replace(euler=p.euler.to("meta")), TIERS, x)
    with pytest.raises(ValueError, match="positions: atom 5 of conformation 1"):
        transform(p, TIERS, torch.from_numpy(spoiled(X, (1, 5))))
    with pytest.raises(ValueError, match="out shares memory"):
        transform(p, TIERS, x, out=x)
