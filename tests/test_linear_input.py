"""Bad input to `linear` and `quantize_module`: the exact exception, naming the argument, and nothing written."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import refused

from pykernels.quant import QuantizedTensor, linear, quantize

X = np.ones((4, 6), np.float32)
W = quantize(np.ones((3, 6), np.float32), "int8", granularity="row")
FULL = np.ones((3, 6), np.float32)
B = np.ones(3, np.float32)


def weight(codes=W.codes, scale=W.scale, granularity="row"):
    return QuantizedTensor(codes, scale, granularity)


BAD = {
    "x float64": (TypeError, "x has dtype float64: expected one of float32", lambda: linear(X.astype(float), W)),
    "x integers": (TypeError, "x has dtype int64", lambda: linear([[1] * 6], W)),
    "x shape": (ValueError, "x has shape (6, 4) and weight (3, 6)", lambda: linear(X.T, W)),
    "x without axes": (ValueError, "x has shape () and weight (3, 6)", lambda: linear(X[0, 0], W)),
    "weight axes": (ValueError, "weight has shape (6,): expected (N, K)", lambda: linear(X, FULL[0])),
    "weight float64": (TypeError, "weight has dtype float64", lambda: linear(X, FULL.astype(float))),
    "weight codes": (TypeError, "weight has dtype int8", lambda: linear(X, W.codes)),
    "weight axes, quantized": (
        ValueError,
        "weight has shape (1, 3, 6)",
        lambda: linear(X, weight(W.codes[None], W.scale[None])),
    ),
    "codes": (TypeError, "weight.codes has dtype uint8", lambda: linear(X, weight(W.codes.view(np.uint8)))),
    "scale shape": (
        ValueError,
        "weight.scale has shape (3, 2): expected (3, 1)",
        lambda: linear(X, weight(scale=X[:3, :2])),
    ),
    "scale dtype": (
        TypeError,
        "weight.scale has dtype float64",
        lambda: linear(X, weight(scale=W.scale.astype(float))),
    ),
    "granularity": (ValueError, "granularity='rows'", lambda: linear(X, weight(granularity="rows"))),
    "bias shape": (ValueError, "bias has shape (6,): expected (3,)", lambda: linear(X, W, X[0])),
    "bias column": (ValueError, "bias has shape (3, 1)", lambda: linear(X, W, B[:, None])),
    "bias dtype": (TypeError, "bias has dtype int64", lambda: linear(X, W, [1, 2, 3])),
    "activation": (ValueError, "activation='tanh': expected one of relu", lambda: linear(X, W, activation="tanh")),
    "activation type": (TypeError, "activation=", lambda: linear(X, W, activation=np.tanh)),
    "input format": (ValueError, "input_format='int4'", lambda: linear(X, W, input_format="int4")),
    "input format type": (TypeError, "input_format=8", lambda: linear(X, W, input_format=8)),
    "input format, full": (ValueError, "input_format='int8' with", lambda: linear(X, FULL, input_format="int8")),
    "out dtype": (TypeError, "out_dtype='int8': expected one of float32", lambda: linear(X, W, out_dtype="int8")),
    "out float64": (TypeError, "out_dtype='float64'", lambda: linear(X, W, out_dtype="float64")),
    "out": (ValueError, "out has shape (4, 6): expected (4, 3)", lambda: linear(X, W, out=np.empty_like(X))),
    "out type": (TypeError, "out has dtype float16", lambda: linear(X, W, out=np.empty((4, 3), np.float16))),
    "out list": (TypeError, "out is a list", lambda: linear(X, W, out=[])),
    "backend": (ValueError, "backend='tpu'", lambda: linear(X, W, backend="tpu")),
    "backend gpu": (NotImplementedError, "backend='gpu'", lambda: linear(X, W, backend="gpu")),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    refused(*BAD[name])


def test_out_that_overlaps_is_refused_and_unchanged():
    memory = np.arange(64, dtype=np.float32)
    x, out = memory[:36].reshape(6, 6), memory[30:48].reshape(6, 3)
    full, bias, scale = memory[24:42].reshape(3, 6), memory[40:43], memory[45:48].reshape(3, 1)
    other = np.ones((6, 6), np.float32)
    codes = out.view(np.int8).reshape(-1)[:18].reshape(3, 6)
    for source, weight_, bias_ in (
        (x, W, None),
        (other, full, None),
        (other, W, bias),
        (other, weight(scale=scale), None),
        (other, weight(codes), None),
    ):
        with pytest.raises(ValueError, match="shares memory"):
            linear(source, weight_, bias_, out=out)
    np.testing.assert_array_equal(memory, np.arange(64))
    frozen = np.empty((4, 3), np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        linear(X, W, out=frozen)


def test_kinds_of_arrays_are_not_mixed():
    torch = pytest.importorskip("torch")
    x, bias = torch.ones(4, 6), torch.ones(3)
    w = quantize(torch.ones(3, 6), "e4m3fn", granularity="row")
    for name, call in {
        "weight.codes is a ndarray: expected a Tensor": lambda: linear(x, W),
        "weight.codes is a Tensor: expected a ndarray": lambda: linear(X, w),
        "weight is a ndarray": lambda: linear(x, FULL),
        "weight.scale is a ndarray": lambda: linear(x, QuantizedTensor(w.codes, W.scale, "row")),
        "bias is a ndarray": lambda: linear(x, w, B),
        "bias is a Tensor": lambda: linear(X, W, bias),
        "out is a ndarray": lambda: linear(x, w, out=np.empty((4, 3), np.float32)),
    }.items():
        with pytest.raises(TypeError, match=name):
            call()
    meta = quantize(torch.ones(3, 6), "int8", granularity="row")
    with pytest.raises(ValueError, match=r"weight.codes is on device meta: expected cpu, as x"):
        linear(x, QuantizedTensor(meta.codes.to("meta"), meta.scale, "row"))
    with pytest.raises(TypeError, match="x has dtype float64"):
        linear(x.double().requires_grad_(), w)
    with pytest.raises(TypeError, match="bias is a ndarray"):
        linear(x.requires_grad_(), w, B)


def test_steps_that_are_no_whole_elements():
    rows = np.zeros(5, [("a", "f4", (6,)), ("b", "i2")])["a"]
    rows[:] = np.arange(30).reshape(5, 6)
    for x, weight in ((rows, W), (np.ones((2, 6), np.float32), rows)):
        dense = (np.ascontiguousarray(each) if isinstance(each, np.ndarray) else each for each in (x, weight))
        np.testing.assert_array_equal(linear(x, weight), linear(*dense))
