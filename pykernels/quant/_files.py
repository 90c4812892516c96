"""Quantized arrays as safetensors files: codes and E8M0 scales as bytes, the rest as metadata."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from .._arrays import FLOAT8, dtype_of, namespace
from ._arguments import CODES
from ._layout import layout
from ._tensor import QuantizedTensor

KIND = "pykernels.QuantizedTensor/1"


def save(q: QuantizedTensor, path: str | os.PathLike[str]) -> None:
    arrays = namespace(q.codes)[1]
    codes, scale = (np.array(arrays.to_numpy(part), order="C") for part in (q.codes, q.scale))
    parts = {"codes": codes.view(np.uint8), "scale": scale.view(np.uint8) if scale.itemsize == 1 else scale}
    layout_of = {"format": q.format, "granularity": q.granularity, "axis": q.axis}
    _safetensors().save_file(parts, os.fspath(path), metadata={"kind": KIND, "layout": json.dumps(layout_of)})


def load(path: str | os.PathLike[str], framework: str) -> QuantizedTensor:
    if framework not in ("numpy", "torch"):
        raise ValueError(f"framework={framework!r}: expected 'numpy' or 'torch'")
    library = _safetensors()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            metadata = file.metadata() or {}
        parts = library.load_file(os.fspath(path))
    except SafetensorError as error:
        raise ValueError(f"path={os.fspath(path)!r} is not a safetensors file: {error}") from None
    try:
        codes, scale, granularity, axis = _checked(parts, metadata)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"path={os.fspath(path)!r} does not hold a QuantizedTensor: {error}") from None
    if framework == "torch":
        import torch

        from .._arrays_torch import from_numpy

        like = torch.empty(0)
        codes, scale = from_numpy(codes, like), from_numpy(scale, like)
    return QuantizedTensor(codes, scale, granularity, axis)


def _checked(parts: dict[str, Any], metadata: dict[str, str]) -> tuple[Any, Any, Any, int]:
    """Codes, scale, granularity and axis of a file, if they belong together."""
    if metadata.get("kind") != KIND:
        raise ValueError(f"its metadata has kind {metadata.get('kind')!r}, expected {KIND!r}")
    described = json.loads(metadata["layout"])
    granularity, axis = described["granularity"], described["axis"]
    granularity = granularity if isinstance(granularity, str) else tuple(granularity)
    codes, scale = parts["codes"], parts["scale"]
    blocks = layout(codes.shape, granularity, axis)
    if described["format"] not in CODES or codes.dtype != np.uint8 or scale.dtype not in (np.uint8, np.float32):
        raise ValueError(f"format {described['format']!r} with dtypes {codes.dtype} and {scale.dtype}")
    if scale.shape != blocks.scale_shape:
        raise ValueError(f"scale has shape {scale.shape}, expected {blocks.scale_shape}")
    if scale.dtype == np.uint8:
        scale = scale.view(dtype_of(FLOAT8["e8m0fnu"]))
    return codes.view(dtype_of(CODES[described["format"]])), scale, granularity, axis


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ModuleNotFoundError as error:
        raise NotImplementedError("save and load need the package safetensors, which is not installed here") from error
    return safetensors.numpy
