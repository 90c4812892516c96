"""halo_attention."""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import _options
from .._arrays import namespace
from .._dispatch import launcher
from ..kernels.attention.problem import Window
from ._attention import choose
from ._operands import check_out
from ._scoring import alike, finite, logit_dtype


class Inputs(NamedTuple):
    """What has a gradient: queries of every `stride`-th pixel, keys, values and tables."""

    q: Any
    k: Any
    v: Any
    rel_height: Any
    rel_width: Any

    def raw(self, arrays: Any, backend: str) -> tuple[Any, ...]:
        return tuple(None if x is None else arrays.strided(x, backend) for x in self)


def halo_attention(
    q: Any,
    k: Any,
    v: Any,
    *,
    block: int,
    halo: int,
    rel_height: Any = None,
    rel_width: Any = None,
    stride: int = 1,
    pad: str = "zero",
    scale: float | None = None,
    out: Any = None,
    backend: str | None = None,
) -> Any:
    """Attention of the pixels of an image to those around their block (HaloNet, arXiv 2103.12731).

    The image is cut into blocks of `block` x `block` pixels, from its first pixel on. All queries of a block read the
    keys and values of the block and of `halo` pixels on every side, (block + 2 halo)^2 pixels. Windows are not
    gathered: memory is that of the arguments, the result, and one number for each query. The logit of a key is

        scale * <q, k> + <q, rel_height[r_y]> + <q, rel_width[r_x]>,   r = key - query + block - 1 + halo

    in pixels, for each axis. Accumulation is in float32; of float64 in float64, on the CPU in loops on one thread.

    Parameters
    ----------
    q : (B, H, height, width, D), of which every `stride`-th pixel is used, or only these queries,
        (B, H, ceil(height / stride), ceil(width / stride), D)
    k, v : (B, H, height, width, D) and (B, H, height, width, Dv), one key and one value to a pixel
        Arrays of NumPy or torch of the same dtype: float32, bfloat16, float16, or, but on a GPU, float64. Of any
        strides; only arrays whose last axis is not contiguous, or with an axis that runs backwards, are copied. Any
        axis but D and Dv may be empty, and any size need not be a multiple of `block`: blocks that reach beyond the
        image have fewer queries.
    block : pixels of a block along each axis, at least 1
    halo : pixels around it, at least 0
    rel_height, rel_width : None, or (2 block + 2 halo - 1, D) of q's dtype: relative positions of rows and of columns
        Row r belongs to a key that lies r - (block - 1 + halo) pixels below, or to the right of, its query.
    stride : a divisor of `block`: queries are every `stride`-th pixel of both axes (attention downsampling)
    pad : "zero": pixels outside of the image have keys and values of zero and take part; "mask": they do not
    scale : None for ``D ** -0.5``
    out : array of the result's shape and of q's dtype to fill, of any strides, sharing no memory with the inputs
    backend : None to follow the data, or "cpu", "gpu", "reference" (float64 inside, then rounded)

    Returns
    -------
    out : (B, H, ceil(height / stride), ceil(width / stride), Dv) of q's dtype and kind

    A NaN or +Inf logit makes the output of its query NaN. The bits of an image do not depend on the batch around it,
    nor on the number of threads. Under torch, differentiable once with respect to q, k, v and both tables; weights
    are computed again for the gradient, which is deterministic.

    Raises
    ------
    TypeError for dtypes, kinds of arrays and arguments of wrong type; ValueError for shapes and devices that do not
    fit, sizes out of range, a stride that does not divide the block, and an `out` of wrong shape or overlapping
    memory; NotImplementedError for a backend that cannot run here, or not this. Nothing is written then.

    Examples
    --------
    >>> import numpy as np
    >>> from pykernels.attention import halo_attention
    >>> pixels = np.arange(4, dtype=np.float32).reshape(1, 1, 1, 4, 1)
    >>> zeros = np.zeros((1, 1, 1, 4, 1), np.float32)
    >>> halo_attention(zeros, zeros, pixels, block=2, halo=1, pad="mask")[0, 0, 0, :, 0]  # windows 0-2 and 1-3
    array([1., 1., 2., 2.], dtype=float32)
    >>> towards = np.float32([[0], [0], [0], [0], [99]])  # the key two pixels to the right of a query
    >>> halo_attention(zeros + 1, zeros, pixels, block=2, halo=1, pad="mask", rel_width=towards)[0, 0, 0, :, 0]
    array([2., 1., 2., 2.], dtype=float32)
    """
    block = _options.integer("block", block, 1)
    halo = _options.integer("halo", halo, 0)
    stride = _options.integer("stride", stride, 1, block)
    if block % stride:
        raise ValueError(f"stride={stride}: expected a divisor of block={block}")
    masked = _options.choice("pad", pad, ("zero", "mask")) == "mask"
    window = Window(block, halo, stride, masked)
    arrays, inputs = _inputs(q, k, v, rel_height, rel_width, window)
    factor = inputs.q.shape[-1] ** -0.5 if scale is None else finite("scale", scale)
    if out is not None:
        check_out(arrays, out, (*inputs.q.shape[:4], inputs.v.shape[4]), *inputs)
    tracing = arrays.tracing()
    if tracing:
        _options.follows_data(backend)
    if tracing or any(x is not None and arrays.needs_gradient(x) for x in inputs):
        from . import _halo_torch

        result = _halo_torch.halo(inputs, window, factor, backend)
        return result if out is None else out.copy_(result)
    return forward(arrays, inputs, window, factor, out, backend)[0]


