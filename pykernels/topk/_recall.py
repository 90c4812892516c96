"""The expected recall of the survivors of bins (arXiv 2506.04165, theorem 1)."""

from __future__ import annotations

from math import exp, lgamma, log, log1p, pi

from .. import _options


def expected_recall(n: int, k: int, bins: int, per_bin: int = 1) -> float:
    """The expected share of the k best of n elements among the `per_bin` best of each of `bins` bins.

    Each stripe of `bins` elements has one for each bin, so the bins' sizes are n // bins and one more. The
    expectation is over random positions of the k best, exact up to rounding (about 1e-14):

        E = 1 - 1/k * sum_b E[max(0, R_b - per_bin)],   R_b ~ Hypergeom(n, k, size of bin b).

    Positions that are not random do about as well, or better (near-duplicates side by side lie in
    different bins): every stripe is rotated by a hash of its number, so a period of the input does not
    crowd the best into few bins. The hash is fixed and public: positions chosen by it can put all of the
    best into one bin. `topk`, or a recall target of 1.0, depends on no order.

    Parameters
    ----------
    n : elements, at least 1
    k : 1 to n
    bins : 1 to n
    per_bin : at least 1

    Raises
    ------
    TypeError for what is not an integer, ValueError for one out of range.

    Examples
    --------
    >>> from pykernels.topk import expected_recall
    >>> round(expected_recall(4, 2, bins=2), 4)  # 1 - 1/3 * 1/2: in one case of three both lie in one bin
    0.8333
    >>> round(expected_recall(1_000_000, 10, bins=128), 4)
    0.9656
    >>> round(expected_recall(1_000_000, 10, bins=128, per_bin=2), 4)
    0.9993
    """
    n = _options.integer("n", n, 1)
    k = _options.integer("k", k, 1, n)
    bins = _options.integer("bins", bins, 1, n)
    per_bin = _options.integer("per_bin", per_bin, 1)
    size, larger = divmod(n, bins)
    lost = (bins - larger) * expected_overflow(n, k, size, per_bin)
    if larger:
        lost += larger * expected_overflow(n, k, size + 1, per_bin)
    return 1 - lost / k


def expected_overflow(n: int, k: int, size: int, kept: int) -> float:
    """E[max(0, R - kept)] for R ~ Hypergeom(n, k, size), as a sum of positive terms only.

    The terms are taken on the far side of `kept` from the mean, where they decrease.
    """
    mean = k * size / n
    rest = n - k - size
    if mean <= kept:
        r = kept + 1
        total, term = 0.0, hypergeometric(n, k, size, r)
        while term * (r - kept) > 1e-18 * total:
            total += term * (r - kept)
            term *= (k - r) * (size - r) / ((r + 1) * (rest + r + 1))
            r += 1
        return total
    r = kept - 1
    total, term = mean - kept, hypergeometric(n, k, size, r)
    while term * (kept - r) > 1e-18 * total:
        total += term * (kept - r)
        term *= r * (rest + r) / ((k - r + 1) * (size - r + 1))
        r -= 1
    return total


def hypergeometric(n: int, k: int, size: int, r: int) -> float:
    """P(R = r) for R ~ Hypergeom(n, k, size), without cancellation at any n (Loader 2000)."""
    if not max(0, k + size - n) <= r <= min(k, size):
        return 0.0
    if size == n:
        return 1.0
    log_ratio = _log_binomial(r, k, size, n) + _log_binomial(size - r, n - k, size, n) - _log_binomial(size, n, size, n)
    return exp(log_ratio)


def _log_binomial(x: int, count: int, size: int, n: int) -> float:
    """log P(X = x) for X ~ Binomial(count, size / n), by its saddle point."""
    if x == 0:
        return count * log1p(-size / n)
    if x == count:
        return count * log(size / n)
    correction = _stirling_error(count) - _stirling_error(x) - _stirling_error(count - x)
    deviance = _deviance(x, count * size / n) + _deviance(count - x, count * (n - size) / n)
    return correction - deviance - 0.5 * log(2 * pi * x * ((count - x) / count))


def _deviance(x: float, mean: float) -> float:
    """``x * log(x / mean) + mean - x``."""
    u = (x - mean) / mean
    return mean * ((1 + u) * log1p(u) - u)


def _stirling_error(x: int) -> float:
    """``log(x!)`` less Stirling's approximation of it."""
    if x < 16:
        return lgamma(x + 1) - ((x + 0.5) * log(x) - x + 0.5 * log(2 * pi))
    inverse = 1 / (x * x)
    return (1 / 12 - (1 / 360 - (1 / 1260 - (1 / 1680 - inverse / 1188) * inverse) * inverse) * inverse) / x
