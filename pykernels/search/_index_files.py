"""An index as a safetensors file: stored rows, their scales and ids; terms of the metric are computed again."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from .. import _arrays
from .._arrays import dtype_of
from ..quant._files import _safetensors as safetensors
from . import _rows
from ._index import Index
from ._rows import home, numpy
from ._table import Table

KIND = "pykernels.search.Index/1"

_BITS = {"float32": "float32", "float16": "float16", "bfloat16": "uint16", "int8": "int8", "e4m3fn": "uint8"}
"""What a file holds for the rows of an index's dtype."""


def save(index: Index, path: str | os.PathLike[str]) -> None:
    library = safetensors()
    view, centre = index._table.view(), index._centre
    parts: dict[str, Any] = {
        name: numpy(view.column(name)) for name in ("ids", "vectors", "factor") if name in view.columns
    }
    parts["vectors"] = parts["vectors"].view(_BITS[index.dtype])
    if centre is not None:
        parts["centre"] = numpy(centre)
    parts = {name: np.ascontiguousarray(part) for name, part in parts.items()}
    described = {"dim": index.dim, "metric": index.metric, "dtype": index.dtype, "next_id": view.next_id}
    incomplete = f"{os.fspath(path)}.{os.getpid()}.incomplete"
    try:
        library.save_file(parts, incomplete, metadata={"kind": KIND, "index": json.dumps(described)})
        os.replace(incomplete, path)
    finally:
        if os.path.exists(incomplete):
            os.unlink(incomplete)


def load(path: str | os.PathLike[str], device: Any) -> Index:
    safetensors()
    with open(path, "rb"):  # a file that cannot be opened is an OSError
        pass
    parts, metadata = _read(os.fspath(path))
    _arrays.like(device)  # refused under its own name
    try:
        return _index(parts, metadata, device)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"path={os.fspath(path)!r} does not hold an Index: {error}") from None


def _read(path: str) -> tuple[dict[str, Any], dict[str, str]]:
    """All arrays of the file, and its metadata."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("kind") != KIND:
                raise ValueError(
                    f"path={path!r} does not hold an Index: its metadata has kind {metadata.get('kind')!r}, "
                    f"expected {KIND!r}"
                )
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, TypeError, KeyError) as error:
        raise ValueError(f"path={path!r} is not a safetensors file of an Index: {error}") from None


def _index(parts: dict[str, Any], metadata: dict[str, str], device: Any) -> Index:
    """The index of a file whose parts belong together."""
    described = json.loads(metadata["index"])
    if not isinstance(described, dict):
        raise TypeError(f"its metadata describes {described!r}")
    index = Index(described["dim"], metric=described["metric"], dtype=described["dtype"], device=device)
    expected = {"ids": "int64", "vectors": _BITS[index.dtype]}
    if index.dtype in _rows.QUANTIZED:
        expected["factor"] = "float32"
    if (index.metric, index.dtype) == ("l2", "float32") and ("centre" in parts or len(parts["ids"])):
        expected["centre"] = "float32"
    found = {name: part.dtype.name for name, part in parts.items()}
    if found != expected:
        raise ValueError(f"it holds {found}, expected {expected}")
    count = len(_rows.distinct_ids(parts["ids"]))
    shapes = {"ids": (count,), "vectors": (count, index.dim), "factor": (count,), "centre": (index.dim,)}
    for name, part in parts.items():
        if part.shape != shapes[name]:
            raise ValueError(f"{name} has shape {part.shape}, expected {shapes[name]}")
    next_id = described["next_id"]
    if type(next_id) is not int or next_id <= parts["ids"].max(initial=-1):
        raise ValueError(f"next_id is {next_id!r}, expected an integer above every id")
    columns = {name: part for name, part in parts.items() if name != "centre"}
    if index.dtype == "bfloat16":
        columns["vectors"] = columns["vectors"].view(dtype_of("bfloat16"))
    _rows.check_stored(columns, index.dtype)
    columns = {name: home(column, index._like) for name, column in columns.items()}
    if "centre" in parts:
        if not np.isfinite(parts["centre"]).all():
            raise ValueError("centre is not finite")
        index._centre = home(parts["centre"], index._like)
    index._table = Table(_rows.with_metric(columns, index.metric, index._centre), next_id)
    return index
