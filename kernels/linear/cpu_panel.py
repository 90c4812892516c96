"""A panel of weights in cache, and its product with a block of activations: float32, bfloat16 pairs or int8 quadruples.

The type of the words of a panel and of a block tells which: float32, uint32, int32.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from .._dot import HALF, floats, floats_half, pairs, pairs_half, quads, quads_half
from .cpu_scales import widen_row
from .cpu_widen import RUN, copy_runs

u16 = np.uint16


def per_step(x):
    """Elements in a word."""
    raise NotImplementedError


@overload(per_step)
def _per_step(x):
    count = {types.float32: 1, types.uint32: 2, types.int32: 4}[x.dtype]
    return lambda x: count


def multiply(panel, starts, block, initial, steps, width, out):
    """``out[r * width + lane]``: the product of row r of the panel with a lane of the block."""
    raise NotImplementedError


@overload(multiply)
def _multiply(panel, starts, block, initial, steps, width, out):
    full, half = {
        types.float32: (floats, floats_half),
        types.uint32: (pairs, pairs_half),
        types.int32: (quads, quads_half),
    }[panel.dtype]

    def run(panel, starts, block, initial, steps, width, out):
        if width == HALF:
            half(panel, starts, 0, block, initial, steps, out)
        else:
            full(panel, starts, 0, block, initial, steps, out)

    return run


def widen_panel(codes, at, count, tables, ahead, panel, word):
    """Codes of a row into the panel from `word` on, zeros up to a whole run; what sums of the row begin with.

    Meanwhile the codes `ahead` of them are asked for.
    """
    raise NotImplementedError


@overload(widen_panel)
def _widen_panel(codes, at, count, tables, ahead, panel, word):
    if panel.dtype == types.int32:
        return _copy_panel
    per = 1 if panel.dtype == types.float32 else 2
    element = np.float32 if per == 1 else u16

    def widen(codes, at, count, tables, ahead, panel, word):
        widen_row(codes, at, count, tables, ahead, panel.view(element), word * per)
        return np.int32(0)

    return widen


def _copy_panel(codes, at, count, tables, ahead, panel, word):
    total = copy_runs(codes, at, count // RUN, ahead, panel, word)
    done = count // RUN * RUN
    if done < count:
        rest = np.zeros(RUN, codes.dtype)
        for k in range(count - done):
            rest[k] = codes[at + done + k]
        total += copy_runs(rest, 0, 1, 0, panel, word + done // 4)
    return np.int32(-total)
