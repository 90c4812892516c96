"""maxsim against loops over tokens in float64, and its gradient against autograd of the plain formula."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from conftest import HAS_TORCH, HAS_TRITON, run_threads
from search_oracle import BACKENDS, DTYPES, RNG, ragged, tensor

from pykernels import quant
from pykernels.quant import QuantizedTensor
from pykernels.search import maxsim

torch_needed = pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")
triton_needed = pytest.mark.skipif(not HAS_TRITON, reason="torch and triton are not installed")


def by_loops(queries, documents):
    """Scores of lists of token arrays, one dot product at a time."""
    scores = np.zeros((len(queries), len(documents)))
    for b, query in enumerate(queries):
        for d, document in enumerate(documents):
            for token in query:
                products = [float(np.dot(token.astype(np.float64), x.astype(np.float64))) for x in document]
                products = [value for value in products if not np.isnan(value)]
                scores[b, d] += max(products, default=-np.inf)
    return scores


def padded(documents, dtype="float32", fill=100):
    """(n, Ld, D), padded with vectors that would win every maximum, and the lengths."""
    lengths = np.array([len(each) for each in documents])
    x = np.full((len(documents), max(1, lengths.max(initial=0)), documents[0].shape[1]), fill).astype(DTYPES[dtype])
    for d, document in enumerate(documents):
        x[d, : len(document)] = document
    return x, lengths


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_packed_and_padded_documents(dtype, backend):
    lengths = [1, 0, 7, 16, 17, 12, 31, 33, 48, 2, 0, 64]
    for batch, width, dim in ((1, 1, 1), (2, 5, 3), (3, 32, 17), (1, 33, 64), (2, 12, 128)):
        tokens, offsets, documents = ragged(lengths, dim, dtype)
        queries = (RNG(1).standard_normal((batch, width, dim)) * 5).astype(DTYPES[dtype])
        expected = by_loops(queries, documents)
        scores = maxsim(queries, tokens, document_offsets=offsets, backend=backend)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-4)
        x, counts = padded(documents, dtype)
        masked = np.arange(x.shape[1]) < counts[:, None]
        for described in ({"document_lengths": counts}, {"document_mask": masked}):
            np.testing.assert_array_equal(maxsim(queries, x, **described, backend=backend), scores)
        np.testing.assert_array_equal(maxsim(queries[0], tokens, document_offsets=offsets, backend=backend), scores[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_masks_with_holes(backend):
    queries, x = RNG(0).standard_normal((4, 9, 20), "f4"), RNG(1).standard_normal((15, 21, 20), "f4")
    query_mask, document_mask = RNG(2).random((4, 9)) < 0.5, RNG(3).random((15, 21)) < 0.4
    query_mask[1], document_mask[4] = False, False
    expected = by_loops(
        [q[m] for q, m in zip(queries, query_mask, strict=True)], [d[m] for d, m in zip(x, document_mask, strict=True)]
    )
    scores = maxsim(queries, x, document_mask=document_mask, query_mask=query_mask, backend=backend)
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
    assert (scores[1] == 0).all() and (np.delete(scores, 1, 0)[:, 4] == -np.inf).all()
    one = maxsim(queries[2], x, document_mask=document_mask, query_mask=query_mask[2], backend=backend)
    np.testing.assert_array_equal(one, scores[2])
    counts = query_mask.sum(1)
    first = [q[:n] for q, n in zip(queries, counts, strict=True)]
    lengths = maxsim(queries, x, query_lengths=counts, backend=backend)
    np.testing.assert_allclose(lengths, by_loops(first, x), rtol=1e-5, atol=1e-5)
    one = maxsim(queries[2], x, query_lengths=counts[2], backend=backend)
    np.testing.assert_array_equal(one, lengths[2])


@pytest.mark.parametrize("backend", BACKENDS)
def test_negative_maxima_are_kept(backend):
    """Where padding or an initial 0 would win."""
    queries, tokens = np.abs(RNG(0).standard_normal((2, 6, 8), "f4")), -np.abs(RNG(1).standard_normal((40, 8), "f4"))
    offsets = [0, 3, 3, 19, 40]
    documents = [tokens[a:b] for a, b in pairwise(offsets)]
    scores = maxsim(queries, tokens, document_offsets=offsets, backend=backend)
    np.testing.assert_allclose(scores, by_loops(queries, documents), rtol=1e-5)
    assert (scores < 0).all()
    x, lengths = padded(documents, fill=0)
    np.testing.assert_array_equal(maxsim(queries, x, document_lengths=lengths, backend=backend), scores)


@pytest.mark.parametrize("backend", BACKENDS)
def test_int8_is_exact_and_scales_multiply(backend):
    queries = RNG(0).integers(-128, 128, (2, 7, 300)).astype(np.int8)
    tokens = RNG(1).integers(-128, 128, (50, 300)).astype(np.int8)
    offsets = np.arange(0, 51, 5)
    expected = by_loops(queries, [tokens[a : a + 5] for a in offsets[:-1]])
    np.testing.assert_array_equal(maxsim(queries, tokens, document_offsets=offsets, backend=backend), expected)
    scaled = maxsim(
        QuantizedTensor(queries, np.float32(0.5)),
        QuantizedTensor(tokens, np.float32(0.25)),
        document_offsets=offsets,
        backend=backend,
    )
    np.testing.assert_array_equal(scaled, expected / 8)
    q, x = (quant.quantize(each.astype("f4"), "e4m3fn") for each in (queries, tokens))
    expected = by_loops(q.dequantize(), [x.dequantize()[a : a + 5] for a in offsets[:-1]])
    scores, best = maxsim(q, x, document_offsets=offsets, k=10, backend=backend)
    np.testing.assert_allclose(scores, -np.sort(-expected), rtol=1e-5)
    np.testing.assert_array_equal(best, np.argsort(-expected, 1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_best_documents(backend):
    queries, tokens = RNG(0).integers(-2, 3, (3, 4, 6)).astype("f4"), RNG(1).integers(-2, 3, (300, 6)).astype("f4")
    offsets = np.sort(RNG(2).integers(0, 301, 81))
    documents = [tokens[a:b] for a, b in pairwise(offsets)]
    expected = by_loops(queries, documents)
    for k in (0, 1, 20, 80):
        best = np.argsort(-expected, 1, kind="stable")[:, :k]
        out = np.full((3, k), np.nan, "f4"), np.full((3, k), -7)
        assert maxsim(queries, tokens, document_offsets=offsets, k=k, out=out, backend=backend) is out
        np.testing.assert_array_equal(out[1], best)
        np.testing.assert_array_equal(out[0], np.take_along_axis(expected, best, 1))
        scores, ids = maxsim(queries[1], tokens, document_offsets=offsets, k=k, backend=backend)
        np.testing.assert_array_equal(ids, best[1])
        assert scores.shape == (k,)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nan_products_are_ignored(backend):
    queries, tokens = RNG(0).standard_normal((2, 3, 5), "f4"), RNG(1).standard_normal((12, 5), "f4")
    tokens[[1, 6, 7, 8]] = np.nan
    offsets = [0, 3, 6, 9, 12]
    scores = maxsim(queries, tokens, document_offsets=offsets, backend=backend)
    documents = [tokens[a:b] for a, b in pairwise(offsets)]
    np.testing.assert_allclose(scores, by_loops(queries, documents), rtol=1e-5)
    assert (scores[:, 2] == -np.inf).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty(backend):
    ones = np.ones
    assert maxsim(ones((2, 3, 4), "f4"), ones((5, 4), "f4"), document_offsets=[0], backend=backend).shape == (2, 0)
    assert maxsim(ones((0, 3, 4), "f4"), ones((2, 5, 4), "f4"), backend=backend).shape == (0, 2)
    nothing = maxsim(ones((2, 0, 4), "f4"), ones((3, 5, 4), "f4"), document_lengths=[5, 0, 1], backend=backend)
    np.testing.assert_array_equal(nothing, np.zeros((2, 3)))
    empty = maxsim(ones((2, 3, 4), "f4"), ones((2, 0, 4), "f4"), query_lengths=[3, 0], backend=backend)
    np.testing.assert_array_equal(empty, [[-np.inf] * 2, [0, 0]])
    empty = maxsim(ones((1, 3, 4), "f4"), ones((0, 4), "f4"), document_offsets=[0, 0, 0], backend=backend)
    np.testing.assert_array_equal(empty, [[-np.inf] * 2])


@pytest.mark.parametrize("backend", BACKENDS)
def test_strides_and_out(backend):
    queries = RNG(0).standard_normal((9, 4, 10), "f4").transpose(1, 0, 2)[::-1]
    tokens = RNG(1).standard_normal((10, 60), "f4").T
    offsets = np.arange(0, 61, 6)
    expected = maxsim(queries.copy(), tokens.copy(), document_offsets=offsets, backend=backend)
    out = np.full((10, 4), np.nan, "f4").T
    assert maxsim(queries, tokens, document_offsets=offsets, out=out, backend=backend) is out
    np.testing.assert_array_equal(out, expected)


def test_two_threads():
    queries = RNG(0).standard_normal((3, 32, 64), "f4")
    tokens, offsets, _ = ragged(RNG(1).integers(20, 300, 100), 64)
    expected = maxsim(queries, tokens, document_offsets=offsets)
    same = []

    def work():
        for _ in range(5):
            same.append(np.array_equal(maxsim(queries, tokens, document_offsets=offsets), expected))

    run_threads(work, work)
    assert same == [True] * 10


@torch_needed
@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_give_what_arrays_give(dtype):
    import torch

    tokens, offsets, _ = ragged([3, 0, 20], 24, dtype)
    queries = RNG(3).standard_normal((2, 5, 24)).astype(DTYPES[dtype])
    expected = maxsim(queries, tokens, document_offsets=offsets)
    out = torch.full((2, 3), torch.nan)
    described = {"document_offsets": torch.from_numpy(offsets)}
    assert maxsim(tensor(queries), tensor(tokens), **described, out=out) is out
    np.testing.assert_array_equal(out.numpy(), expected)


@triton_needed
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_gpu_kernels(dtype):
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokens, offsets, _ = ragged([3, 0, 20, 33], 24, dtype)
    queries = (RNG(3).standard_normal((2, 5, 24)) * 3).astype(DTYPES[dtype])
    mask = RNG(4).random((2, 5)) < 0.7
    expected = maxsim(queries, tokens, document_offsets=offsets, query_mask=mask, backend="reference")
    q, x = tensor(queries).to(device), tensor(tokens).to(device)
    scores = maxsim(q, x, document_offsets=offsets, query_mask=mask, backend="gpu")
    np.testing.assert_allclose(scores.cpu().numpy(), expected, rtol=1e-5, atol=1e-5)
