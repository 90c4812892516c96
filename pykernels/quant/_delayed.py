"""Delayed scaling: the scale of this step from the magnitudes of the steps before."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _options
from .._arrays import namespace
from ..kernels.fp8.formats import FLOAT32_MAX
from . import _arguments
from ._convert import amax
from ._quantize import quantize
from ._tensor import QuantizedTensor

ALGORITHMS = ("max", "most_recent")


class DelayedScaling:
    """Per-tensor scales from a history of magnitudes, as Transformer Engine defines them.

    A step quantizes with the scale that earlier steps left (no second pass over the data), and
    records the magnitude of what it saw in slot 0 of the history. `update` ends the step: the
    scale becomes ``max(history) / fmax * 2**margin`` (with "most_recent", of slot 0 alone), and the
    history then turns by one slot and clears slot 0. Where that magnitude is zero, Inf or NaN the
    scale stays. Transformer Engine stores the reciprocal, which it multiplies by.

    Parameters
    ----------
    history : slots, at least 1
    margin : the scale leaves this many powers of two above the largest magnitude
    format : the FP8 format
    algorithm : "max" or "most_recent"

    The state is two small NumPy float32 arrays, `history` and `scale`; recording a GPU tensor
    therefore waits for the GPU. One object belongs to one tensor of a model and is not locked.

    Examples
    --------
    >>> import numpy as np
    >>> from pykernels import quant
    >>> scaling = quant.DelayedScaling(history=4, format="e4m3fn")
    >>> q = scaling.quantize(np.float32([896.0]))   # the first scale is 1: saturates
    >>> scaling.update()
    >>> float(scaling.scale), float(scaling.quantize(np.float32([896.0])).dequantize()[0])
    (2.0, 896.0)
    """

    def __init__(
        self, history: int = 1024, margin: float = 0, *, format: str = "e4m3fn", algorithm: str = "max"
    ) -> None:
        if not isinstance(history, int) or isinstance(history, bool):
            raise TypeError(f"history={history!r}: expected an integer")
        if history < 1:
            raise ValueError(f"history={history!r}: expected at least 1")
        if not np.isfinite(margin):
            raise ValueError(f"margin={margin!r}: expected a finite number")
        self._fmt = _arguments.fp8_format(format)
        self.format = format
        self.margin = margin
        self.algorithm = _options.choice("algorithm", algorithm, ALGORITHMS)
        self.history = np.zeros(history, np.float32)
        self.scale = np.ones((), np.float32)

    def record(self, x: Any) -> None:
        """Take the magnitude of `x` into this step's slot."""
        x, arrays = namespace(x)
        with np.errstate(over="ignore"):
            self.history[0] = np.maximum(self.history[0], np.float32(arrays.to_numpy(amax(x))))

    def quantize(self, x: Any, **options: Any) -> QuantizedTensor:
        """Record `x` and quantize it with the present scale; `options` are those of `quantize`."""
        self.record(x)
        return quantize(x, self.format, scale=float(self.scale), **options)

    def update(self) -> None:
        """End a step: the next scale from the history, which then turns."""
        amax = self.history.max() if self.algorithm == "max" else self.history[0]
        if np.isfinite(amax) and amax > 0:
            wanted = float(amax) / self._fmt.max * 2.0**self.margin
            self.scale[...] = np.clip(wanted, 2.0**-126, _FLOAT32_MAX)
        self.history[:] = np.roll(self.history, -1)
        self.history[0] = 0

    def state_dict(self) -> dict[str, np.ndarray[Any, Any]]:
        """Copies of `history` and `scale`."""
        return {"history": self.history.copy(), "scale": self.scale.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave; the length of the history comes with it."""
        if set(state) != {"history", "scale"}:
            raise ValueError(f"state has keys {sorted(state)}: expected history and scale")
        history, scale = (np.array(state[name], np.float32) for name in ("history", "scale"))
        if history.ndim != 1 or history.size < 1 or scale.shape != ():
            raise ValueError(
                f"state has history of shape {history.shape} and scale of shape {scale.shape}: expected (n,) and ()"
            )
        if not (np.isfinite(scale) and scale > 0):
            raise ValueError(f"state has scale {scale}: expected a positive finite number")
        self.history, self.scale = history, scale


_FLOAT32_MAX = float(np.uint32(FLOAT32_MAX).view(np.float32))
