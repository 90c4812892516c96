"""Folders of Hugging Face checkpoints: config.json and safetensors files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from .._arrays import Array, dtype_of, like, namespace
from ..kernels.linear.problem import FLOATS
from . import _saved
from ._checkpoint_families import Tensors, family
from ._config import Config
from ._weights import faults, quantized, shapes

INDEX = "model.safetensors.index.json"


def load(
    folder: str | os.PathLike[str], dtype: str | None, weights: str | None, device: Any
) -> tuple[Config, dict[str, Any]]:
    """The configuration of a checkpoint, and its weights by neutral names; see `Decoder.load`."""
    path = Path(folder)
    raw = read_json(path / "config.json")
    source = like(device)
    with ExitStack() as files:
        if raw.get("format") == _saved.KIND:
            config, read = _saved.read(raw, open_all(path, files), dtype, source)
        else:
            config, tensors = family(raw)
            read = _read(config, tensors, open_all(path, files), dtype, source)
        return config, {name: quantized(config, name, x, weights) for name, x in read}


def _read(
    config: Config, tensors: Tensors, files: dict[str, Any], dtype: str | None, source: Any
) -> Iterator[tuple[str, Any]]:
    """Neutral names and arrays, one after the other, once all tensors are known to fit."""
    check(config, tensors, files)
    kind = namespace(source)[1]
    for name, parts in tensors.parts.items():
        read = [files[part.name].get_tensor(part.name) for part in parts]
        dtype = dtype or _float_dtype(parts[0].name, read[0])
        for part, array in zip(parts, read, strict=True):
            _float_dtype(part.name, array)
        whole = read[0] if len(read) == 1 else np.concatenate(read)
        if tensors.per_head and name.endswith(("qkv.weight", "qkv.bias")):
            whole = rows_by_kind(whole, config.heads)
        yield name, kind.from_numpy(np.ascontiguousarray(whole.astype(dtype_of(dtype), copy=False)), source)


def check(config: Config, tensors: Tensors, files: dict[str, Any]) -> None:
    """Raise ValueError that names all missing, extra and misshapen tensors."""
    expected = shapes(config)
    sources: dict[str, tuple[int, ...]] = {}
    for name, parts in tensors.parts.items():
        rows = [part.rows or expected[name][0] for part in parts]
        sources |= {part.name: (n, *expected[name][1:]) for part, n in zip(parts, rows, strict=True)}
    given = {name: tuple(files[name].get_slice(name).get_shape()) for name in files if not tensors.ignored(name)}
    faults(sources, given, "tensors of the checkpoint")


def _float_dtype(name: str, array: Array) -> str:
    dtype: str = namespace(array)[1].dtype_name(array)
    if dtype not in ("float64", *FLOATS):
        raise ValueError(f"tensor {name} has dtype {dtype}: expected floating-point numbers of 16, 32 or 64 bits")
    return "float32" if dtype == "float64" else dtype


def rows_by_kind(qkv: Array, heads: int) -> Array:
    """Rows q, k and v of all heads, of rows that lie head by head."""
    rest = qkv.shape[1:]
    return np.moveaxis(qkv.reshape(heads, 3, -1, *rest), 1, 0).reshape(-1, *rest)


def open_all(path: Path, stack: ExitStack) -> dict[str, Any]:
    """The open file of every tensor in a folder."""
    try:
        from safetensors import SafetensorError, safe_open
    except ModuleNotFoundError as error:
        raise NotImplementedError("load needs the package safetensors, which is not installed here") from error
    files: dict[str, Any] = {}
    for file in _shards(path):
        try:
            opened = stack.enter_context(safe_open(str(file), framework="numpy"))
        except SafetensorError as error:
            raise ValueError(f"{file} is not a safetensors file: {error}") from None
        for name in sorted(opened.keys()):
            if name in files:
                raise ValueError(f"tensor {name} is in more than one file of {path}: expected it once")
            files[name] = opened
    return files


def _shards(path: Path) -> list[Path]:
    if (path / INDEX).exists():
        try:
            names = sorted(set(read_json(path / INDEX)["weight_map"].values()))
        except (KeyError, TypeError, AttributeError):
            raise ValueError(f"{path / INDEX} has no weight_map of tensors to files") from None
        if any(Path(name).name != name for name in names):
            raise ValueError(f"{path / INDEX} names files outside of the folder: {', '.join(names)}")
        files = [path / name for name in names]
    else:
        single = path / "model.safetensors"
        files = [single] if single.exists() else sorted(path.glob("*.safetensors"))
    missing = [file.name for file in files if not file.exists()]
    if missing or not files:
        wanted = ", ".join(missing) or f"model.safetensors or {INDEX}"
        raise FileNotFoundError(f"folder {path} lacks {wanted}: expected a checkpoint in safetensors files")
    return files


def read_json(file: Path) -> dict[str, Any]:
    if not file.exists():
        raise FileNotFoundError(f"folder {file.parent} lacks {file.name}: expected a checkpoint")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a {type(content).__name__}: expected an object")
    return content
