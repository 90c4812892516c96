"""maxsim."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from .. import _options
from .._arrays import namespace
from .._dispatch import choose_backend, launcher
from ..topk import topk
from . import _ragged
from ._results import check_out_pair, deliver
from ._vectors import Vectors, check_pair, vectors

Array = np.ndarray[Any, Any]


def maxsim(
    queries: Any,
    documents: Any,
    *,
    document_offsets: Any = None,
    document_lengths: Any = None,
    document_mask: Any = None,
    query_lengths: Any = None,
    query_mask: Any = None,
    k: int | None = None,
    out: Any = None,
    backend: str | None = None,
) -> Any:
    """Late interaction (ColBERT, arXiv 2004.12832, equation 3): ``sum_i max_j <q_i, x_j>`` for every document.

    Parameters
    ----------
    queries : (L, D), the tokens of one query, or (B, L, D) of a batch
    documents : packed tokens (T, D) with `document_offsets`, or padded tokens (documents, Ld, D)
        Arrays of NumPy or torch, both of the same dtype: float32, float16, bfloat16, int8 or
        float8_e4m3fn; or QuantizedTensors of int8 or e4m3fn with granularity "tensor".
    document_offsets : int64 or int32 (documents + 1,), ascending: document d is the tokens
        ``offsets[d] : offsets[d + 1]``
    document_lengths : int64 or int32 (documents,): the first tokens of each padded document count
    document_mask : bool (documents, Ld): the tokens that are True count, anywhere in the document
    query_lengths : int64 or int32, (B,) or, for one query, (): the first tokens of each query count
    query_mask : bool (B, L) or (L,): the tokens that are True count
    k : None for the scores of all documents; else the k best of them, 0 to their number
    out : array for the scores, or for `k` a pair of arrays, sharing no memory with the inputs
    backend : None to follow the data, or "cpu", "gpu", "reference"

    Returns
    -------
    scores : float32 (B, documents), or (documents,) for one query; with `k`, the pair of scores
        (..., k), descending, and int64 numbers of the documents; equal scores by the lowest number.

    Maxima may be negative: tokens that do not count, such as padding, take part in nothing. A document
    without tokens scores -Inf, and every document 0 for a query without tokens. A NaN product is ignored
    by the maximum. Products are accumulated in float32 (of int8, exactly); no matrix of all of them is
    ever held.

    Under torch, differentiable with respect to plain queries and documents: each token of a query shares
    the gradient with the one token of a document that attains its maximum, the first of them. The result
    is the same bits every time.

    Raises
    ------
    TypeError for dtypes that are not accepted or do not match; ValueError for shapes, lengths or offsets
    that do not fit, two ways of saying which tokens count, `k` out of range, and an `out` of wrong shape
    or overlapping memory; NotImplementedError for a backend that cannot run here.

    Examples
    --------
    >>> import numpy as np
    >>> from pykernels.search import maxsim
    >>> query = np.float32([[1, 0], [0, 1]])
    >>> tokens = np.float32([[1, 0], [0, 2], [-1, -1]])
    >>> maxsim(query, tokens, document_offsets=[0, 2, 3, 3])
    array([  3.,  -2., -inf], dtype=float32)
    >>> maxsim(query, tokens, document_offsets=[0, 2, 3, 3], k=1)
    (array([3.], dtype=float32), array([0]))
    """
    q, x = vectors("queries", queries), vectors("documents", documents)
    arrays = q.arrays
    _check(q, x)
    described = (document_offsets, document_lengths, document_mask, query_lengths, query_mask)
    if arrays.tracing():
        _options.follows_data(backend)
        count = x.shape[0] if document_offsets is None else len(document_offsets) - 1
    else:
        chosen = choose_backend(arrays, q.values, backend)
        ragged = _ragged.documents(x.shape, *described[:3]), _ragged.queries(q.shape, *described[3:])
        count = len(ragged[0].offsets) - 1
    lead = q.shape[:-2]
    if k is not None:
        k = _options.integer("k", k, 0, count)
    if out is not None:
        if k is None:
            for source in (q.values, x.values):
                _options.check_out(arrays, out, (*lead, count), "float32", source)
        else:
            check_out_pair(arrays, out, (*lead, k), (q.values, x.values))
    if arrays.tracing() or arrays.needs_gradient(q.values) or arrays.needs_gradient(x.values):
        scores = arrays.operators("search").maxsim(q.values, x.values, described, backend)
    else:
        scores = compute(q, x, *ragged, False, chosen)[0]
    for scale in (q.scale, x.scale):
        if scale is not None:
            scores = scores * arrays.cast(scale, "float32")
    if k is None:
        return deliver(arrays, (scores,), None if out is None else (out,))[0]
    return deliver(arrays, topk(scores, k, backend=backend), out)


def compute(
    q: Vectors, x: Vectors, documents: _ragged.Documents, queries: _ragged.Queries, attained: bool, backend: str
) -> tuple[Any, Any]:
    """Scores (..., documents), and if `attained` the numbers (B, documents, L) of the tokens of the maxima."""
    arrays, like = q.arrays, q.values
    batch, width, dim = prod(q.shape[:-2]), *q.shape[-2:]
    count = len(documents.offsets) - 1
    scores, target = arrays.allocate((*q.shape[:-2], count), "float32", like, backend)
    tokens: Any = None
    numbers: Any = None
    if attained:
        tokens, numbers = arrays.allocate((batch, count, width), "int64", like, backend)
    if width == 0:
        target[...] = 0
    elif batch and count:
        source = q.raw(backend, (batch, width, dim))
        if queries.order is not None:
            source = source[_batch(queries.order, backend, like, arrays)]
        rows, offsets, lengths = (
            None if each is None else _raw(each, backend, like, arrays)
            for each in (documents.rows, documents.offsets, queries.lengths)
        )
        run = launcher("search", backend, "maxsim")
        run(source, lengths, x.raw(backend), rows, offsets, target.reshape(batch, count), numbers)
        if attained and queries.order is not None:
            batches, back = _batch(np.argsort(queries.order, 1), backend, like, arrays)
            swapped = namespace(numbers)[1].permute(numbers, (0, 2, 1))
            swapped[...] = swapped[batches, back]
    return scores, tokens


def _batch(positions: Array, backend: str, like: Any, arrays: Any) -> tuple[Any, Any]:
    """The index that takes `positions` (B, L) of each query."""
    return tuple(_raw(each, backend, like, arrays) for each in (np.arange(len(positions))[:, None], positions))  # type: ignore[return-value]


def _raw(value: Array, backend: str, like: Any, arrays: Any) -> Any:
    return arrays.raw(arrays.from_numpy(value, like), backend)


def _check(q: Vectors, x: Vectors) -> None:
    if len(q.shape) not in (2, 3) or len(x.shape) not in (2, 3):
        raise ValueError(
            f"queries has shape {q.shape} and documents {x.shape}: expected (L, D) or (B, L, D), and (T, D) or "
            "(documents, Ld, D)"
        )
    check_pair(q, x, ("queries", "documents"))
    if (q.dtype, q.scale is None) != (x.dtype, x.scale is None):
        raise TypeError(f"queries has dtype {q.described} and documents {x.described}: expected the same")
    for name, each in (("queries", q), ("documents", x)):
        if each.scale is not None and each.scale.ndim:
            raise ValueError(f"{name} has granularity 'row': expected 'tensor'")
