"""Sampling and sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from .. import _options
from .._arrays import namespace
from ..topk import topk

Array = np.ndarray[Any, Any]

PREFIX, GROWTH = 64, 16
"""How many of the most probable tokens are tried for a nucleus, and how many times as many when it is larger."""

_SEEDS = 2**64 - 1


@dataclass(frozen=True)
class Sampling:
    """How a token is chosen, given the logits of all.

    Attributes
    ----------
    temperature : what logits are divided by, at least 0; 0 takes the largest, of equal ones the lowest token
    top_k : None, or from how many of the most probable tokens one is drawn, at least 1; more than there are means all.
        They are those of `pykernels.topk.topk`: of equal ones the lowest tokens come first
    top_p : None, or a probability in (0, 1]: one is drawn from the nucleus (arXiv 1904.09751), the fewest most probable
        tokens whose probabilities, after temperature and `top_k`, sum up to at least this; ranked as for `top_k`
    seed : of the draws, 0 to 2**64 - 1

    Raises TypeError and ValueError that name the parameter.

    Examples
    --------
    >>> from pykernels.inference import Sampling
    >>> Sampling(temperature=0.7, top_k=50, top_p=0.9)
    Sampling(temperature=0.7, top_k=50, top_p=0.9, seed=0)
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not _real("temperature", self.temperature) >= 0 or self.temperature == math.inf:
            raise ValueError(f"temperature={self.temperature!r}: expected a finite number of at least 0")
        if self.top_k is not None:
            _options.integer("top_k", self.top_k, 1)
        if self.top_p is not None and not 0 < _real("top_p", self.top_p) <= 1:
            raise ValueError(f"top_p={self.top_p!r}: expected a number in (0, 1], or None")
        _options.integer("seed", self.seed, 0, _SEEDS)


def sample(
    logits: Any,
    sampling: Sampling | Sequence[Sampling],
    *,
    positions: Any,
    streams: Any = None,
    logprobs: bool = False,
) -> Any:
    """A token for each row of logits.

    A draw depends on nothing but its row and the triple of seed, stream and position, which is the key and counter of a
    Philox generator (Salmon et al., 2011): the same in any batch, in any order, and of any kind of array. From the
    number u in [0, 1) that these give, the token is the first, in the order of their numbers or, with `top_k` or
    `top_p`, from the most probable one down, up to which probabilities sum up to more than u; in float64.

    Parameters
    ----------
    logits : (n, V) of float64, float32, float16 or bfloat16; -Inf is a probability of zero
    sampling : a `Sampling` for all rows, or one for each
    positions : an integer of at least 0, or n of them: how many tokens are before the one to draw
    streams : None for the numbers of the rows, or an integer of at least 0, or n of them: what tells apart the draws of
        several samples at the same position with the same seed
    logprobs : whether to return logarithms of probabilities, too

    Returns
    -------
    tokens, int64 (n,) of the kind and on the device of `logits`; or (tokens, logprobs), the latter a float64 NumPy
    array (n,) of the natural logarithms of the probabilities that the logits give to the tokens, before temperature,
    `top_k` and `top_p`. Greedy choices and `top_k` are selected where the logits are; without them, and for logprobs,
    logits of a GPU are copied to main memory.

    Raises
    ------
    TypeError for other types and dtypes; ValueError for shapes that do not fit, and a row that has NaN, +Inf, or
    nothing but -Inf.

    Examples
    --------
    >>> import numpy as np
    >>> from pykernels.inference import Sampling, sample
    >>> logits = np.log(np.float32([[0.1, 0.6, 0.3]] * 10))
    >>> sample(logits, Sampling(seed=1), positions=0)
    array([1, 0, 1, 1, 2, 2, 2, 2, 2, 2])
    >>> tokens, logprobs = sample(logits[:2], Sampling(temperature=0), positions=7, logprobs=True)
    >>> tokens, np.exp(logprobs).round(4)
    (array([1, 1]), array([0.6, 0.6]))
    """
    logits, arrays = namespace(logits)
    _options.floating(arrays, logits, "logits")
    if len(logits.shape) != 2 or logits.shape[1] == 0:
        raise ValueError(f"logits has shape {tuple(logits.shape)}: expected (n, V) with V of at least 1")
    rows = logits.shape[0]
    each = [sampling] * rows if isinstance(sampling, Sampling) else list(sampling)
    for item in each:
        if not isinstance(item, Sampling):
            raise TypeError(f"sampling has a {type(item).__name__}: expected Sampling")
    if len(each) != rows:
        raise ValueError(f"sampling has {len(each)}: expected one, or {rows}, as logits has rows")
    where = _counts("positions", positions, rows)
    tokens = choose(logits, each, where, range(rows) if streams is None else _counts("streams", streams, rows))
    refused = np.flatnonzero(tokens < 0)
    if len(refused):
        raise ValueError(f"logits[{refused[0]}] has NaN, +Inf, or nothing but -Inf: expected logits of some token")
    result = arrays.from_numpy(tokens, logits)
    return (result, log_probabilities(logits, tokens)) if logprobs else result


