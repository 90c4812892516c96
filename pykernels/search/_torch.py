"""The operations as torch operators, for torch.compile and for the gradient of maxsim.

Other eager calls do not come through here: an operator costs them several microseconds each.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._dispatch import choose_backend
from ..quant import QuantizedTensor
from . import _knn, _maxsim, _ragged
from ._vectors import vectors


@torch.library.custom_op("pykernels::knn", mutates_args=())
def _knn_op(
    queries: Tensor,
    query_scale: Tensor | None,
    database: Tensor,
    database_scale: Tensor | None,
    k: int,
    metric: str,
    mask: Tensor | None,
    rescore: Tensor | None,
    oversampling: int,
    workspace: int,
) -> tuple[Tensor, Tensor]:
    return _knn.knn(  # type: ignore[no-any-return]
        _with_scale(queries, query_scale),
        _with_scale(database, database_scale),
        k,
        metric=metric,
        mask=mask,
        rescore=rescore,
        oversampling=oversampling,
        workspace=workspace,
    )


@_knn_op.register_fake
def _(
    queries: Tensor, query_scale: Tensor | None, database: Tensor, database_scale: Tensor | None, k: int, *options: Any
) -> tuple[Tensor, Tensor]:
    shape = (*queries.shape[:-1], k)
    return queries.new_empty(shape, dtype=torch.float32), queries.new_empty(shape, dtype=torch.int64)


@torch.library.custom_op("pykernels::maxsim", mutates_args=())
def _maxsim_op(
    queries: Tensor,
    documents: Tensor,
    document_offsets: Tensor | None,
    document_lengths: Tensor | None,
    document_mask: Tensor | None,
    query_lengths: Tensor | None,
    query_mask: Tensor | None,
    attained: bool,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    """Scores, and the tokens that attain the maxima, (B, documents, L), or none."""
    q, x = vectors("queries", queries), vectors("documents", documents)
    scores, tokens = _maxsim.compute(
        q,
        x,
        _ragged.documents(x.shape, document_offsets, document_lengths, document_mask),
        _ragged.queries(q.shape, query_lengths, query_mask),
        attained,
        choose_backend(q.arrays, queries, backend),
    )
    return scores, tokens if attained else queries.new_empty(0, dtype=torch.int64)


@_maxsim_op.register_fake
def _(
    queries: Tensor,
    documents: Tensor,
    document_offsets: Tensor | None,
    document_lengths: Tensor | None,
    document_mask: Tensor | None,
    query_lengths: Tensor | None,
    query_mask: Tensor | None,
    attained: bool,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    count = documents.shape[0] if document_offsets is None else document_offsets.shape[0] - 1
    scores = queries.new_empty((*queries.shape[:-2], count), dtype=torch.float32)
    batch = queries.shape[0] if queries.ndim == 3 else 1
    shape = (batch, count, queries.shape[-2]) if attained else (0,)
    return scores, queries.new_empty(shape, dtype=torch.int64)


@torch.library.custom_op("pykernels::maxsim_backward", mutates_args=())
def _maxsim_backward(
    gradient: Tensor, tokens: Tensor, queries: Tensor, documents: Tensor, of_queries: bool, of_documents: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of both, or none where not asked for, a query at a time: memory of documents * L * D."""
    batch, count, width = tokens.shape
    dim = queries.shape[-1]
    q, x = queries.reshape(batch, width, dim), documents.reshape(-1, dim)
    weights = gradient.reshape(batch, count, 1) * (tokens >= 0)
    chosen = tokens.clamp(min=0)
    dq = torch.zeros_like(q, dtype=torch.float32)
    dx = torch.zeros_like(x, dtype=torch.float32)
    for b in range(batch):
        if of_queries:
            rows = x.index_select(0, chosen[b].view(-1)).float().view(count, width, dim)
            dq[b] = torch.einsum("nl,nld->ld", weights[b], rows)
        if of_documents:
            _add_rows(dx, chosen[b].view(-1), (weights[b, :, :, None] * q[b].float()).view(-1, dim))
    return (
        dq.to(queries.dtype).view(queries.shape) if of_queries else queries.new_empty(0),
        dx.to(documents.dtype).view(documents.shape) if of_documents else documents.new_empty(0),
    )


@_maxsim_backward.register_fake
def _(
    gradient: Tensor, tokens: Tensor, queries: Tensor, documents: Tensor, of_queries: bool, of_documents: bool
) -> tuple[Tensor, Tensor]:
    return (
        queries.new_empty(queries.shape if of_queries else 0),
        documents.new_empty(documents.shape if of_documents else 0),
    )


def _add_rows(total: Tensor, rows: Tensor, values: Tensor) -> None:
    """``total[rows] += values``, in the same order every time."""
    if total.device.type == "cpu":
        total.index_add_(0, rows, values)
    else:
        total.index_put_((rows,), values, accumulate=True)  # sorts; index_add_ has atomics there


def _remember(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(output[1], *inputs[:2])


def _backward(context: Any, gradient: Tensor, _: Any) -> tuple[Any, ...]:
    tokens, queries, documents = context.saved_tensors
    wanted = context.needs_input_grad[:2]
    gradients = _maxsim_backward(gradient, tokens, queries, documents, *wanted)
    return *(g if asked else None for g, asked in zip(gradients, wanted, strict=True)), *(None,) * 7


_maxsim_op.register_autograd(_backward, setup_context=_remember)


def knn(queries: Any, database: Any, k: int, metric: str, mask: Any, rescore: Any, *limits: Any) -> Any:
    oversampling, workspace, out = limits
    sides = [(x.codes, x.scale) if isinstance(x, QuantizedTensor) else (x, None) for x in (queries, database)]
    scores, ids = _knn_op(*sides[0], *sides[1], k, metric, mask, rescore, oversampling, workspace)
    return (scores, ids) if out is None else (out[0].copy_(scores), out[1].copy_(ids))


def maxsim(queries: Tensor, documents: Tensor, described: tuple[Any, ...], backend: str | None) -> Tensor:
    described = tuple(None if each is None else _tensor(each) for each in described)
    attained = torch.is_grad_enabled() and (queries.requires_grad or documents.requires_grad)
    return _maxsim_op(queries, documents, *described, attained, backend)[0]  # type: ignore[no-any-return]


def _with_scale(codes: Tensor, scale: Tensor | None) -> Any:
    return codes if scale is None else QuantizedTensor(codes, scale, "row" if scale.ndim else "tensor")


def _tensor(x: Any) -> Tensor:
    return x if isinstance(x, Tensor) else torch.as_tensor(x)
