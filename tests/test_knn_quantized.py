"""knn of quantized and low-precision databases, with and without rescoring."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from search_oracle import BACKENDS, DTYPES, METRICS, RNG, assert_nearest, brute_force, integers, true_scores

from pykernels import quant
from pykernels.quant import QuantizedTensor
from pykernels.search import knn


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("granularity", ["tensor", "row"])
@pytest.mark.parametrize("format", ["e4m3fn", "int8"])
@pytest.mark.parametrize("metric", METRICS)
def test_quantized_tensors(metric, format, granularity, backend):
    """Searched on codes, and with floating-point queries: as exact as their values."""
    q, x = RNG(0).standard_normal((8, 33), "f4"), RNG(1).standard_normal((500, 33), "f4")
    x *= np.exp(RNG(2).standard_normal((500, 1), "f4"))
    codes_q, codes_x = quantized(q, format, granularity), quantized(x, format, granularity)
    values_q, values_x = codes_q.dequantize("float64"), codes_x.dequantize("float64")
    for allowed in (None, RNG(3).random(500) < 0.3, RNG(4).random((8, 500)) < 0.3):
        mask = True if allowed is None else np.broadcast_to(allowed, (8, 500))
        result = knn(codes_q, codes_x, 15, metric=metric, mask=allowed, backend=backend)
        assert_nearest(result, values_q, values_x, 15, metric, mask)
        result = knn(q, codes_x, 15, metric=metric, mask=allowed, backend=backend)
        assert_nearest(result, q, values_x, 15, metric, mask)
    half = q.astype(ml_dtypes.bfloat16)
    assert_nearest(knn(half, codes_x, 15, metric=metric, backend=backend), half, values_x, 15, metric)


def quantized(x, format, granularity):
    if format == "e4m3fn":
        return quant.quantize(x, "e4m3fn", granularity=granularity, scale_format="pow2")
    scale = np.abs(x).max(None if granularity == "tensor" else 1, keepdims=granularity == "row") / np.float32(127)
    return QuantizedTensor(np.round(x / scale).astype(np.int8), scale.astype(np.float32), granularity)


def test_codes_are_converted_in_blocks_and_merged():
    """A database of many blocks, with ties across them and masks that empty some."""
    q, x = integers((4, 64), "float32"), integers((40_000, 64), "int8", 1)
    codes = QuantizedTensor(x, np.float32(0.5))
    for allowed in (None, np.arange(40_000) > 30_000, RNG(0).random((4, 40_000)) < 0.2):
        expected = brute_force(q, x.astype("f4") / 2, 50, "l2", True if allowed is None else allowed)
        scores, ids = knn(q, codes, 50, metric="l2", mask=allowed, workspace=1 << 20)
        np.testing.assert_array_equal(ids, expected[1])
        np.testing.assert_array_equal(scores, expected[0])


def recall(ids, best):
    return np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(ids, best, strict=True)])


@pytest.mark.parametrize("metric", METRICS)
def test_recall_of_low_precision_with_and_without_rescoring(metric):
    q, x = RNG(0).standard_normal((40, 64), "f4"), RNG(1).standard_normal((3000, 64), "f4")
    best = brute_force(q, x, 10, metric)[1]
    low = {
        "float16": x.astype(np.float16),
        "bfloat16": x.astype(ml_dtypes.bfloat16),
        "int8": quantized(x, "int8", "row"),
        "e4m3fn": quantized(x, "e4m3fn", "row"),
    }
    floor = {"float16": 0.99, "bfloat16": 0.97, "int8": 0.93, "e4m3fn": 0.75}
    for name, database in low.items():
        queries = q.astype(DTYPES[name]) if name in ("float16", "bfloat16") else q
        plain = recall(knn(queries, database, 10, metric=metric)[1], best)
        scores, ids = knn(q, database, 10, metric=metric, rescore=x, oversampling=8)
        assert plain >= floor[name]
        assert recall(ids, best) >= max(plain, 0.999), name
        true = np.take_along_axis(true_scores(q, x, metric), ids, 1)
        np.testing.assert_allclose(scores, true, rtol=1e-5, atol=1e-5)
    result = knn(q, low["e4m3fn"], 10, metric=metric, rescore=x, oversampling=10**6)
    assert_nearest(result, q, x, 10, metric)


def test_rescoring_leaves_out_what_is_masked_or_nan():
    q, x = RNG(0).standard_normal((6, 16), "f4"), RNG(1).standard_normal((90, 16), "f4")
    x[4, 4], q[3, 3] = np.nan, np.nan
    allowed = RNG(2).random(90) < 0.2
    for metric in METRICS:
        for database in (x.astype(np.float16), quantized(np.nan_to_num(x), "int8", "row")):
            scores, ids = knn(q, database, 30, metric=metric, mask=allowed, rescore=x)
            sound = np.delete(np.arange(6), 3)
            assert (ids[3] == -1).all()
            assert_nearest((scores[sound], ids[sound]), q[sound], x, 30, metric, np.broadcast_to(allowed, (5, 90)))
