"""Folders that `Decoder.save` writes: the configuration as JSON, weights by neutral names in one safetensors file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from .._arrays import FLOAT8, Array, dtype_of, namespace
from .._options import choice, integer
from ..kernels.fp8.formats import SCALED_FORMATS
from ..quant import QuantizedTensor
from ..quant._layout import layout
from ._config import Config, RotaryScaling
from ._weights import faults, shapes

KIND = "pykernels.Decoder/1"


def save(folder: str | os.PathLike[str], config: Config, weights: Mapping[str, Any]) -> None:
    """Quantized weights become two tensors, `name.codes` (bytes) and `name.scale`."""
    try:
        from safetensors.numpy import save_file
    except ModuleNotFoundError as error:
        raise NotImplementedError("save needs the package safetensors, which is not installed here") from error
    tensors: dict[str, Array] = {}
    layouts = {}
    for name, x in weights.items():
        if isinstance(x, QuantizedTensor):
            layouts[name] = {"format": x.format, "granularity": x.granularity, "axis": x.axis}
            tensors[f"{name}.codes"] = _numpy(x.codes).view(np.uint8)
            scale = _numpy(x.scale)
            tensors[f"{name}.scale"] = scale.view(np.uint8) if scale.itemsize == 1 else scale
        else:
            tensors[name] = _numpy(x)
    described = {"format": KIND, "config": asdict(config), "quantized": layouts}
    text = json.dumps(described, indent=2, default=lambda number: number.item())
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path / "model.safetensors")
    (path / "config.json").write_text(text + "\n", encoding="utf-8")


def read(
    raw: dict[str, Any], files: dict[str, Any], dtype: str | None, source: Any
) -> tuple[Config, Iterator[tuple[str, Any]]]:
    """The configuration, and names and weights one after the other."""
    config, layouts = described(raw)
    check(config, layouts, files)
    return config, _weights(config, layouts, files, dtype, source)


def described(raw: dict[str, Any]) -> tuple[Config, dict[str, Any]]:
    """The configuration, and how quantized weights are laid out."""
    try:
        fields = dict(raw["config"])
        if fields["rotary_scaling"] is not None:
            fields["rotary_scaling"] = RotaryScaling(**fields["rotary_scaling"])
        layouts = dict(raw["quantized"])
        for form in layouts.values():
            choice("format", form["format"], SCALED_FORMATS)
            granularity = form["granularity"]
            form["granularity"] = granularity if isinstance(granularity, str) else tuple(granularity)
            integer("axis", form["axis"], -2, 1)
        return Config(**fields), layouts
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"config.json of a {KIND} is broken: {error!r}") from None


def check(config: Config, layouts: dict[str, Any], files: dict[str, Any]) -> None:
    """Raise ValueError that names all missing, extra and misshapen tensors."""
    expected = {}
    for name, shape in shapes(config).items():
        if name in layouts:
            expected[f"{name}.codes"] = shape
            found = layout(shape, layouts[name]["granularity"], layouts[name]["axis"])
            expected[f"{name}.scale"] = found.scale_shape
        else:
            expected[name] = shape
    faults(expected, {name: tuple(file.get_slice(name).get_shape()) for name, file in files.items()})


def _weights(
    config: Config, layouts: dict[str, Any], files: dict[str, Any], dtype: str | None, source: Any
) -> Iterator[tuple[str, Any]]:
    kind = namespace(source)[1]
    for name in shapes(config):
        if name not in layouts:
            array = files[name].get_tensor(name)
            yield name, kind.from_numpy(array.astype(dtype_of(dtype), copy=False) if dtype else array, source)
            continue
        form = layouts[name]
        codes = files[f"{name}.codes"].get_tensor(f"{name}.codes")
        scale = files[f"{name}.scale"].get_tensor(f"{name}.scale")
        if scale.dtype == np.uint8:
            scale = scale.view(dtype_of(FLOAT8["e8m0fnu"]))
        yield (
            name,
            QuantizedTensor(
                kind.from_numpy(codes.view(dtype_of(FLOAT8.get(form["format"], "int8"))), source),
                kind.from_numpy(scale, source),
                form["granularity"],
                form["axis"],
            ),
        )


def _numpy(x: Any) -> Array:
    return np.array(namespace(x)[1].to_numpy(x), order="C", copy=None)
