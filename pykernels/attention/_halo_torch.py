"""Halo attention as torch operators, for torch.compile, and as a function with a gradient, for all else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import _arrays_torch
from .._dispatch import launcher
from ..kernels.attention.problem import Window
from . import _halo
from ._attention import choose
from ._halo import Inputs

_INPUTS = "Tensor q, Tensor k, Tensor v, Tensor? rel_height, Tensor? rel_width"
_RULES = "SymInt block, SymInt halo, SymInt stride, bool masked, float scale, str? backend"
"""`Inputs`; `Window`, then the rest."""


def _forward(*given: Any) -> tuple[Tensor, Tensor]:
    *tensors, block, halo, stride, masked, scale, backend = given
    return _halo.forward(_arrays_torch, Inputs(*tensors), Window(block, halo, stride, masked), scale, None, backend)


_halo_op = torch.library.custom_op(
    "pykernels::halo_attention", _forward, mutates_args=(), schema=f"({_INPUTS}, {_RULES}) -> (Tensor, Tensor)"
)


@_halo_op.register_fake
def _(*given: Any) -> tuple[Tensor, Tensor]:
    q, v = given[0], given[2]
    logs = torch.float64 if q.dtype is torch.float64 else torch.float32
    return q.new_empty((*q.shape[:4], v.shape[4])), q.new_empty(q.shape[:4], dtype=logs)


def _gradients(grad_out: Tensor, *given: Any) -> tuple[Tensor, ...]:
    """Gradients of the inputs, empty where there is no table."""
    *tensors, out, lse, block, halo, stride, masked, scale, backend = given
    inputs = Inputs(*tensors)
    backend = choose(_arrays_torch, inputs.q, backend)
    pairs = [
        _arrays_torch.allocate(
            (0,) if x is None else tuple(x.shape), _arrays_torch.dtype_name(inputs.q), inputs.q, backend
        )
        for x in inputs
    ]
    results = tuple(result for result, _ in pairs)
    if out.numel() == 0:
        return tuple(result.zero_() for result in results)
    launcher("attention", backend, "halo_backward")(
        _arrays_torch.strided(grad_out, backend),
        *inputs.raw(_arrays_torch, backend),
        Window(block, halo, stride, masked),
        scale,
        _arrays_torch.strided(out, backend),
        _arrays_torch.raw(lse, backend),
        *(None if x is None else target for x, (_, target) in zip(inputs, pairs, strict=True)),
    )
    return results


_backward_op = torch.library.custom_op(
    "pykernels::halo_attention_backward",
    _gradients,
    mutates_args=(),
    schema=(
        f"(Tensor grad_out, {_INPUTS}, Tensor out, Tensor lse, {_RULES}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
)


@_backward_op.register_fake
def _(grad_out: Tensor, *given: Any) -> tuple[Tensor, ...]:
    return tuple(given[0].new_empty(0 if x is None else x.shape) for x in given[:5])


def _remember(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:5], *output)
    ctx.rules = inputs[5:]
    ctx.mark_non_differentiable(output[1])


def _backward(ctx: Any, grad_out: Tensor, _: Any, run: Any = _backward_op) -> tuple[Any, ...]:
    gradients = run(grad_out, *ctx.saved_tensors, *ctx.rules)
    asked = ctx.needs_input_grad[:5]
    return *(g if wanted else None for g, wanted in zip(gradients, asked, strict=True)), *(None,) * len(ctx.rules)


_halo_op.register_autograd(_backward, setup_context=_remember)


class _Halo(torch.autograd.Function):
    """The operator without what it costs, a tenth of a millisecond."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[Tensor, Tensor]:
        output = _forward(*given)
        _remember(ctx, given, output)
        return output

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_out: Tensor, grad_lse: Tensor) -> tuple[Any, ...]:
        return _backward(ctx, grad_out, grad_lse, _gradients)


def halo(inputs: Inputs, window: Window, scale: float, backend: str | None) -> Tensor:
    run: Any = _halo_op if _arrays_torch.tracing() else _Halo.apply
    return run(*inputs, *window, scale, backend)[0]  # type: ignore[no-any-return]
