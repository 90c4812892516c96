"""From sums to outputs: the scale of a row of activations, bias, activation, and the dtype."""

from __future__ import annotations

from .._activations import activate
from .._floats import write_run
from .._numba import jit
from .cpu_problem import ACTIVATION, OUT_KIND, OUT_PITCH, OUT_SIZE


@jit
def finish(y, row, first, x_scale, bias, out, numbers):
    """Outputs `first` on of a row, in the bytes `out`, from its sums `y`, which are overwritten."""
    count = len(y)
    if x_scale.size:
        for i in range(count):
            y[i] *= x_scale[row]
    if bias.size:
        own = bias[first : first + count]
        for i in range(count):
            y[i] += own[i]
    activate(numbers[ACTIVATION], y)
    write_run(numbers[OUT_KIND], y, out, (row * numbers[OUT_PITCH] + first) * numbers[OUT_SIZE])
