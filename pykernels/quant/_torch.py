"""The operations as torch operators, for torch.compile, and the straight-through gradient.

Eager calls do not come through here: an operator costs them several microseconds each.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._arrays import FLOAT8
from .._arrays_torch import dtype_of
from . import _convert, _quantize
from ._arguments import CODES
from ._layout import layout
from ._tensor import QuantizedTensor

_SCALE_DTYPE = {"fp32": torch.float32, "pow2": torch.float32, "e8m0": dtype_of(FLOAT8["e8m0fnu"])}


@torch.library.custom_op("pykernels::encode", mutates_args=())
def _encode(x: Tensor, format: str, overflow: str, rounding: str, seed: int | None) -> Tensor:
    return _own(_convert.encode(x, format, overflow=overflow, rounding=rounding, seed=_unsigned(seed)), x)


@_encode.register_fake
def _(x: Tensor, format: str, overflow: str, rounding: str, seed: int | None) -> Tensor:
    return torch.empty_like(x, dtype=dtype_of(FLOAT8[format]))


@torch.library.custom_op("pykernels::decode", mutates_args=())
def _decode(codes: Tensor, dtype: str, format: str | None) -> Tensor:
    return _own(_convert.decode(codes, dtype, format=format), codes)


@_decode.register_fake
def _(codes: Tensor, dtype: str, format: str | None) -> Tensor:
    return torch.empty_like(codes, dtype=dtype_of(dtype))


@torch.library.custom_op("pykernels::amax", mutates_args=())
def _amax(x: Tensor, axis: int | None, keepdims: bool) -> Tensor:
    return _convert.amax(x, axis, keepdims=keepdims)  # type: ignore[no-any-return]


@_amax.register_fake
def _(x: Tensor, axis: int | None, keepdims: bool) -> Tensor:
    return torch.empty_like(torch.amax(x, () if axis is None else axis, keepdims))


@torch.library.custom_op("pykernels::quantize", mutates_args=())
def _quantize_op(
    x: Tensor,
    format: str,
    granularity: str,
    axis: int,
    scale_format: str,
    scale_rounding: str,
    scale: Tensor | None,
    overflow: str,
    rounding: str,
    seed: int | None,
) -> tuple[Tensor, Tensor]:
    q = _quantize.quantize(
        x,
        format,
        granularity=_granularity(granularity),
        axis=axis,
        scale_format=scale_format,
        scale_rounding=scale_rounding,
        scale=scale,
        overflow=overflow,
        rounding=rounding,
        seed=_unsigned(seed),
    )
    return q.codes, q.scale


@_quantize_op.register_fake
def _(
    x: Tensor,
    format: str,
    granularity: str,
    axis: int,
    scale_format: str,
    scale_rounding: str,
    scale: Tensor | None,
    overflow: str,
    rounding: str,
    seed: int | None,
) -> tuple[Tensor, Tensor]:
    blocks = layout(x.shape, _granularity(granularity), axis)
    codes = x.new_empty(x.shape, dtype=dtype_of(CODES[format]))
    return codes, x.new_empty(blocks.scale_shape, dtype=_SCALE_DTYPE[scale_format])


@torch.library.custom_op("pykernels::dequantize", mutates_args=())
def _dequantize(codes: Tensor, scale: Tensor, granularity: str, axis: int, dtype: str) -> Tensor:
    return QuantizedTensor(codes, scale, _granularity(granularity), axis).dequantize(dtype)  # type: ignore[no-any-return]


@_dequantize.register_fake
def _(codes: Tensor, scale: Tensor, granularity: str, axis: int, dtype: str) -> Tensor:
    return codes.new_empty(codes.shape, dtype=dtype_of(dtype))


@torch.library.custom_op("pykernels::quantize_dequantize", mutates_args=())
def _quantize_dequantize(
    x: Tensor,
    format: str,
    granularity: str,
    axis: int,
    scale_format: str,
    scale_rounding: str,
    scale: Tensor | None,
    overflow: str,
    rounding: str,
    seed: int | None,
    backend: str | None,
) -> Tensor:
    return _quantize.quantize_dequantize(  # type: ignore[no-any-return]
        x.detach(),
        format,
        granularity=_granularity(granularity),
        axis=axis,
        scale_format=scale_format,
        scale_rounding=scale_rounding,
        scale=scale,
        overflow=overflow,
        rounding=rounding,
        seed=_unsigned(seed),
        backend=backend,
    )


@_quantize_dequantize.register_fake
def _(x: Tensor, *options: Any) -> Tensor:
    return x.new_empty(x.shape)


_quantize_dequantize.register_autograd(lambda context, gradient: (gradient, *(None,) * 10))


def encode(x: Tensor, format: str, overflow: str, rounding: str, seed: int | None, out: Tensor | None) -> Tensor:
    return _deliver(_encode(x, format, overflow, rounding, _signed(seed)), out)


def decode(codes: Tensor, dtype: str, format: str | None, out: Tensor | None) -> Tensor:
    return _deliver(_decode(codes, dtype, format), out)


def amax(x: Tensor, axis: int | None, keepdims: bool, out: Tensor | None) -> Tensor:
    return _deliver(_amax(x, axis, keepdims), out)


def dequantize(q: QuantizedTensor, dtype: str, out: Tensor | None) -> Tensor:
    return _deliver(_dequantize(q.codes, q.scale, _name(q.granularity), q.axis, dtype), out)


def quantize(x: Tensor, format: str, options: _quantize.Options, out: QuantizedTensor | None) -> QuantizedTensor:
    codes, scale = _quantize_op(x, format, *_arguments(x, options))
    if out is None:
        return QuantizedTensor(codes, scale, options.granularity, options.axis)
    out.codes.copy_(codes)
    out.scale.copy_(scale)
    return out


def quantize_dequantize(
    x: Tensor, format: str, options: _quantize.Options, out: Tensor | None, backend: str | None
) -> Tensor:
    return _deliver(_quantize_dequantize(x, format, *_arguments(x, options), backend), out)


def _arguments(x: Tensor, options: _quantize.Options) -> tuple[Any, ...]:
    scale = options.scale
    if scale is not None and not isinstance(scale, Tensor):
        scale = torch.tensor(scale, dtype=torch.float32)
    scale_format = options.scale_format or ("e8m0" if options.granularity == "mx" else "fp32")
    return (
        _name(options.granularity),
        options.axis,
        scale_format,
        options.scale_rounding,
        scale,
        options.overflow,
        options.rounding,
        _signed(options.seed),
    )


def _deliver(value: Tensor, out: Tensor | None) -> Tensor:
    return value if out is None else out.copy_(value)


def _own(value: Tensor, x: Tensor) -> Tensor:
    """`value` with the strides that the fake implementation promises, those of ``empty_like(x)``."""
    promised = torch.empty_like(x, dtype=value.dtype)
    return value if value.stride() == promised.stride() else promised.copy_(value)


def _name(granularity: Any) -> str:
    return granularity if isinstance(granularity, str) else ",".join(map(str, granularity))


def _granularity(name: str) -> Any:
    return tuple(map(int, name.split(","))) if name[:1].isdigit() else name


def _signed(seed: int | None) -> int | None:
    """A 64-bit seed in the operators' signed integers."""
    return seed if seed is None or seed < 1 << 63 else seed - (1 << 64)


def _unsigned(seed: int | None) -> int | None:
    return seed if seed is None or seed >= 0 else seed + (1 << 64)
