"""Parameters: how far each group, axis and macro-group moves."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import _options
from .._arrays import namespace
from ._tiers import Tiers

DTYPES = ("float32", "float64")


class Parameters(NamedTuple):
    """The parameters of a transform of B conformations, or the gradient with respect to them.

    All are of one dtype, float32 or float64, and one kind, NumPy or torch. Euler angles (a, b, c), in radian,
    stand for R = Rz(a) Ry(b) Rx(c); translations are in the unit of the positions.

    Attributes
    ----------
    translation : (B, G, 3), by group
    euler : (B, G, 3)
    axis : (B, A), the angle of each axis
    macro_translation : (B, M, 3), by macro-group
    macro_euler : (B, M, 3)

    Examples
    --------
    >>> from pykernels.tiered import Parameters, Tiers
    >>> tiers = Tiers(3, [0, 2], [0, 1], fixed_atoms=[2])
    >>> [each.shape for each in Parameters.zeros(tiers, 8)]
    [(8, 1, 3), (8, 1, 3), (8, 0), (8, 0, 3), (8, 0, 3)]
    """

    translation: Any
    euler: Any
    axis: Any
    macro_translation: Any
    macro_euler: Any

    @classmethod
    def zeros(cls, tiers: Tiers, B: int, dtype: Any = None, like: Any = None) -> Parameters:
        """Parameters of `B` conformations that move nothing.

        They are of the kind, device and dtype of the array `like`: torch if it is a tensor. `dtype`, a name or
        a dtype of NumPy or torch, comes first; without either it is float32.
        """
        B = _options.integer("B", B, 0)
        like, arrays = namespace(np.float32(0) if like is None else like)
        name = _options.floating_name(dtype, arrays.dtype_name(like))
        if name not in DTYPES:
            raise TypeError(f"dtype={dtype or name!r}: expected one of {', '.join(DTYPES)}")
        backend = "cpu" if arrays.device(like) == "cpu" else "gpu"
        made = [arrays.allocate((B, *rest), name, like, backend)[0] for rest in shapes(tiers)]
        for each in made:
            each[...] = 0
        return cls(*made)


def shapes(tiers: Tiers) -> tuple[tuple[int, ...], ...]:
    """The shapes of the parameters of one conformation."""
    group, macro = (tiers.n_groups, 3), (tiers.n_macros, 3)
    return group, group, (tiers.n_axes,), macro, macro


def check(params: Any, tiers: Tiers, arrays: Any, dtype: str, like: Any) -> Parameters:
    """`params` as Parameters that fit `tiers`, of the kind, dtype and device of `like`."""
    if not isinstance(params, tuple | list) or len(params) != 5:
        raise TypeError(f"params is a {type(params).__name__}: expected Parameters, or five arrays in their order")
    batch: Any = None
    for name, each, rest in zip(Parameters._fields, params, shapes(tiers), strict=True):
        value, kind = namespace(each)
        if kind is not arrays or value is not each:
            raise TypeError(f"params.{name} is a {type(each).__name__}: expected the same kind of array as positions")
        if arrays.dtype_name(each) != dtype:
            raise TypeError(f"params.{name} has dtype {arrays.dtype_name(each)}: expected {dtype}, that of positions")
        shape = tuple(each.shape)
        if batch is None and shape:
            batch = shape[0]
        if shape != (batch, *rest):
            size = "B" if name == "translation" else batch
            expected = ", ".join(map(str, (size, *rest)))
            raise ValueError(f"params.{name} has shape {shape}: expected ({expected})")
        if arrays.device(each) != arrays.device(like):
            raise ValueError(
                f"params.{name} is on device {arrays.device(each)!r}: expected {arrays.device(like)!r}, as positions"
            )
    return Parameters(*params)
