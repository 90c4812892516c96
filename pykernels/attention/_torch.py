"""Attention as torch operators, for torch.compile, and as a function with a gradient, for all else.

Eager calls without a gradient do not come through here: an operator costs them dozens of microseconds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import _arrays_torch
from .._dispatch import launcher
from ..kernels.attention.problem import Gradients, Lengths, Scoring
from . import _attention, _lengths, _scoring
from ._operands import allocate, tokens_first

_PROBLEM = (
    "float scale, float softcap, SymInt left, SymInt right, bool upper_left, Tensor? slopes, Tensor? bias, "
    "Tensor? mask, Tensor? sinks, Tensor? cu_q, Tensor? cu_k, Tensor? kv, str? backend"
)
"""`Scoring`, then `Lengths`, in the order of their fields."""
_SCORING, _LENGTHS = slice(0, len(Scoring._fields)), slice(len(Scoring._fields), -1)


_BIAS, _SINKS = (3 + Scoring._fields.index(name) for name in ("bias", "sinks"))


def _forward(q: Tensor, k: Tensor, v: Tensor, *problem: Any) -> tuple[Tensor, Tensor]:
    scoring, lengths = Scoring(*problem[_SCORING]), Lengths(*problem[_LENGTHS])
    return _attention.forward(_arrays_torch, q, k, v, scoring, lengths, None, problem[-1])


_attention_op = torch.library.custom_op(
    "pykernels::attention",
    _forward,
    mutates_args=(),
    schema=f"(Tensor q, Tensor k, Tensor v, {_PROBLEM}) -> (Tensor, Tensor)",
)


@_attention_op.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *problem: Any) -> tuple[Tensor, Tensor]:
    return _like(q, v.shape[3]), _logs(q).new_empty(q.shape[:3])


def _gradients(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    of_bias: bool,
    of_sinks: bool,
    *problem: Any,
) -> tuple[Tensor, ...]:
    """Gradients of q, k, v, bias and sinks; of the last two only where asked for."""
    scoring, lengths = Scoring(*problem[_SCORING]), Lengths(*problem[_LENGTHS])
    backend = _attention.choose(_arrays_torch, q, problem[-1])
    wide = _scoring.logit_dtype(_arrays_torch, q)
    pairs = [allocate(_arrays_torch, x.shape, _arrays_torch.dtype_name(x), x, backend) for x in (q, k, v)]
    for x, asked in ((scoring.bias, of_bias), (scoring.sinks, of_sinks)):
        pairs.append(_arrays_torch.allocate(tuple(x.shape) if asked else (0,), wide, q, backend))
    results, targets = zip(*pairs, strict=True)
    if q.numel() == 0:
        for result in results:
            result.zero_()
        return results
    shape = (*q.shape[:3], k.shape[2])
    launcher("attention", backend, "attention_backward")(
        _arrays_torch.strided(grad_out, backend),
        None if grad_lse is None else _arrays_torch.raw(grad_lse.contiguous(), backend),
        *(_arrays_torch.strided(x, backend) for x in (q, k, v, out)),
        _arrays_torch.raw(lse, backend),
        _scoring.raw(_arrays_torch, scoring, shape, backend),
        _lengths.raw(_arrays_torch, lengths, backend),
        Gradients(
            targets[0], targets[1], targets[2], targets[3] if of_bias else None, targets[4] if of_sinks else None
        ),
    )
    return results


_backward_op = torch.library.custom_op(
    "pykernels::attention_backward",
    _gradients,
    mutates_args=(),
    schema=(
        "(Tensor grad_out, Tensor? grad_lse, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse, bool of_bias, "
        f"bool of_sinks, {_PROBLEM}) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
    ),
)


@_backward_op.register_fake
def _(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    of_bias: bool,
    of_sinks: bool,
    *problem: Any,
) -> tuple[Tensor, ...]:
    scoring = Scoring(*problem[_SCORING])
    asked = ((scoring.bias, of_bias), (scoring.sinks, of_sinks))
    return *(_like(x, x.shape[3]) for x in (q, k, v)), *(lse.new_empty(x.shape if wanted else 0) for x, wanted in asked)


def _remember(ctx: Any, inputs: Any, output: Any) -> None:
    q, k, v, *problem = inputs
    ctx.tensors = [i for i, x in enumerate(problem) if isinstance(x, Tensor)]
    ctx.problem = [None if isinstance(x, Tensor) else x for x in problem]
    ctx.save_for_backward(q, k, v, *output, *(problem[i] for i in ctx.tensors))
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None, run: Any = _backward_op) -> tuple[Any, ...]:
    q, k, v, out, lse, *tensors = ctx.saved_tensors
    problem = list(ctx.problem)
    for i, x in zip(ctx.tensors, tensors, strict=True):
        problem[i] = x
    if grad_out is None:
        grad_out = torch.zeros_like(out)
    of_bias, of_sinks = (ctx.needs_input_grad[i] for i in (_BIAS, _SINKS))
    gradients: list[Tensor | None] = [None] * (3 + len(problem))
    *gradients[:3], bias, sinks = run(grad_out, grad_lse, q, k, v, out, lse, of_bias, of_sinks, *problem)
    gradients[_BIAS], gradients[_SINKS] = bias if of_bias else None, sinks if of_sinks else None
    return tuple(gradients)


_attention_op.register_autograd(_backward, setup_context=_remember)


class _Attention(torch.autograd.Function):
    """The operator without what it costs, a tenth of a millisecond."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        output = _forward(*inputs)
        _remember(ctx, inputs, output)
        return output

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad_out: Tensor | None, grad_lse: Tensor | None) -> tuple[Any, ...]:
        return _backward(ctx, grad_out, grad_lse, _gradients)


def attention(
    q: Tensor, k: Tensor, v: Tensor, asked: Scoring, lengths: Lengths, backend: str | None
) -> tuple[Tensor, Tensor]:
    run: Any = _attention_op if _arrays_torch.tracing() else _Attention.apply
    return run(q, k, v, *asked, *lengths, backend)  # type: ignore[no-any-return]


def _like(x: Tensor, width: Any) -> Tensor:
    """An empty tensor of `x`'s shape but for the last axis, laid out as `allocate` does."""
    b, h, s, _ = x.shape
    if tokens_first(_arrays_torch, x):
        return x.new_empty((b, s, h, width)).permute(0, 2, 1, 3)
    return x.new_empty((b, h, s, width))


def _logs(q: Tensor) -> Tensor:
    return q.new_empty(0, dtype=torch.float64 if q.dtype is torch.float64 else torch.float32)
