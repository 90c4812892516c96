"""Weights where they are, in a decoder or in the files of a checkpoint: what a process needs of them is read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..._arrays import FLOAT8, Array, namespace
from ..._arrays_torch import dtype_of
from ...quant import QuantizedTensor
from .. import _checkpoint, _saved
from .._checkpoint_families import family
from .._config import Config
from .._decoder import Decoder

Tensor = torch.Tensor

_DTYPES = {"F64": "float32", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}


class Stored(NamedTuple):
    """A weight of which rows and columns can be read.

    `pieces` are arrays, tensors or slices of files, one below the other, and `rows` says which of their rows those of
    the weight are, None if they are in order. `scale` (rows, 1) belongs to the codes of a dtype, both None for floats.
    """

    pieces: list[Any]
    rows: Array | None = None
    scale: Any = None
    codes: str | None = None


class Source(NamedTuple):
    config: Config
    dtype: str
    weight: Callable[[str], Stored]


def of_decoder(decoder: Decoder) -> Source:
    def weight(name: str) -> Stored:
        x = decoder.weights[name]
        if not isinstance(x, QuantizedTensor):
            return Stored([x])
        _check_rows(name, x.granularity, x.axis)
        codes, kind = namespace(x.codes)
        return Stored([_plain(codes)], None, x.scale, kind.dtype_name(codes))

    return Source(decoder.config, decoder.dtype, weight)


def of_folder(folder: str | os.PathLike[str], dtype: str | None, files: ExitStack) -> Source:
    """The source of a folder that `Decoder.load` reads; its files stay open."""
    path = Path(folder)
    raw = _checkpoint.read_json(path / "config.json")
    opened = _checkpoint.open_all(path, files)
    if raw.get("format") == _saved.KIND:
        return _saved_source(raw, opened, dtype)
    config, tensors = family(raw)
    _checkpoint.check(config, tensors, opened)
    order = None
    if tensors.per_head:
        order = _checkpoint.rows_by_kind(np.arange(3 * config.heads * config.head_dim), config.heads)

    def weight(name: str) -> Stored:
        pieces = [opened[part.name].get_slice(part.name) for part in tensors.parts[name]]
        for piece in pieces:
            _dtype(piece)
        return Stored(pieces, order if ".qkv." in name else None)

    return Source(config, dtype or _dtype(weight("embedding").pieces[0]), weight)


def _saved_source(raw: dict[str, Any], opened: dict[str, Any], dtype: str | None) -> Source:
    config, layouts = _saved.described(raw)
    _saved.check(config, layouts, opened)

    def weight(name: str) -> Stored:
        if name not in layouts:
            return Stored([opened[name].get_slice(name)])
        layout = layouts[name]
        _check_rows(name, layout["granularity"], layout["axis"])
        codes, scale = (opened[f"{name}.{part}"].get_slice(f"{name}.{part}") for part in ("codes", "scale"))
        return Stored([codes], None, scale[:], FLOAT8.get(layout["format"], "int8"))

    return Source(config, dtype or _dtype(weight("final_norm.weight").pieces[0]), weight)


def read(stored: Stored, rows: Array, columns: Array, dtype: str) -> Tensor:
    """Rows and columns of a weight, zeros where an index is -1; codes as bytes, or numbers of `dtype`."""
    out = torch.zeros(len(rows), len(columns), dtype=torch.uint8 if stored.codes else dtype_of(dtype))
    if stored.rows is not None:
        rows = np.where(rows < 0, -1, stored.rows[rows])
    first = 0
    for piece in stored.pieces:
        count = _shape(piece)[0]
        own = np.where((rows >= first) & (rows < first + count), rows - first, -1)
        for i, row, height in _runs(own):
            for j, column, width in _runs(columns):
                out[i : i + height, j : j + width] = _tensor(piece[row : row + height, column : column + width])
        first += count
    return out if stored.codes is None else out.view(dtype_of(stored.codes))


def scale_of(stored: Stored, rows: Array) -> Tensor:
    """The float32 scales (rows, 1) of quantized rows, 1 where an index is -1."""
    scale = _tensor(stored.scale).float()
    return torch.where(torch.from_numpy(rows[:, None] >= 0), scale[rows], 1.0)


def vector(stored: Stored) -> Tensor:
    """A norm or bias, in float32."""
    whole = torch.cat([_tensor(piece[:]).float() for piece in stored.pieces])
    return whole if stored.rows is None else whole[stored.rows]


def _runs(index: Array) -> Iterator[tuple[int, int, int]]:
    """Where runs of ascending indices begin in `index`, their first index, and their lengths; without those of -1."""
    breaks = (np.diff(index) != 1) | (index[:-1] < 0)
    for run in np.split(np.arange(len(index)), np.flatnonzero(breaks) + 1):
        if len(run) and index[run[0]] >= 0:
            yield int(run[0]), int(index[run[0]]), len(run)


def _shape(piece: Any) -> tuple[int, ...]:
    return tuple(piece.get_shape() if hasattr(piece, "get_shape") else piece.shape)


def _plain(codes: Any) -> Any:
    return codes.view(np.uint8 if isinstance(codes, np.ndarray) else torch.uint8)


def _tensor(x: Any) -> Tensor:
    if isinstance(x, torch.Tensor):
        return x.detach()
    like = torch.empty(0)
    return namespace(like)[1].from_numpy(np.array(x, order="C", copy=None), like)  # type: ignore[no-any-return]


def _dtype(piece: Any) -> str:
    name = piece.get_dtype()
    if name not in _DTYPES:
        raise ValueError(f"the checkpoint has weights of dtype {name}: expected one of {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _check_rows(name: str, granularity: Any, axis: int) -> None:
    if granularity != "row" or axis not in (-1, 1):
        raise NotImplementedError(
            f"weights[{name!r}] is quantized by {granularity!r} along axis {axis}: expected 'row', whose scales can be"
            " split over processes"
        )
