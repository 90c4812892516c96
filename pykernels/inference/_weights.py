"""Weights of a decoder by name: their shapes, checks, random numbers and quantization."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from .. import quant
from .._arrays import Array, dtype_of, like, namespace
from ..kernels.linear.problem import FLOATS
from ..quant import QuantizedTensor
from ._config import Config

PIECE = 1 << 20  # random numbers of one stream
PRODUCTS = ("qkv.weight", "output.weight", "up.weight", "down.weight")


def shapes(config: Config) -> dict[str, tuple[int, ...]]:
    """The names of all weights and their shapes.

    E, F, D, Hq and Hkv as in `Config`; N is "attention_norm", "feedforward_norm" or, without a layer, "final_norm"::

        embedding (V, E)                    positions (learned_positions, E)        head.weight (V, E), unless tied
        layers.0.N.weight, .bias (E,)       no "feedforward_norm" in a parallel block, no biases of rms norms
        layers.0.qkv.weight (Hq * D + 2 * Hkv * D, E)       the rows of q, k and v
        layers.0.output.weight (E, Hq * D)
        layers.0.up.weight (2 * F, E), rows of the gate first, or (F, E)
        layers.0.down.weight (E, F)
    """
    e, queries = config.width, config.heads * config.head_dim
    named: dict[str, tuple[int, ...]] = {"embedding": (config.vocab, e)}
    if config.learned_positions:
        named["positions"] = (config.learned_positions, e)
    for i in range(config.layers):
        layer = f"layers.{i}."
        up = config.hidden * (2 if config.gated else 1)
        named |= _norm(f"{layer}attention_norm", config)
        named |= _product(f"{layer}qkv", queries + 2 * config.kv_heads * config.head_dim, e, config.qkv_bias)
        named |= _product(f"{layer}output", e, queries, config.output_bias)
        if config.block == "serial":
            named |= _norm(f"{layer}feedforward_norm", config)
        named |= _product(f"{layer}up", up, e, config.feedforward_bias)
        named |= _product(f"{layer}down", e, config.hidden, config.feedforward_bias)
    named |= _norm("final_norm", config)
    return named if config.tied else named | {"head.weight": (config.vocab, e)}


def _norm(name: str, config: Config) -> dict[str, tuple[int, ...]]:
    return {f"{name}.{part}": (config.width,) for part in ("weight", "bias")[: 1 + (config.norm == "layer")]}


def _product(name: str, rows: int, columns: int, bias: bool) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (rows, columns)} | ({f"{name}.bias": (rows,)} if bias else {})


def quantizable(config: Config, name: str) -> bool:
    """Whether a weight may be quantized: those of products, the head's included."""
    return name.endswith(PRODUCTS) or name == ("embedding" if config.tied else "head.weight")


def checked(config: Config, weights: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """The weights as arrays, and the module of their kind.

    Raises ValueError that names all missing, extra and misshapen ones; TypeError for other dtypes than one of
    float32, bfloat16 and float16 throughout, for mixed kinds of arrays, and for quantized ones that may not be.
    """
    expected = shapes(config)
    arrays = {name: x if isinstance(x, QuantizedTensor) else _array(x) for name, x in weights.items()}
    faults(expected, {name: tuple(x.shape) for name, x in arrays.items()})
    first, kind = namespace(arrays["final_norm.weight"])
    dtype = kind.dtype_name(first)
    for name in expected:
        x, quantized = arrays[name], isinstance(arrays[name], QuantizedTensor)
        values, own = namespace(x.codes if quantized else x)
        if own is not kind or kind.device(values) != kind.device(first):
            raise TypeError(f"weights[{name!r}] is another kind of array than the others, or on another device")
        if quantized and not quantizable(config, name):
            raise TypeError(f"weights[{name!r}] is quantized: expected floating-point numbers")
        if not quantized and (kind.dtype_name(x) != dtype or dtype not in FLOATS):
            raise TypeError(f"weights[{name!r}] has dtype {kind.dtype_name(x)}: expected {_expected(dtype)}")
    table = arrays["embedding"]
    if isinstance(table, QuantizedTensor) and tuple(table.scale.shape) != (config.vocab, 1):
        raise ValueError(f"weights['embedding'] is quantized by {table.granularity!r}: expected 'row'")
    return {name: arrays[name] for name in expected}, kind


def _array(x: Any) -> Any:
    x, kind = namespace(x)
    return x.detach() if hasattr(kind, "torch") else x


def _expected(dtype: str) -> str:
    return f"{dtype}, as the norms have" if dtype in FLOATS else f"one of {', '.join(FLOATS)}"


def faults(
    expected: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]], what: str = "weights"
) -> None:
    """Raise ValueError if names or shapes differ, naming all that do."""
    missing = [name for name in expected if name not in given]
    extra = [name for name in given if name not in expected]
    wrong = [
        f"{name} {given[name]} instead of {shape}"
        for name, shape in expected.items()
        if name in given and given[name] != shape
    ]
    parts = (("missing", missing), ("extra", extra), ("misshapen", wrong))
    listed = "; ".join(f"{label}: {', '.join(names)}" for label, names in parts if names)
    if listed:
        raise ValueError(f"{what} do not fit the configuration: {listed}")


def random(config: Config, seed: int, dtype: str, device: Any) -> dict[str, Any]:
    """Normal numbers of variance 1 / columns; norms of 1 and biases of 0. The same whatever the threads."""
    source = like(device)
    kind = namespace(source)[1]
    weights = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, (name, shape) in enumerate(shapes(config).items()):
            if len(shape) == 1:
                value = 0.0 if name.endswith("bias") else 1.0 - config.norm_offset
                array = np.full(shape, value, dtype_of(dtype))
            else:
                array = np.empty(shape, dtype_of(dtype))
                flat, scale = array.reshape(-1), np.float32(1 / math.sqrt(shape[1]))
                jobs = [pool.submit(_fill, flat, start, (seed, number), scale) for start in range(0, flat.size, PIECE)]
                for job in jobs:
                    job.result()
            weights[name] = kind.from_numpy(array, source)
    return weights


def _fill(flat: Array, start: int, stream: tuple[int, int], scale: np.float32) -> None:
    piece = flat[start : start + PIECE]
    numbers = np.random.Generator(np.random.SFC64(np.random.SeedSequence((*stream, start))))
    normal = numbers.standard_normal(piece.size, np.float32)
    normal *= scale
    piece[...] = normal


def quantized(config: Config, name: str, x: Any, format: str | None, granularity: Any = "row") -> Any:
    """A weight in a format of `quantize`, if that is wanted and possible and not done yet; else as it is."""
    if format is None or not quantizable(config, name) or isinstance(x, QuantizedTensor):
        return x
    return quant.quantize(x, format, granularity="row" if name == "embedding" else granularity)
