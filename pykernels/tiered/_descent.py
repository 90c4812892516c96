"""Descent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _options
from .._arrays import namespace
from .._dispatch import choose_backend, launcher
from ..kernels.tiered.problem import Motion, Rule, State
from . import _parameters
from ._parameters import DTYPES, Parameters
from ._tiers import Tiers
from ._transform import PIVOTS, request_of, sound, transform, transform_backward
from .energy import ForceField

Array = np.ndarray[Any, Any]
Rate = float | Sequence[float] | Array


class Descent:
    """Adam on the points and on all tiers' parameters at once, of B conformations side by side.

    Every point of a group is a parameter of its own besides (the atoms' tier of 3T); `fixed_atoms` are not.

    Parameters
    ----------
    tiers : Tiers of N atoms
    energy : a `ForceField`, with which all steps run in compiled code; or any function of positions (B, N, 3)
        that returns (terms, gradient): a dict of energies (B,), or the energies (B,), and (B, N, 3)
    positions : (B, N, 3), float32 or float64, NumPy or torch; copied
    parameters : Parameters of B conformations to start from, copied; zero if None
    pivot : as for `transform`
    beta1, beta2, epsilon : Adam's constants (arXiv 1412.6980)
    clip : components of gradients are clipped to this range
    backend : None to follow the data, or "cpu", "gpu", "reference"

    Attributes
    ----------
    positions, parameters : where it has come to
    steps : how many steps were taken

    Examples
    --------
    Two points on a spring, moved as one group and as points.

    >>> import numpy as np
    >>> from pykernels.tiered import Descent, Tiers
    >>> from pykernels.tiered.energy import ForceField
    >>> spring = ForceField.from_arrays(bonds=[[0, 1]], bond_harmonic=[[100.0, 1.5]])
    >>> descent = Descent(Tiers(2, [0, 2], [0, 1]), spring, np.array([[[0.0, 0, 0], [0, 0, 1.6]]]))
    >>> history = descent.run(100, 0.01)
    >>> round(float(history[0, 0]), 6), bool(history[-1, 0] < 0.01)
    (1.0, True)
    """

    def __init__(
        self,
        tiers: Tiers,
        energy: Any,
        positions: Any,
        *,
        parameters: Parameters | None = None,
        pivot: str = "micro",
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        clip: float = 1e11,
        backend: str | None = None,
    ) -> None:
        x, arrays = namespace(positions)
        dtype = _options.dtype_name(arrays, x, DTYPES, "positions")
        if x.ndim != 3 or tuple(x.shape[1:]) != (tiers.n_atoms, 3):
            raise ValueError(f"positions has shape {tuple(x.shape)}: expected (B, {tiers.n_atoms}, 3)")
        if not (isinstance(energy, ForceField) or callable(energy)):
            raise TypeError(f"energy is a {type(energy).__name__}: expected a ForceField or a function")
        if isinstance(energy, ForceField) and energy.n_atoms != tiers.n_atoms:
            raise ValueError(f"energy is of {energy.n_atoms} atoms and tiers of {tiers.n_atoms}: expected as many")
        for name, value in (("beta1", beta1), ("beta2", beta2)):
            if not 0 <= value < 1:
                raise ValueError(f"{name}={value!r}: expected a number in [0, 1)")
        for name, value in (("epsilon", epsilon), ("clip", clip)):
            if not value > 0:
                raise ValueError(f"{name}={value!r}: expected a positive number")
        self.tiers, self.pivot = tiers, _options.choice("pivot", pivot, PIVOTS)
        self.backend = choose_backend(arrays, x, backend)
        self.positions = _copy(x)
        start = Parameters.zeros(tiers, len(x), dtype, x) if parameters is None else parameters
        self.parameters = Parameters(*map(_copy, _parameters.check(start, tiers, arrays, dtype, x)))
        if isinstance(energy, ForceField) and not np.array_equal(energy.fixed_atoms, tiers.fixed_atoms):
            energy = energy.with_fixed(tiers.fixed_atoms)
        self.energy, self.steps = energy, 0
        self.rule = Rule(float(beta1), float(beta2), float(epsilon), float(clip))
        self._first, self._second = ([_zeros(each) for each in (self.positions, *self.parameters)] for _ in range(2))
        sound(request_of(self.parameters, tiers, self.positions, pivot), self.backend)

    def run(self, steps: int, rate: Rate, macro_rate: Rate | None = None) -> Array:
        """Take `steps` steps; returns the energies (steps, B) before each, float64.

        `rate` is of points, groups and axes, `macro_rate` (the same, unless given) of macro-groups; one
        number, or one for each step.
        """
        steps = _options.integer("steps", steps, 0)
        macro_rate = rate if macro_rate is None else macro_rate
        rates = np.stack([_rates("rate", rate, steps), _rates("macro_rate", macro_rate, steps)], 1)
        history = np.empty((steps, len(self.positions)))
        if isinstance(self.energy, ForceField) and self.backend != "reference":
            self._compiled(rates, history)
        else:
            for number in range(steps):
                history[number] = self._step(rates[number])
                self.steps += 1
        return history

    def coordinates(self) -> Any:
        """The transformed positions (B, N, 3)."""
        return transform(self.parameters, self.tiers, self.positions, pivot=self.pivot, backend=self.backend)

    def energies(self) -> Any:
        """The energy terms at `coordinates`, as the energy gives them."""
        return self._evaluate(self.coordinates())[0]

    def _compiled(self, rates: Array, history: Array) -> None:
        arrays, energy, backend = namespace(self.positions)[1], self.energy, self.backend

        def raw(values: Any) -> tuple[Any, Motion]:
            x, *motion = (arrays.raw(each, backend) for each in values)
            return x, Motion(*motion)

        state = State(*raw((self.positions, *self.parameters)), *raw(self._first), *raw(self._second))
        x, target = state.positions, history
        constant = np.array([energy.constant(each, backend)[0].sum() if len(energy.fixed_atoms) else 0.0 for each in x])
        if backend == "gpu":
            constant, target = arrays.from_numpy(constant, x), arrays.from_numpy(history, x)
        tree, whole = self.tiers.tree_for(self.positions, backend), self.pivot == "macro"
        descend = launcher("tiered", backend, "descend")
        descend(state, tree, whole, energy.system(x), constant, self.rule, self.steps, rates, target)
        if backend == "gpu":
            history[...] = arrays.to_numpy(target)
        self.steps += len(rates)

    def _evaluate(self, coordinates: Any) -> tuple[Any, Any]:
        if isinstance(self.energy, ForceField):
            return self.energy.energy_and_gradient(coordinates, backend=self.backend)
        return self.energy(coordinates)  # type: ignore[no-any-return]

    def _step(self, rates: Array) -> Any:
        """One step through the launchers; returns the energies before it."""
        arrays = namespace(self.positions)[1]
        terms, gradient = self._evaluate(self.coordinates())
        at_parameters, at_positions = transform_backward(
            gradient, self.parameters, self.tiers, self.positions, pivot=self.pivot, backend=self.backend
        )
        adam = launcher("tiered", self.backend, "adam")
        parts = zip(
            (self.positions, *self.parameters), (at_positions, *at_parameters), self._first, self._second, strict=True
        )
        for number, part in enumerate(parts):
            flat = (arrays.raw(arrays.dense(each), self.backend, (-1,)) for each in part)
            adam(*flat, rates[int(number >= 4)], self.steps + 1, *self.rule)
        total = sum(v for k, v in terms.items() if k != "total") if isinstance(terms, dict) else terms
        return arrays.to_numpy(total) if namespace(total)[1] is arrays else total


def _rates(name: str, rate: Any, steps: int) -> Array:
    values = np.asarray(rate, np.float64)
    if values.shape not in ((), (steps,)):
        raise ValueError(f"{name} has shape {values.shape}: expected a number, or one for each of {steps} steps")
    if not np.all((values >= 0) & (values < np.inf)):
        raise ValueError(f"{name}={rate!r}: expected finite numbers >= 0")
    return np.ascontiguousarray(np.broadcast_to(values, (steps,)))


def _copy(x: Any) -> Any:
    return x.detach().clone().contiguous() if hasattr(x, "detach") else np.array(x, order="C")


def _zeros(x: Any) -> Any:
    return x.new_zeros(x.shape) if hasattr(x, "new_zeros") else np.zeros_like(x)
