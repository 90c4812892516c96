"""The paper's closed forms for one feedforward of two matrices (section 3.2)."""

from __future__ import annotations

import math


def feedforward(
    layout: str, width: int, hidden: int, torus: tuple[int, int, int], *, exact: bool = False
) -> tuple[float, float]:
    """Elements that each chip moves, as ``(constant, per token)``.

    - ws1d (3.2.1): all-gather and reduce-scatter of B L E over all n chips: ``2 B L E``, however many.
    - ws2d (3.2.2): E over X and F over YZ: all-gather and reduce-scatter of B L E / X over YZ, and of B L F / YZ over
      X: ``2 B L (E / X + F / YZ)``.
    - wgx, wgxy, wgxyz (3.2.3): both matrices gathered over N = X, XY, XYZ of the n chips, and all-gather and
      reduce-scatter of activations of B / N sequences over the other n / N: ``2 E F N / n + 2 B L E / N``.

    The paper drops (K - 1) / K of each collective of K chips (appendix A.1); `exact` keeps it.
    """
    x, y, z = torus
    chips = x * y * z

    def part(group: int) -> float:
        return (group - 1) / group if exact else 1.0

    if layout == "ws1d":
        return 0.0, 2 * width * part(chips)
    if layout == "ws2d":
        return 0.0, 2 * (width / x * part(y * z) + hidden / (y * z) * part(x))
    over = {"wgx": x, "wgxy": x * y, "wgxyz": chips}[layout]
    return 2 * width * hidden * over / chips * part(over), 2 * width / over * part(chips // over)


def best_2d(width: int, hidden: int, chips: int) -> tuple[float, float]:
    """The real X that moves least in ws2d, and the elements a token it moves.

    ``d/dX (E / X + F X / n) = 0`` at ``X = sqrt(n E / F)``, and there ``4 sqrt(E F / n)``: with F = 4 E,
    ``X = sqrt(n) / 2`` and ``8 E / sqrt(n)`` (section 3.2.2). It beats ws1d from ``n > 4 F / E`` on; the paper's
    ``sqrt(n) > F / E`` is the same only at F = 4 E.
    """
    return math.sqrt(chips * width / hidden), 4 * math.sqrt(width * hidden / chips)


def best_gather(tokens: float, hidden: int, chips: int) -> float:
    """The real N that moves least if weights are gathered: ``sqrt(B L n / F)`` (section 3.2.3).

    ``2 E F N / n + 2 B L E / N`` is there ``4 E sqrt(B L F / n)``, which is what the best ws2d moves at
    ``B L = E``: for F = 4 E the first gather that pays has ``B L = F / 4``.
    """
    return math.sqrt(tokens * chips / hidden)
