"""Bad input: the exact exception, naming the argument, and nothing written."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from conftest import refused

from pykernels import quant

X = np.ones((4, 6), np.float32)
E4M3 = ml_dtypes.float8_e4m3fn

BAD = {
    "format": (ValueError, "format='fp8'", lambda: quant.encode(X, "fp8")),
    "format type": (TypeError, "format=3", lambda: quant.encode(X, 3)),
    "format list": (TypeError, "format=", lambda: quant.encode(X, ["e4m3fn"])),
    "overflow": (ValueError, "overflow='wrap'", lambda: quant.encode(X, "e4m3fn", overflow="wrap")),
    "rounding": (ValueError, "rounding='up'", lambda: quant.encode(X, "e4m3fn", rounding="up")),
    "backend": (ValueError, "backend='tpu'", lambda: quant.encode(X, "e4m3fn", backend="tpu")),
    "backend gpu": (NotImplementedError, "backend='gpu'", lambda: quant.encode(X, "e4m3fn", backend="gpu")),
    "integers": (TypeError, "x has dtype int64", lambda: quant.encode(np.arange(3), "e4m3fn")),
    "complex": (TypeError, "x has dtype complex64", lambda: quant.quantize(X.astype("c8"), "e4m3fn")),
    "booleans": (TypeError, "x has dtype bool", lambda: quant.amax(X > 0)),
    "float8": (TypeError, "x has dtype float8_e4m3fn", lambda: quant.encode(X.astype(E4M3), "e5m2")),
    "strings": (TypeError, "x has dtype", lambda: quant.encode(["a"], "e4m3fn")),
    "no seed": (ValueError, "needs seed", lambda: quant.encode(X, "e4m3fn", rounding="stochastic")),
    "seed unused": (ValueError, "seed=1", lambda: quant.encode(X, "e4m3fn", seed=1)),
    "seed type": (TypeError, "seed=1.5", lambda: quant.encode(X, "e4m3fn", rounding="stochastic", seed=1.5)),
    "seed range": (ValueError, "seed=-1", lambda: quant.encode(X, "e4m3fn", rounding="stochastic", seed=-1)),
    "out shape": (ValueError, "out has shape (4, 5)", lambda: quant.encode(X, "e4m3fn", out=np.empty((4, 5), E4M3))),
    "out dtype": (TypeError, "out has dtype uint8", lambda: quant.encode(X, "e4m3fn", out=np.empty((4, 6), np.uint8))),
    "out kind": (TypeError, "out is a list", lambda: quant.encode(X, "e4m3fn", out=[])),
    "decode dtype": (TypeError, "dtype='int8'", lambda: quant.decode(X.astype(E4M3), "int8")),
    "decode codes": (TypeError, "codes has dtype float32", lambda: quant.decode(X)),
    "decode bytes": (TypeError, "codes has dtype uint8", lambda: quant.decode(np.zeros(3, np.uint8))),
    "decode format": (TypeError, "format='e5m2'", lambda: quant.decode(X.astype(E4M3), format="e5m2")),
    "axis": (ValueError, "axis=2", lambda: quant.amax(X, 2)),
    "axis type": (TypeError, "axis=1.0", lambda: quant.amax(X, 1.0)),
    "granularity": (ValueError, "granularity='block'", lambda: quant.quantize(X, "e4m3fn", granularity="block")),
    "granularity type": (TypeError, "granularity=128", lambda: quant.quantize(X, "e4m3fn", granularity=128)),
    "granularity floats": (TypeError, "(1.0, 2)", lambda: quant.quantize(X, "e4m3fn", granularity=(1.0, 2))),
    "granularity zero": (ValueError, "(0, 2)", lambda: quant.quantize(X, "e4m3fn", granularity=(0, 2))),
    "granularity three": (ValueError, "(1, 2, 3)", lambda: quant.quantize(X, "e4m3fn", granularity=(1, 2, 3))),
    "column 1-D": (ValueError, "needs at least 2", lambda: quant.quantize(X[0], "e4m3fn", granularity="column")),
    "block 1-D": (ValueError, "needs at least 2", lambda: quant.quantize(X[0], "e4m3fn", granularity=(2, 2))),
    "row 0-D": (ValueError, "needs at least 1", lambda: quant.quantize(X[0, 0], "e4m3fn", granularity="row")),
    "block axis": (
        ValueError,
        "last two axes",
        lambda: quant.quantize(X[None], "e4m3fn", granularity=(2, 2), axis=0),
    ),
    "row axis": (ValueError, "axis=5", lambda: quant.quantize(X, "e4m3fn", granularity="row", axis=5)),
    "scale format": (ValueError, "scale_format='fp16'", lambda: quant.quantize(X, "e4m3fn", scale_format="fp16")),
    "mx fp32": (
        ValueError,
        "scale_format='fp32'",
        lambda: quant.quantize(X, "e4m3fn", granularity="mx", scale_format="fp32"),
    ),
    "scale rounding": (ValueError, "scale_rounding='up'", lambda: quant.quantize(X, "e4m3fn", scale_rounding="up")),
    "scale shape": (ValueError, "scale has shape (4,)", lambda: quant.quantize(X, "e4m3fn", scale=np.ones(4))),
    "scale zero": (ValueError, "scale contains 0.0", lambda: quant.quantize(X, "e4m3fn", scale=0.0)),
    "scale negative": (ValueError, "scale contains -1.0", lambda: quant.quantize_dequantize(X, "e4m3fn", scale=-1)),
    "scale nan": (ValueError, "scale contains nan", lambda: quant.quantize(X, "e4m3fn", scale=np.nan)),
    "scale inf": (ValueError, "scale contains inf", lambda: quant.quantize(X, "e4m3fn", scale=np.inf)),
    "scale complex": (TypeError, "scale has dtype", lambda: quant.quantize(X, "e4m3fn", scale=1j)),
    "scale e8m0": (ValueError, "powers of two", lambda: quant.quantize(X, "e4m3fn", scale=3.0, scale_format="e8m0")),
    "scale tiny": (
        ValueError,
        "powers of two",
        lambda: quant.quantize(X, "e4m3fn", scale=2**-130, scale_format="pow2"),
    ),
    "out quantized": (TypeError, "out is a ndarray", lambda: quant.quantize(X, "e4m3fn", out=X)),
    "out granularity": (
        ValueError,
        "granularity",
        lambda: quant.quantize(X, "e4m3fn", granularity="row", out=quant.quantize(X, "e4m3fn")),
    ),
    "out format": (
        TypeError,
        "out.codes has dtype",
        lambda: quant.quantize(X, "e5m2", out=quant.quantize(X, "e4m3fn")),
    ),
    "matmul type": (TypeError, "a is a ndarray", lambda: quant.scaled_matmul(X, X)),
    "matmul shape": (ValueError, "b (4, 6)", lambda: quant.scaled_matmul(*(quant.quantize(X, "e4m3fn"),) * 2)),
    "matmul dtype": (
        TypeError,
        "dtype='int32'",
        lambda: quant.scaled_matmul(*(quant.quantize(X[:4, :4], "e4m3fn"),) * 2, "int32"),
    ),
    "history": (ValueError, "history=0", lambda: quant.DelayedScaling(0)),
    "history type": (TypeError, "history=1.5", lambda: quant.DelayedScaling(1.5)),
    "margin": (ValueError, "margin=nan", lambda: quant.DelayedScaling(margin=np.nan)),
    "algorithm": (ValueError, "algorithm='mean'", lambda: quant.DelayedScaling(algorithm="mean")),
    "state": (ValueError, "state has keys", lambda: quant.DelayedScaling().load_state_dict({})),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    refused(*BAD[name])


def test_out_that_overlaps_is_refused_and_unchanged():
    memory = np.arange(64, dtype=np.float32)
    codes = memory.view(E4M3)[:64]
    with pytest.raises(ValueError, match="shares memory"):
        quant.encode(memory, "e4m3fn", out=codes)
    with pytest.raises(ValueError, match="shares memory"):
        quant.decode(codes, out=memory)
    with pytest.raises(ValueError, match="shares memory"):
        quant.quantize_dequantize(memory, "e4m3fn", out=memory)
    np.testing.assert_array_equal(memory, np.arange(64))
    halves = np.zeros((8, 2), np.float32)
    quant.quantize_dequantize(halves[:, 0], "e4m3fn", out=halves[:, 1])


def test_read_only_out_is_refused():
    out = np.empty(X.shape, E4M3)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        quant.encode(X, "e4m3fn", out=out)
