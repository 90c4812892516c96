"""How many bins, and how many kept in each: the cheapest way to an expected recall."""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache, partial
from typing import NamedTuple

from .. import _options
from .._dispatch import BACKENDS
from ._recall import expected_recall

LANES = 128
"""Plans have multiples of this many bins: whole vectors."""


class RecallPlan(NamedTuple):
    """An approximate top-k: each stripe of `bins` elements, rotated, has one for each bin, which keeps `per_bin`.

    `survivors` is their number, ``bins * per_bin``, and `expected_recall` the expected share of the k
    best among them. Where ``bins == n`` every element survives: the plan is the exact top-k.
    """

    bins: int
    per_bin: int
    expected_recall: float
    survivors: int


class Cost(NamedTuple):
    """Times of one backend, in units of the exact top-k reading one element.

    A pass takes `element[m - 1]` for each element where bins keep m, and `crowded[m - 1]` where there are
    more than `resident` bins. A selection reads its elements and takes `rescan` more for each of the k
    best; where k is not far below their number it takes `sort` for each element, and `merge` for each
    survivor, instead.
    """

    element: tuple[float, ...]
    crowded: tuple[float, ...]
    resident: int
    rescan: float
    sort: float
    merge: float


_COSTS = {
    "cpu": Cost(element=(2, 5, 8, 12), crowded=(5, 20, 30, 40), resident=1024, rescan=400, sort=8, merge=40),
    "gpu": Cost(element=(1, 2, 3, 4), crowded=(2, 4, 6, 8), resident=4096, rescan=200, sort=25, merge=25),
}
"""Of "cpu": measured in float32, one thread with AVX-512. Of "gpu": estimated."""
_COSTS["reference"] = _COSTS["cpu"]
_FAR_BELOW = 64


def plan(n: int, k: int, recall_target: float, *, backend: str = "cpu") -> RecallPlan:
    """The cheapest bins whose survivors have an expected recall of at least `recall_target`.

    Parameters
    ----------
    n : elements to select from, at least 1
    k : 1 to n
    recall_target : in (0, 1]; 1.0 asks for the exact top-k
    backend : "cpu", "gpu" or "reference": whose costs count

    Returns
    -------
    RecallPlan. The cost of a plan is that of a pass over n elements, which grows with `per_bin` (1 to 4)
    and with the bins, and of an exact selection among the survivors, by factors for the backend. For each
    `per_bin` the fewest bins that meet the target compete; they are multiples of 128. Where no such plan is
    cheaper than the exact top-k (small n, large k, a target close to 1), or none exists, the plan is
    exact: bins and survivors are n, and the expected recall is 1.

    `expected_recall` says what is expected, and of which inputs it is not true. Plans are remembered.

    Raises
    ------
    TypeError for arguments that are not numbers, ValueError for those out of range.

    Examples
    --------
    >>> from pykernels.topk import plan
    >>> found = plan(1_000_000, 20_000, 0.8)
    >>> found.survivors == found.bins * found.per_bin < 1_000_000, 0.8 <= found.expected_recall < 0.9
    (True, True)
    >>> plan(1000, 500, 0.95)
    RecallPlan(bins=1000, per_bin=1, expected_recall=1.0, survivors=1000)
    """
    n = _options.integer("n", n, 1)
    return _plan(
        n,
        _options.integer("k", k, 1, n),
        _options.recall_target(recall_target),
        _options.choice("backend", backend, BACKENDS),
    )


def shard_plan(n: int, whole: int, k: int, recall_target: float, backend: str) -> RecallPlan:
    """The plan for n of the `whole` elements, so that the union of all shards has the recall of the whole's plan.

    Bins of a shard are no larger than those of the whole. The expected loss of a bin is convex in its
    size, so that smaller bins lose less in total; `expected_recall` is that of the whole.
    """
    full = _plan(whole, k, recall_target, backend)
    if n == whole:
        return full
    least = max(-(-full.bins * n // whole), -(-k // full.per_bin))
    shard = _of_bins(_vectors(least), full.per_bin, full.expected_recall)
    exact = _exact(n)
    if full.bins == whole or n // shard.bins < shard.per_bin:
        return exact
    return min(exact, shard, key=lambda choice: _cost(choice, n, k, backend))


@lru_cache(maxsize=4096)
def _plan(n: int, k: int, recall_target: float, backend: str) -> RecallPlan:
    choices = [_exact(n)]
    if recall_target < 1:
        for per_bin in range(1, len(_COSTS[backend].element) + 1):
            choices += _fewest_bins(n, k, per_bin, recall_target)
    return min(choices, key=lambda choice: _cost(choice, n, k, backend))


def _fewest_bins(n: int, k: int, per_bin: int, recall_target: float) -> list[RecallPlan]:
    """The plan of fewest bins that meets the target, if there is one; recall grows with the bins."""
    multiples = range(_vectors(-(-k // per_bin)) // LANES, n // per_bin // LANES + 1)
    recall = partial(_recall_of_multiple, n, k, per_bin)
    found = bisect_left(multiples, recall_target, key=recall)
    return [_of_bins(m * LANES, per_bin, recall(m)) for m in multiples[found : found + 1]]


def _recall_of_multiple(n: int, k: int, per_bin: int, multiple: int) -> float:
    return expected_recall(n, k, multiple * LANES, per_bin)


def _vectors(bins: int) -> int:
    """`bins`, rounded up to a multiple of the lanes."""
    return -(-bins // LANES) * LANES


def _of_bins(bins: int, per_bin: int, recall: float) -> RecallPlan:
    return RecallPlan(bins, per_bin, recall, bins * per_bin)


def _exact(n: int) -> RecallPlan:
    return RecallPlan(bins=n, per_bin=1, expected_recall=1.0, survivors=n)


def _cost(choice: RecallPlan, n: int, k: int, backend: str) -> float:
    cost = _COSTS[backend]
    if choice.bins == n:
        return n + cost.rescan * k if _FAR_BELOW * k <= n else cost.sort * n
    element = (cost.element if choice.bins <= cost.resident else cost.crowded)[choice.per_bin - 1]
    few = _FAR_BELOW * k <= choice.survivors
    return element * n + (choice.survivors + cost.rescan * k if few else cost.merge * choice.survivors)