def forward(
    arrays: Any, inputs: Inputs, window: Window, scale: float, out: Any, backend: str | None
) -> tuple[Any, Any]:
    """The output and the logarithms of the denominators, by a launcher."""
    backend = choose(arrays, inputs.q, backend)
    launch = launcher("attention", backend, "halo")
    shape = *inputs.q.shape[:4], inputs.v.shape[4]
    lse, logs = arrays.allocate(shape[:4], logit_dtype(arrays, inputs.q), inputs.q, backend)
    if out is not None and arrays.is_strided(out):
        result, target = out, arrays.strided(out, backend)
    else:
        result, target = arrays.allocate(shape, arrays.dtype_name(inputs.q), inputs.q, backend)
    if 0 not in shape:
        launch(*inputs.raw(arrays, backend), window, scale, target, logs)
    if out is not None and result is not out:
        arrays.copy_into(out, result)
        result = out
    return result, lse


def _inputs(q: Any, k: Any, v: Any, rel_height: Any, rel_width: Any, window: Window) -> tuple[Any, Inputs]:
    """The module for the kind of the arrays, and arrays that fit together."""
    q, arrays = namespace(q)
    dtype = (_options.floating(arrays, q, "q"),)
    k, v = alike(arrays, q, "k", k, dtype), alike(arrays, q, "v", v, dtype)
    for name, x in (("q", q), ("k", k), ("v", v)):
        if len(x.shape) != 5:
            raise ValueError(f"{name} has shape {tuple(x.shape)}: expected 5 axes, (B, H, height, width, D)")
    if k.shape[:4] != v.shape[:4]:
        raise ValueError(f"k has shape {tuple(k.shape)} and v {tuple(v.shape)}: expected a value for every key")
    if q.shape[4] != k.shape[4] or k.shape[4] < 1 or v.shape[4] < 1:
        raise ValueError(
            f"q has shape {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)}: expected the same last axis D "
            "of q and k, and D and Dv of at least 1"
        )
    stride = window.stride
    kept = tuple(-(-n // stride) for n in k.shape[2:4])
    if tuple(q.shape[:4]) == tuple(k.shape[:4]):
        q = q[:, :, ::stride, ::stride]
    elif tuple(q.shape[:4]) != (*k.shape[:2], *kept):
        expected = f"{tuple(k.shape)}" + f" or {(*k.shape[:2], *kept, k.shape[4])}" * (stride > 1)
        raise ValueError(f"q has shape {tuple(q.shape)}: expected {expected} for k of shape {tuple(k.shape)}")
    shape = 2 * (window.block + window.halo) - 1, q.shape[4]
    tables = {"rel_height": rel_height, "rel_width": rel_width}
    for name, table in tables.items():
        if table is not None:
            tables[name] = table = alike(arrays, q, name, table, dtype)
            if tuple(table.shape) != shape:
                raise ValueError(f"{name} has shape {tuple(table.shape)}: expected {shape}, (2 block + 2 halo - 1, D)")
    return arrays, Inputs(q, k, v, **tables)
