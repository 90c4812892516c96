"""The operations as torch operators, for torch.compile and for gradients.

Eager calls without a gradient do not come through here: an operator costs them several microseconds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _arrays_torch
from .._dispatch import choose_backend
from . import _approx, _topk
from ._approx import Request


@torch.library.custom_op("pykernels::topk", mutates_args=())
def _topk_op(x: Tensor, k: int, axis: int, largest: bool, sorted: bool, backend: str | None) -> tuple[Tensor, Tensor]:
    return _topk.topk(x.detach(), k, axis=axis, largest=largest, sorted=sorted, backend=backend)


@_topk_op.register_fake
def _(x: Tensor, k: int, axis: int, *options: Any) -> tuple[Tensor, Tensor]:
    return _selected(x, axis, k)


@torch.library.custom_op("pykernels::approx_topk", mutates_args=())
def _approx_topk_op(
    x: Tensor,
    k: int,
    axis: int,
    size: int,
    recall_target: float,
    aggregate: bool,
    largest: bool,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    request = Request(k, axis, size, recall_target, aggregate, largest)
    return _approx.by_request(_arrays_torch, x.detach(), request, choose_backend(_arrays_torch, x, backend))


@_approx_topk_op.register_fake
def _(
    x: Tensor,
    k: int,
    axis: int,
    size: int,
    recall_target: float,
    aggregate: bool,
    largest: bool,
    backend: str | None,
) -> tuple[Tensor, Tensor]:
    if not aggregate:
        request = Request(int(k), axis, int(size), recall_target, aggregate, largest)
        k = _approx.selected(request, int(x.shape[axis]), choose_backend(_arrays_torch, x, backend))
    return _selected(x, axis, k)


def topk(
    x: Tensor, k: int, axis: int, largest: bool, sorted: bool, out: Any, backend: str | None
) -> tuple[Tensor, Tensor]:
    values, indices = _topk_op(x, k, axis, largest, sorted, backend)
    return (values, indices) if out is None else (out[0].copy_(values), out[1].copy_(indices))


def approximate(x: Tensor, request: Request, backend: str | None) -> tuple[Tensor, Tensor]:
    return _approx_topk_op(x, *request, backend)  # type: ignore[no-any-return]


def _selected(x: Tensor, axis: int, size: int) -> tuple[Tensor, Tensor]:
    """Values and indices of a selection, as `_rows.fill` lays them out."""
    shape = (*x.shape[:axis], *x.shape[axis + 1 :], size)
    return x.new_empty(shape).movedim(-1, axis), x.new_empty(shape, dtype=torch.int64).movedim(-1, axis)


def _remember(ctx: Any, inputs: Any, output: Any) -> None:
    x, _, axis, *_ = inputs
    ctx.shape, ctx.axis, ctx.others = x.shape, axis, len(inputs) - 1
    ctx.save_for_backward(output[1])


def _scatter(ctx: Any, gradient: Tensor, _: Any) -> tuple[Any, ...]:
    """The gradient of the values, back where they came from."""
    (indices,) = ctx.saved_tensors
    return gradient.new_zeros(ctx.shape).scatter(ctx.axis, indices, gradient), *(None,) * ctx.others


for _operator in (_topk_op, _approx_topk_op):
    _operator.register_autograd(_scatter, setup_context=_remember)
