"""transform and transform_backward."""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import _options
from .._arrays import namespace
from .._dispatch import choose_backend, launcher
from ..kernels.tiered.problem import Motion
from . import _parameters
from ._parameters import DTYPES, Parameters
from ._sound import refuse_unsound
from ._tiers import Tiers

PIVOTS = ("micro", "macro")


class Request(NamedTuple):
    """Checked arguments of a transform; positions are (N, 3), shared by all conformations, or (B, N, 3)."""

    arrays: Any
    params: Parameters
    tiers: Tiers
    positions: Any
    pivot: str
    dtype: str

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.params.axis.shape[0], self.tiers.n_atoms, 3

    def raw(self, backend: str) -> tuple[Any, Motion]:
        """Positions (B or 1, N, 3) and parameters as the launchers take them."""
        arrays = self.arrays
        places = arrays.raw(arrays.dense(self.positions), backend)
        if len(places.shape) == 2:
            places = places[None]
        return places, Motion(*[arrays.raw(arrays.dense(each), backend) for each in self.params])

    def differentiable(self) -> bool:
        needs_gradient = self.arrays.needs_gradient
        return needs_gradient(self.positions) or any(map(needs_gradient, self.params))


def transform(
    params: Parameters,
    tiers: Tiers,
    positions: Any,
    *,
    pivot: str = "micro",
    out: Any = None,
    backend: str | None = None,
) -> Any:
    """Move points by axis rotations, then by groups, then by macro-groups (3T, arXiv 2301.00984).

    A group turns about its axis by `axis`, then by R(`euler`) about its mean and moves by `translation`; a
    macro-group then turns by R(`macro_euler`) about its pivot and moves by `macro_translation`. Axes are where
    their atoms are in `positions`. The formulas are in `pykernels.kernels.tiered`.

    Parameters
    ----------
    params : Parameters of B conformations, float32 or float64
    tiers : Tiers of N atoms
    positions : (N, 3), shared by all conformations, or (B, N, 3); of the dtype and kind of `params`, any
        strides, finite
    pivot : what a macro-group turns about: "micro", every group about its own mean, as published; "macro",
        all of it about the mean of its atoms
    out : array (B, N, 3) of that dtype to write to, sharing no memory with the input
    backend : None to follow the data, or "cpu", "gpu", "reference"

    Returns
    -------
    (B, N, 3), of the kind and dtype of `positions`. A rotation by 0 is exact up to rounding, a group of one
    atom turns about itself, fixed atoms keep their bits. B, G, M and A may be 0. A batch gives the bits of
    its members one by one.

    Under torch, differentiable once with respect to `positions` and all of `params`; the gradient is
    `transform_backward`'s, fixed atoms get 0.

    Raises
    ------
    TypeError for arrays of other dtypes, of two dtypes or of two kinds; ValueError for shapes that do not
    fit, a NaN or Inf, an axis whose ends coincide, and an `out` of wrong shape or overlapping memory;
    NotImplementedError for a backend that cannot run here. Nothing is written then.

    Examples
    --------
    Two points turn by 90 degrees about z and move along it, one stays.

    >>> import numpy as np
    >>> from pykernels.tiered import Parameters, Tiers, transform
    >>> tiers = Tiers(3, group_ptr=[0, 2], group_atoms=[0, 1], fixed_atoms=[2])
    >>> positions = np.array([[1.0, 0, 0], [3, 0, 0], [9, 9, 9]])
    >>> params = Parameters.zeros(tiers, 1, np.float64)
    >>> params.euler[0, 0] = [np.pi / 2, 0, 0]
    >>> params.translation[0, 0] = [0, 0, 5]
    >>> transform(params, tiers, positions)[0].round(6)
    array([[ 2., -1.,  5.],
           [ 2.,  1.,  5.],
           [ 9.,  9.,  9.]])
    """
    request = request_of(params, tiers, positions, pivot)
    arrays, start = request.arrays, request.positions
    if out is not None:
        _options.check_out(arrays, out, request.shape, request.dtype, start)
        for name, each in zip(Parameters._fields, request.params, strict=True):
            if arrays.overlap(out, each):
                raise ValueError(f"out shares memory with params.{name}: expected an array of its own")
    if arrays.tracing():
        _options.follows_data(backend)
    if arrays.tracing() or request.differentiable():
        return arrays.operators("tiered").transform(request, out, backend)
    return forward(request, out, choose_backend(arrays, start, backend))


