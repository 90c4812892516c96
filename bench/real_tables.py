"""The two tables of the real-model study, and the quantizers, calibration and metrics behind them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from pykernels import quant

if TYPE_CHECKING:
    from pykernels.bench.real_model import Encoder

Array = np.ndarray[Any, Any]
Granularity = str | tuple[int, int]

LARGEST = {"e4m3fn": 448.0, "e5m2": 57344.0, "int8": 127.0}
GRANULARITIES: dict[str, tuple[Granularity, ...]] = {
    "e4m3fn": ("tensor", "row", (1, 128), "mx"),
    "e5m2": ("tensor", "row", (1, 128), "mx"),
    "int8": ("tensor", "row"),
}

PERCENTILE = 99.99
"""The usual 99.9 clips this encoder's outlier channels and leaves embeddings at 5 dB in every format."""
CLIPPING_RATIOS = np.arange(1, 41) / 40
MSE_TOKEN_STRIDE = 7
CALIBRATIONS = ("max", f"{PERCENTILE} %", "MSE")


def schemes() -> list[tuple[str, Granularity]]:
    """Each format with each granularity of its scales."""
    return [(format, granularity) for format, choices in GRANULARITIES.items() for granularity in choices]


def fake_quantize(x: Array, format: str, granularity: Granularity, scale: np.float32 | None = None) -> Array:
    """Quantize and dequantize the float32 matrix `x`; a given `scale` is static and per tensor.

    ``"int8"`` is symmetric: round half to even, clip to +-127, scale ``amax / 127``.
    """
    if format != "int8":
        result: Array = quant.quantize_dequantize(x, format, granularity=granularity, scale=scale, overflow="sat")
        return result
    if scale is None:
        amax = np.abs(x).max(axis=1 if granularity == "row" else None, keepdims=True)
        step = np.where(amax == 0, np.float32(1), amax / np.float32(127))
    else:
        step = np.asarray(scale)
    levels: Array = np.clip(np.rint(x / step), -127, 127)
    return np.asarray(levels * step)


def tensor_table(
    weights: Mapping[str, Array], inputs: Mapping[str, Array], step: Callable[[str], None]
) -> dict[str, Any]:
    """SQNR of each scheme, scales computed from the tensors themselves: over all layers, and of the worst."""
    columns = ["format", "scale per"]
    for kind in ("weights", "inputs"):
        columns += [f"{kind} dB", f"worst {kind} dB", f"worst {kind}"]
    rows = []
    for format, granularity in schemes():
        step(f"tensors: {format} {_label(granularity)}")
        row: list[Any] = [format, _label(granularity)]
        for tensors in (weights, inputs):
            powers = {name: _powers(x, fake_quantize(x, format, granularity)) for name, x in tensors.items()}
            worst = min(powers, key=lambda name: _decibel(*powers[name]))
            total = _decibel(sum(p[0] for p in powers.values()), sum(p[1] for p in powers.values()))
            row += [total, _decibel(*powers[worst]), worst.removeprefix("encoder.layer.").removesuffix(".dense")]
        rows.append(row)
    return {"title": "SQNR of quantized tensors", "columns": columns, "rows": rows}


def model_table(
    encoder: Encoder, evaluation: list[Any], calibration: Mapping[str, Array], step: Callable[[str], None]
) -> dict[str, Any]:
    """Agreement of the embeddings of the batches `evaluation` with fp32, weights and inputs quantized.

    `calibration` holds the inputs of the linear layers on other sentences.
    """
    columns = ["format", "weights per", *(f"inputs {method} dB" for method in CALIBRATIONS)]
    columns += ["inputs alike dB", "best cosine", "alike cosine", "recipe"]
    weights, exact = encoder.weights(), encoder.embed(evaluation)
    rows = []
    for format, granularities in GRANULARITIES.items():
        step(f"model: {format} calibration")
        clips = {name: clip_values(x, format) for name, x in calibration.items()}
        for granularity in granularities:
            step(f"model: {format} {_label(granularity)}")
            quantized = {name: fake_quantize(w, format, granularity) for name, w in weights.items()}
            quantizers: dict[str, Callable[[str, Array], Array]] = {}
            for method in CALIBRATIONS:
                scales = {name: np.float32(clip[method] / LARGEST[format]) for name, clip in clips.items()}
                quantizers[method] = functools.partial(_quantize_static, format, scales)
            quantizers["alike"] = functools.partial(_quantize_dynamic, format, granularity)
            results = {m: _agreement(exact, encoder.embed(evaluation, quantized, q)) for m, q in quantizers.items()}
            best = max(CALIBRATIONS, key=lambda method: results[method])
            recipe = f"paper's; best: {best}" if granularity == "row" else ""
            decibels = [result[0] for result in results.values()]
            rows.append([format, _label(granularity), *decibels, results[best][1], results["alike"][1], recipe])
    title = "Sentence embeddings against fp32, every linear layer quantized"
    return {"title": title, "columns": columns, "rows": rows}


def clip_values(x: Array, format: str) -> dict[str, float]:
    """The magnitude that the largest code should represent, by each of `CALIBRATIONS`.

    MSE takes the least squared error on every seventh token among 40 fractions of the maximum.
    """
    magnitude = np.abs(x)
    amax = float(magnitude.max())
    sample = x[::MSE_TOKEN_STRIDE]

    def error(clip: float) -> float:
        return _powers(sample, fake_quantize(sample, format, "tensor", np.float32(clip / LARGEST[format])))[1]

    percentile = float(np.percentile(magnitude, PERCENTILE))
    mse = min((amax * float(ratio) for ratio in CLIPPING_RATIOS), key=error)
    return dict(zip(CALIBRATIONS, (amax, percentile, mse), strict=True))


def _quantize_static(format: str, scales: Mapping[str, np.float32], name: str, x: Array) -> Array:
    return fake_quantize(x, format, "tensor", scales[name])


def _quantize_dynamic(format: str, granularity: Granularity, name: str, x: Array) -> Array:
    return fake_quantize(x, format, granularity)


def _agreement(exact: Array, found: Array) -> tuple[float, float]:
    """SQNR in dB over all embeddings, and their mean cosine."""
    norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(found, axis=1)
    return _decibel(*_powers(exact, found)), round(float(np.mean(np.sum(exact * found, axis=1) / norms)), 5)


def _powers(exact: Array, found: Array) -> tuple[float, float]:
    """Power of the signal and of the error."""
    signal = np.sum(np.square(exact), dtype=np.float64)
    return float(signal), float(np.sum(np.square(found - exact), dtype=np.float64))


def _decibel(signal: float, noise: float) -> float:
    return round(10 * math.log10(signal / noise), 2)


def _label(granularity: Granularity) -> str:
    return granularity if isinstance(granularity, str) else f"{granularity[0]}x{granularity[1]}"