def choose(logits: Any, samplings: Sequence[Sampling], positions: Sequence[int], streams: Sequence[int]) -> Array:
    """As `sample`, of arguments that are in order, into NumPy; -1 for a row that gives no probabilities."""
    arrays = namespace(logits)[1]
    rows, vocab = logits.shape
    first = max((_ranked(sampling) for sampling in samplings), default=1)
    values, ids = (arrays.to_numpy(x) for x in topk(logits, min(first, vocab)))
    whole: Any = arrays.to_numpy(logits) if any(s.temperature > 0 and s.top_k is None for s in samplings) else None
    tokens = np.full(rows, -1, np.int64)
    for i, sampling in enumerate(samplings):
        if not np.isfinite(values[i, 0]):  # the largest is NaN if any is
            continue
        if sampling.temperature == 0:
            tokens[i] = ids[i, 0]
            continue
        u = _uniform(sampling.seed, streams[i], positions[i])
        if sampling.top_k is not None:
            sums = np.cumsum(_weights(values[i, : sampling.top_k], values[i, 0], sampling))
            tokens[i] = ids[i, _inverse(_nucleus(sums, sums[-1], sampling), u)]
        else:
            tokens[i] = _from_all(whole[i], values[i], ids[i], sampling, u)
    return tokens


def log_probabilities(logits: Any, tokens: Array) -> Array:
    """float64 (n,): the natural logarithm of the softmax of each row at its token."""
    whole = namespace(logits)[1].to_numpy(logits)
    result = np.empty(len(tokens))
    for i, token in enumerate(tokens.tolist()):
        row = whole[i].astype(np.float64)
        row -= row.max()
        result[i] = row[token] - np.log(np.exp(row).sum())
    return result


def _ranked(sampling: Sampling) -> int:
    """How many of the largest logits are wanted first."""
    if sampling.temperature == 0:
        return 1
    if sampling.top_k is not None:
        return sampling.top_k
    return 1 if sampling.top_p in (None, 1) else PREFIX


def _from_all(row: Array, values: Array, ids: Array, sampling: Sampling, u: float) -> int:
    """A token drawn from a row, of which `values` and `ids` are some of the largest logits."""
    weights = _weights(row, values[0], sampling)
    if sampling.top_p in (None, 1):
        return _inverse(np.cumsum(weights), u)
    total = weights.sum()
    sums = np.cumsum(_weights(values, values[0], sampling))
    while sums[-1] < sampling.top_p * total and len(values) < len(row):
        values, ids = topk(row, min(GROWTH * len(values), len(row)))
        sums = np.cumsum(_weights(values, values[0], sampling))
    return int(ids[_inverse(_nucleus(sums, total, sampling), u)])


def _weights(values: Array, largest: Any, sampling: Sampling) -> Array:
    """float64: probabilities after temperature, times a number."""
    with np.errstate(over="ignore"):
        weights: Array = np.exp((values.astype(np.float64) - float(largest)) / sampling.temperature)
    return weights


def _nucleus(sums: Array, total: Any, sampling: Sampling) -> Array:
    """`sums`, weights summed up from the largest down, as far as `top_p` of the `total` reaches."""
    if sampling.top_p in (None, 1):
        return sums
    return sums[: int(np.searchsorted(sums, sampling.top_p * total)) + 1]


def _inverse(sums: Array, u: float) -> int:
    """The first place where the sums of weights exceed u, in [0, 1), of the whole."""
    return int(np.searchsorted(sums, u * sums[-1], side="right"))


def _uniform(seed: int, stream: int, position: int) -> float:
    key, counter = np.array([seed, stream], np.uint64), np.array([position, 0, 0, 0], np.uint64)
    raw = np.random.Philox(key=key, counter=counter).random_raw()
    return (int(raw) >> 11) * 2.0**-53


def _real(name: str, value: Any) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: expected a number")
    return float(value)


def _counts(name: str, value: Any, rows: int) -> list[int]:
    """`value`, an integer or as many as there are rows, as a list of as many."""
    if np.ndim(value) == 0:
        return [_options.integer(name, value, 0, _options.INT64_MAX)] * rows
    counts: list[int] = _options.integers(name, value).tolist()
    if len(counts) != rows:
        raise ValueError(f"{name} has {len(counts)}: expected one, or {rows}, as logits has rows")
    if counts and min(counts) < 0:
        raise ValueError(f"{name} has {min(counts)}: expected integers of at least 0")
    return counts
