"""Bad input: the exact exception, naming the argument, and nothing written."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from conftest import refused

from pykernels.topk import approx_max_k, approx_min_k, expected_recall, plan, topk

X = np.ones((4, 6), np.float32)


def pair(shape=(4, 2), values=np.float32, indices=np.int64):
    return np.zeros(shape, values), np.zeros(shape, indices)


BAD = {
    "k negative": (ValueError, "k=-1: expected an integer from 0 to 6", lambda: topk(X, -1)),
    "k large": (ValueError, "k=7: expected an integer from 0 to 6", lambda: topk(X, 7)),
    "k of an axis": (ValueError, "k=5: expected an integer from 0 to 4", lambda: topk(X, 5, axis=0)),
    "k of nothing": (ValueError, "k=1", lambda: topk(X[:, :0], 1)),
    "k float": (TypeError, "k=2.0", lambda: topk(X, 2.0)),
    "k bool": (TypeError, "k=True", lambda: topk(X, True)),
    "k array": (TypeError, "k=", lambda: topk(X, np.ones(1))),
    "0-D": (ValueError, "axis=-1: expected an axis of an array of 0 dimensions", lambda: topk(np.float32(1), 1)),
    "axis": (ValueError, "axis=2", lambda: topk(X, 1, axis=2)),
    "axis float": (TypeError, "axis=1.0", lambda: topk(X, 1, axis=1.0)),
    "axis None": (TypeError, "axis=None", lambda: topk(X, 1, axis=None)),
    "complex": (TypeError, "x has dtype complex64", lambda: topk(X.astype("c8"), 1)),
    "bool": (TypeError, "x has dtype bool", lambda: topk(X > 0, 1)),
    "uint32": (TypeError, "x has dtype uint32", lambda: topk(X.astype("u4"), 1)),
    "float8": (TypeError, "x has dtype float8_e4m3fn", lambda: topk(X.astype(ml_dtypes.float8_e4m3fn), 1)),
    "strings": (TypeError, "x has dtype", lambda: topk(["a", "b"], 1)),
    "backend": (ValueError, "backend='tpu'", lambda: topk(X, 1, backend="tpu")),
    "backend gpu": (NotImplementedError, "backend='gpu'", lambda: topk(X, 1, backend="gpu")),
    "out single": (TypeError, "out is a ndarray", lambda: topk(X, 2, out=pair()[0])),
    "out triple": (TypeError, "out is a tuple of length 3", lambda: topk(X, 2, out=(*pair(), None))),
    "out kind": (TypeError, "out[0] is a list", lambda: topk(X, 2, out=([], pair()[1]))),
    "out shape": (ValueError, "out[0] has shape (4, 3)", lambda: topk(X, 2, out=pair((4, 3)))),
    "out values": (TypeError, "out[0] has dtype float64", lambda: topk(X, 2, out=pair(values=np.float64))),
    "out indices": (TypeError, "out[1] has dtype int32", lambda: topk(X, 2, out=pair(indices=np.int32))),
    "approx k zero": (ValueError, "k=0: expected an integer from 1 to 6", lambda: approx_max_k(X, 0)),
    "approx k large": (ValueError, "k=7", lambda: approx_min_k(X, 7)),
    "approx empty": (ValueError, "k=1", lambda: approx_max_k(X[:, :0], 1)),
    "approx integers": (TypeError, "operand has dtype int64", lambda: approx_max_k(X.astype(int), 1)),
    "approx dimension": (ValueError, "reduction_dimension=2", lambda: approx_max_k(X, 1, reduction_dimension=2)),
    "approx dimension type": (
        TypeError,
        "reduction_dimension=0.5",
        lambda: approx_max_k(X, 1, reduction_dimension=0.5),
    ),
    "recall zero": (ValueError, "recall_target=0", lambda: approx_max_k(X, 1, recall_target=0)),
    "recall large": (ValueError, "recall_target=1.1", lambda: approx_min_k(X, 1, recall_target=1.1)),
    "recall nan": (ValueError, "recall_target=nan", lambda: approx_max_k(X, 1, recall_target=float("nan"))),
    "recall type": (TypeError, "recall_target='0.9'", lambda: approx_max_k(X, 1, recall_target="0.9")),
    "recall bool": (TypeError, "recall_target=True", lambda: plan(100, 1, True)),
    "override small": (
        ValueError,
        "reduction_input_size_override=5: expected an integer at least 6",
        lambda: approx_max_k(X, 1, reduction_input_size_override=5),
    ),
    "override negative": (
        ValueError,
        "reduction_input_size_override=-2",
        lambda: approx_max_k(X, 1, reduction_input_size_override=-2),
    ),
    "override type": (
        TypeError,
        "reduction_input_size_override=9.0",
        lambda: approx_max_k(X, 1, reduction_input_size_override=9.0),
    ),
    "plan n": (ValueError, "n=0", lambda: plan(0, 1, 0.9)),
    "plan n type": (TypeError, "n=10.0", lambda: plan(10.0, 1, 0.9)),
    "plan k": (ValueError, "k=11: expected an integer from 1 to 10", lambda: plan(10, 11, 0.9)),
    "plan recall": (ValueError, "recall_target=-0.1", lambda: plan(10, 1, -0.1)),
    "plan backend": (ValueError, "backend='tpu'", lambda: plan(10, 1, 0.9, backend="tpu")),
    "plan backend type": (TypeError, "backend=None", lambda: plan(10, 1, 0.9, backend=None)),
    "recall of bins": (ValueError, "bins=11: expected an integer from 1 to 10", lambda: expected_recall(10, 2, 11)),
    "recall of per_bin": (ValueError, "per_bin=0", lambda: expected_recall(10, 2, 5, 0)),
    "recall of k": (ValueError, "k=0", lambda: expected_recall(10, 0, 5)),
    "recall of k type": (TypeError, "k=2.5", lambda: expected_recall(10, 2.5, 5)),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    refused(*BAD[name])


def test_out_that_overlaps_or_is_read_only_is_refused_and_unchanged():
    memory = np.arange(64, dtype=np.float32)
    x, indices = memory.reshape(8, 8), np.full((8, 2), -7)
    with pytest.raises(ValueError, match=r"out\[0\] shares memory with the input"):
        topk(x, 2, out=(x[:, :2], indices))
    with pytest.raises(ValueError, match=r"out\[1\] shares memory with the input"):
        topk(x, 2, out=(np.empty((8, 2), np.float32), memory[:32].view(np.int64).reshape(8, 2)))
    numbers = np.full((8, 2), 5)
    with pytest.raises(ValueError, match=r"out\[0\] shares memory with out\[1\]"):
        topk(np.ones((8, 3), np.int64), 2, out=(numbers, numbers))
    frozen = np.empty((8, 2), np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match=r"out\[0\] is read-only"):
        topk(x, 2, out=(frozen, indices))
    wrong = np.full((8, 2), -7, np.int32)
    values = np.full((8, 2), 9, np.float32)
    with pytest.raises(TypeError, match=r"out\[1\] has dtype int32"):
        topk(x, 2, out=(values, wrong))
    np.testing.assert_array_equal(memory, np.arange(64))
    assert (indices == -7).all() and (numbers == 5).all() and (values == 9).all()
