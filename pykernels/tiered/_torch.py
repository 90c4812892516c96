"""The transform as torch operators, for torch.compile and for gradients.

Eager calls without a gradient do not come through here: an operator costs them several microseconds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _arrays_torch
from .._dispatch import choose_backend
from . import _transform
from ._parameters import Parameters
from ._tiers import by_handle
from ._transform import Request


@torch.library.custom_op("pykernels::tiered_transform", mutates_args=())
def _transform_op(
    translation: Tensor,
    euler: Tensor,
    axis: Tensor,
    macro_translation: Tensor,
    macro_euler: Tensor,
    positions: Tensor,
    tiers: int,
    pivot: str,
    backend: str | None,
) -> Tensor:
    request = _request((translation, euler, axis, macro_translation, macro_euler), positions, tiers, pivot)
    return _transform.forward(request, None, choose_backend(_arrays_torch, positions, backend))  # type: ignore[no-any-return]


@_transform_op.register_fake
def _(
    translation: Tensor,
    euler: Tensor,
    axis: Tensor,
    macro_translation: Tensor,
    macro_euler: Tensor,
    positions: Tensor,
    *options: Any,
) -> Tensor:
    return positions.new_empty((axis.shape[0], *positions.shape[-2:]))


@torch.library.custom_op("pykernels::tiered_transform_backward", mutates_args=())
def _backward_op(
    grad: Tensor,
    translation: Tensor,
    euler: Tensor,
    axis: Tensor,
    macro_translation: Tensor,
    macro_euler: Tensor,
    positions: Tensor,
    tiers: int,
    pivot: str,
    backend: str | None,
    checked: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    request = _request((translation, euler, axis, macro_translation, macro_euler), positions, tiers, pivot)
    chosen = choose_backend(_arrays_torch, positions, backend)
    raw = request.raw(chosen) if checked else _transform.sound(request, chosen)
    of_params, of_positions = _transform.backward(grad.detach(), request, *raw, chosen)
    return *of_params, of_positions  # type: ignore[return-value]


@_backward_op.register_fake
def _(grad: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    return tuple(each.new_empty(each.shape) for each in inputs[:6])


def _remember(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:6])
    ctx.options = inputs[6:]


def _gradient(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return *_backward_op(grad, *ctx.saved_tensors, *ctx.options, True), None, None, None


def _refuse(ctx: Any, *grads: Any) -> None:
    raise NotImplementedError("transform is differentiable once: expected no gradient of its gradient")


_transform_op.register_autograd(_gradient, setup_context=_remember)
_backward_op.register_autograd(_refuse)


def transform(request: Request, out: Any, backend: str | None) -> Tensor:
    moved: Tensor = _transform_op(*request.params, request.positions, request.tiers.handle, request.pivot, backend)
    return moved if out is None else out.copy_(moved)


def transform_backward(grad: Tensor, request: Request) -> tuple[Parameters, Tensor]:
    *of_params, of_positions = _backward_op(
        grad, *request.params, request.positions, request.tiers.handle, request.pivot, None, False
    )
    return Parameters(*of_params), of_positions


def _request(params: tuple[Tensor, ...], positions: Tensor, tiers: int, pivot: str) -> Request:
    dtype = _arrays_torch.dtype_name(positions)
    return Request(_arrays_torch, Parameters(*params), by_handle[tiers], positions, pivot, dtype)
