"""Products with quantized weights as a torch operator, for torch.compile, and as a function with a gradient.

Eager calls without a gradient do not come through here: an operator costs them dozens of microseconds.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .. import _options
from .._arrays_torch import dtype_name, dtype_of, tracing
from ..kernels.linear.problem import FLOATS
from . import _linear
from ._tensor import QuantizedTensor
from ._torch import _dequantize, _granularity, _name

_aten = torch.ops.aten


class Options(NamedTuple):
    """What the operator takes besides tensors; the blocks are those of the scale, if there is one."""

    granularity: str
    axis: int
    activation: str | None
    input_format: str | None
    out_dtype: str | None
    backend: str | None


def _forward(x: Tensor, codes: Tensor, scale: Tensor | None, bias: Tensor | None, *options: Any) -> Tensor:
    asked = Options(*options)
    weight = codes if scale is None else QuantizedTensor(codes, scale, _granularity(asked.granularity), asked.axis)
    return _linear.forward(x, weight, bias, *asked[2:5], None, asked.backend)  # type: ignore[no-any-return]


_linear_op = torch.library.custom_op(
    "pykernels::linear",
    _forward,
    mutates_args=(),
    schema=(
        "(Tensor x, Tensor codes, Tensor? scale, Tensor? bias, str granularity, int axis, str? activation, "
        "str? input_format, str? out_dtype, str? backend) -> Tensor"
    ),
)


@_linear_op.register_fake
def _(x: Tensor, codes: Tensor, scale: Tensor | None, bias: Tensor | None, *options: Any) -> Tensor:
    name = Options(*options).out_dtype
    return x.new_empty((*x.shape[:-1], codes.shape[0]), dtype=x.dtype if name is None else dtype_of(name))


def _remember(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:4])
    ctx.asked = Options(*inputs[4:])


def _backward(ctx: Any, grad: Tensor, run: Any = _linear_op, widen: Any = _dequantize) -> tuple[Tensor | None, ...]:
    x, codes, scale, bias = ctx.saved_tensors
    asked = ctx.asked
    of_x, of_weight, _, of_bias = ctx.needs_input_grad[:4]
    if asked.activation is not None:
        z = run(x, codes, scale, bias, *asked._replace(activation=None, out_dtype="float32"))
        grad = _through(asked.activation, grad.float(), z)
    m, (n, k) = prod(x.shape[:-1]), codes.shape
    grad = grad.reshape(m, n)
    gradients: list[Tensor | None] = [None] * (4 + len(asked))
    if of_x:
        weight = codes.to(x.dtype)
        if scale is not None:
            weight = widen(codes, scale, asked.granularity, asked.axis, dtype_name(x))
        gradients[0] = (grad.to(x.dtype) @ weight).reshape(x.shape)
    if of_weight:
        gradients[1] = (grad.to(x.dtype).T @ x.reshape(m, k)).to(codes.dtype)
    if of_bias:
        gradients[3] = grad.sum(0, dtype=torch.float32).to(bias.dtype)
    return tuple(gradients)


_linear_op.register_autograd(_backward, setup_context=_remember)


def _through(activation: str, grad: Tensor, z: Tensor) -> Tensor:
    """The gradient of z from that of its activation."""
    if activation == "relu":
        return _aten.threshold_backward(grad, z, 0)  # type: ignore[no-any-return]
    if activation == "silu":
        return _aten.silu_backward(grad, z)  # type: ignore[no-any-return]
    approximate = "tanh" if activation == "gelu_tanh" else "none"
    return _aten.gelu_backward(grad, z, approximate=approximate)  # type: ignore[no-any-return]


class _Linear(torch.autograd.Function):
    """The operator without what it costs."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        product = _forward(*inputs)
        _remember(ctx, inputs, product)
        return product

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _backward(ctx, grad, _forward, _widen)


def _widen(codes: Tensor, scale: Tensor, granularity: str, axis: int, dtype: str) -> Tensor:
    return QuantizedTensor(codes, scale, _granularity(granularity), axis).dequantize(dtype)  # type: ignore[no-any-return]


def linear(
    x: Tensor,
    weight: Any,
    bias: Tensor | None,
    activation: str | None,
    input_format: str | None,
    out_dtype: Any,
    out: Tensor | None,
    backend: str | None,
) -> Tensor:
    name = None if out_dtype is None else _options.floating_name(out_dtype, "", "out_dtype", FLOATS)
    if isinstance(weight, QuantizedTensor):
        parts = weight.codes, weight.scale
        blocks = _name(weight.granularity), weight.axis
    else:
        parts, blocks = (weight, None), ("", 0)
    compiled = tracing()
    if compiled:
        _options.follows_data(backend)
    run: Any = _linear_op if compiled else _Linear.apply
    result = run(x, *parts, bias, *blocks, activation, input_format, name, backend)
    return result if out is None else out.copy_(result)
