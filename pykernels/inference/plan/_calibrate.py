"""calibrate."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ... import _options
from ._efficiency import Efficiency, times
from ._numbers import positive
from ._result import Result

_NAMES = ("flops", "bandwidth", "interconnect", "overhead")
_FLOOR = np.array([1.0, 1.0, 1.0, 0.0])  # inverse efficiencies, and overhead
_ROUNDS = 32
_EXACT = 1e-18  # sums of squared relative errors that differ by less are the same


class Calibration(NamedTuple):
    """The `efficiency` that fits best, the seconds it predicts, their relative errors, and what points do not tell."""

    efficiency: Efficiency
    predicted: tuple[float, ...]
    errors: tuple[float, ...]
    undetermined: tuple[str, ...]


def calibrate(points: Iterable[tuple[Result, float]], *, fit: Sequence[str] = _NAMES) -> Calibration:
    """Fit an `Efficiency` to measured times by least squares.

    A time is linear in ``1 / flops``, ``1 / bandwidth``, ``1 / interconnect`` and the overhead as long as it is known
    which of FLOPs and bytes limits products and attention, and which part an overlap hides. So the sum of squared
    relative errors is minimised under ``efficiency <= 1`` and ``overhead >= 0``, exactly, by trying each set of
    parameters at its bound; the limits are then those of the new times, and so on until they stay, from several starts.

    Parameters
    ----------
    points : pairs of a `Result` of `plan`, whatever efficiency it had, and the seconds measured of the same: of a
        prefill, or of one step of a decode
    fit : which of "flops", "bandwidth", "interconnect" and "overhead" to fit; the others stay 1, and 0

    Returns
    -------
    `Calibration`. What no point depends on at the solution, such as "flops" where memory always limits, stays at its
    bound and is `undetermined`.

    Raises ValueError for fewer points than parameters, times that are not positive and unknown names.

    Examples
    --------
    >>> from pykernels.inference.plan import calibrate, plan
    >>> measured = [((64, "int8"), 0.0285), ((64, "bf16"), 0.0369), ((512, "bf16"), 0.0938)]  # section 4.4, table 2
    >>> points = []
    >>> for (batch, weights), seconds in measured:
    ...     points.append((plan("palm-540b", "tpu-v4", 64, batch=batch, context=2048, weights=weights)[0], seconds))
    >>> found = calibrate(points, fit=("flops", "bandwidth", "overhead"))
    >>> rates = found.efficiency
    >>> f"{rates.flops:.2f} of the FLOPs, {rates.bandwidth:.2f} of the bandwidth, {1e3 * rates.overhead:.0f} ms a pass"
    '0.49 of the FLOPs, 0.84 of the bandwidth, 15 ms a pass'
    """
    fitted = [_options.choice("fit", name, _NAMES) for name in fit]
    pairs = [(result, positive("measured seconds", seconds)) for result, seconds in points]
    for result, _ in pairs:
        if not isinstance(result, Result):
            raise TypeError(f"points has a {type(result).__name__}: expected pairs of a Result and seconds")
    if not fitted:
        raise ValueError(f"fit={fit!r}: expected at least one of {', '.join(_NAMES)}")
    if len(pairs) < len(set(fitted)):
        raise ValueError(f"{len(pairs)} points for {len(set(fitted))} parameters: expected at least as many")
    free = np.array([name in fitted for name in _NAMES])
    measured = np.array([seconds for _, seconds in pairs])
    results = [result for result, _ in pairs]
    best, least = _FLOOR, np.inf
    for start in itertools.product((1.0, 2.0, 5.0), repeat=3):
        solution = np.where(free, np.array([*start, 0.0]), _FLOOR)
        seen = None
        for _ in range(_ROUNDS):
            rows, constant = _linear(results, solution)
            if seen is not None and np.array_equal(rows, seen):
                break
            seen, solution = rows, _bounded(rows / measured[:, None], (measured - constant) / measured, free)
            error = float(np.sum((_predict(results, solution) / measured - 1) ** 2))
            if error < least * (1 - 1e-9) - _EXACT:
                best, least = solution, error
    rows, _ = _linear(results, best)
    predicted = _predict(results, best)
    return Calibration(
        _efficiency(best),
        tuple(map(float, predicted)),
        tuple(map(float, predicted / measured - 1)),
        tuple(name for i, name in enumerate(_NAMES) if free[i] and not rows[:, i].any()),
    )


def _efficiency(solution: Any) -> Efficiency:
    flops, bandwidth, interconnect, overhead = map(float, solution)
    return Efficiency(1 / flops, 1 / bandwidth, 1 / interconnect, overhead)


def _predict(results: list[Result], solution: Any) -> Any:
    efficiency = _efficiency(solution)
    return np.array([float(times(r.costs, r.chip, r.work, efficiency, r.overlap).total) for r in results])


def _linear(results: list[Result], solution: Any) -> tuple[Any, Any]:
    """Seconds as ``rows @ solution + constant`` near `solution`."""
    rows, constant = np.zeros((len(results), 4)), np.zeros(len(results))
    efficiency = _efficiency(solution)
    for row, (i, result) in zip(rows, enumerate(results), strict=True):
        now = times(result.costs, result.chip, result.work, efficiency, result.overlap)
        full = times(result.costs, result.chip, result.work, Efficiency(), result.overlap)
        local = max(now.products) + max(now.attention)
        kept_local = 1 - result.overlap * (local < now.communication)
        kept_wire = 1 - result.overlap * (local >= now.communication)
        for part, ideal in ((now.products, full.products), (now.attention, full.attention)):
            memory = part[1] > part[0]
            row[int(memory)] += kept_local * ideal[memory]
        row[2] = kept_wire * result.costs.wire_seconds
        row[3] = 1
        constant[i] = kept_wire * result.costs.hop_seconds
    return rows, constant


def _bounded(rows: Any, target: Any, free: Any) -> Any:
    """Least squares of ``rows @ x = target`` with x at least `_FLOOR`, and equal to it where not `free`."""
    best, least = _FLOOR, np.inf
    for chosen in itertools.product(*((False, True) if each else (False,) for each in free & rows.any(axis=0))):
        mask = np.array(chosen)
        x = _FLOOR.copy()
        if mask.any():
            x[mask] = np.linalg.lstsq(rows[:, mask], target - rows[:, ~mask] @ _FLOOR[~mask], rcond=None)[0]
        error = float(np.sum((rows @ x - target) ** 2))
        if (x >= _FLOOR).all() and error < least * (1 - 1e-9):
            best, least = x, error
    return best