def transform_backward(
    grad: Any,
    params: Parameters,
    tiers: Tiers,
    positions: Any,
    *,
    pivot: str = "micro",
    backend: str | None = None,
) -> tuple[Parameters, Any]:
    """The gradient of a scalar E with respect to the input of `transform`, in closed form.

    Parameters
    ----------
    grad : (B, N, 3), dE/d(transformed positions), of the dtype and kind of `positions`; a NaN or Inf in it
        reaches the gradient of its group
    params, tiers, positions, pivot, backend : as given to `transform`

    Returns
    -------
    (Parameters, grad_positions): dE/dparams, and dE/dpositions of the shape of `positions`: if (N, 3), summed
    over the conformations in their order. It is 0 for fixed atoms, those that serve as axis anchors included.

    Raises
    ------
    As `transform`, for `grad` as well.

    Examples
    --------
    >>> import numpy as np
    >>> from pykernels.tiered import Parameters, Tiers, transform_backward
    >>> tiers = Tiers(3, group_ptr=[0, 2], group_atoms=[0, 1], fixed_atoms=[2])
    >>> positions = np.array([[1.0, 0, 0], [3, 0, 0], [9, 9, 9]])
    >>> grad = np.array([[[0.0, -1, 0], [0, 2, 0], [7, 7, 7]]])
    >>> of_params, of_positions = transform_backward(grad, Parameters.zeros(tiers, 1, "float64"), tiers, positions)
    >>> of_params.translation  # the force
    array([[[0., 1., 0.]]])
    >>> float(of_params.euler[0, 0, 0])  # the torque about z
    3.0
    >>> of_positions[2]
    array([0., 0., 0.])
    """
    request = request_of(params, tiers, positions, pivot)
    arrays, start = request.arrays, request.positions
    value, kind = namespace(grad)
    if kind is not arrays or value is not grad:
        raise TypeError(f"grad is a {type(grad).__name__}: expected the same kind of array as positions")
    if arrays.dtype_name(grad) != request.dtype:
        raise TypeError(f"grad has dtype {arrays.dtype_name(grad)}: expected {request.dtype}, that of positions")
    if tuple(grad.shape) != request.shape:
        raise ValueError(f"grad has shape {tuple(grad.shape)}: expected {request.shape}")
    if arrays.device(grad) != arrays.device(start):
        raise ValueError(f"grad is on device {arrays.device(grad)!r}: expected {arrays.device(start)!r}, as positions")
    if arrays.tracing():
        _options.follows_data(backend)
        return arrays.operators("tiered").transform_backward(grad, request)  # type: ignore[no-any-return]
    backend = choose_backend(arrays, start, backend)
    return backward(grad, request, *sound(request, backend), backend)


def forward(request: Request, out: Any, backend: str) -> Any:
    """The transform; refuses input that is not sound."""
    places, motion = sound(request, backend)
    launch = launcher("tiered", backend, "transform")
    tree = request.tiers.tree_for(request.positions, backend)

    def run(target: Any) -> None:
        launch(places, motion, tree, request.pivot == "macro", target)

    return _options.fill(request.arrays, out, request.shape, request.dtype, request.positions, backend, None, run)


def backward(grad: Any, request: Request, places: Any, motion: Motion, backend: str) -> tuple[Parameters, Any]:
    """The gradient; `places` and `motion` are the request's, raw."""
    arrays, start, dtype = request.arrays, request.positions, request.dtype
    made = [arrays.allocate(tuple(each.shape), dtype, start, backend) for each in request.params]
    of_positions, target = arrays.allocate(request.shape, dtype, start, backend)
    launch = launcher("tiered", backend, "transform_backward")
    tree = request.tiers.tree_for(start, backend)
    given = arrays.raw(arrays.dense(grad), backend)
    launch(given, places, motion, tree, request.pivot == "macro", Motion(*(raw for _, raw in made)), target)
    if len(start.shape) == 2:
        total = target.sum(0)
        of_positions = total if backend == "gpu" else arrays.from_numpy(total, start)
    return Parameters(*(array for array, _ in made)), of_positions


def sound(request: Request, backend: str) -> tuple[Any, Motion]:
    places, motion = request.raw(backend)
    refuse_unsound(places, motion, request.tiers, backend)
    return places, motion


def request_of(params: Any, tiers: Any, positions: Any, pivot: Any) -> Request:
    if not isinstance(tiers, Tiers):
        raise TypeError(f"tiers is a {type(tiers).__name__}: expected Tiers")
    _options.choice("pivot", pivot, PIVOTS)
    start, arrays = namespace(positions)
    dtype = _options.dtype_name(arrays, start, DTYPES, "positions")
    params = _parameters.check(params, tiers, arrays, dtype, start)
    request = Request(arrays, params, tiers, start, pivot, dtype)
    shape = tuple(start.shape)
    if shape not in (request.shape, request.shape[1:]):
        b, n, _ = request.shape
        raise ValueError(
            f"positions has shape {shape}: expected ({n}, 3), or ({b}, {n}, 3) as params and tiers have it"
        )
    return request
