"""`sample` against its definition in plain Python, exact frequencies, and bad input."""

from __future__ import annotations

import math
from itertools import accumulate

import ml_dtypes
import numpy as np
import pytest
from conftest import HAS_TORCH
from hypothesis import given, settings
from hypothesis import strategies as st

from pykernels.inference import Sampling, sample


def ranked(row):
    return sorted(range(len(row)), key=lambda token: (-row[token], token))


def weights_of(row, sampling):
    """Tokens, in the order in which they are drawn, and their probabilities times a number."""
    largest = max(row)
    tokens = list(range(len(row)))
    if sampling.top_k is not None or sampling.top_p not in (None, 1):
        tokens = ranked(row)[: sampling.top_k]
    weights = [math.exp((row[token] - largest) / sampling.temperature) for token in tokens]
    if sampling.top_p not in (None, 1):
        sums = list(accumulate(weights))
        count = next(n for n, reached in enumerate(sums, 1) if reached >= sampling.top_p * sums[-1])
        tokens, weights = tokens[:count], weights[:count]
    return tokens, weights


def drawn(row, sampling, position, stream):
    row = [float(x) for x in row]
    if sampling.temperature == 0:
        return ranked(row)[0]
    tokens, weights = weights_of(row, sampling)
    generator = np.random.Generator(np.random.Philox(key=[sampling.seed, stream], counter=[position, 0, 0, 0]))
    target, passed = generator.random() * math.fsum(weights), 0.0
    for token, weight in zip(tokens, weights, strict=True):
        passed += weight
        if passed > target:
            return token
    raise AssertionError


SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 1e-9, 0.4, 1.0, 3.0]),
    top_k=st.none() | st.integers(1, 12),
    top_p=st.none() | st.sampled_from([1e-9, 0.25, 0.5, 0.75, 0.9, 1.0]),
    seed=st.integers(0, 2**63),
)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_draws_are_those_of_the_definition(data):
    """Logits are few different numbers, so that ranks are shared at every edge of a set."""
    n, vocab = data.draw(st.integers(0, 4)), data.draw(st.integers(1, 9))
    values = st.sampled_from([-math.inf, -2.0, -0.0, 0.0, 1.0, 1.5])
    logits = np.array(data.draw(st.lists(values, min_size=n * vocab, max_size=n * vocab))).reshape(n, vocab)
    logits[:, -1] = np.maximum(logits[:, -1], -2)
    samplings = data.draw(st.lists(SAMPLINGS, min_size=n, max_size=n))
    positions, streams = (data.draw(st.lists(st.integers(0, 2**40), min_size=n, max_size=n)) for _ in range(2))
    logits = logits.astype(data.draw(st.sampled_from([np.float32, ml_dtypes.bfloat16])))
    tokens = sample(logits, samplings, positions=positions, streams=streams)
    assert tokens.dtype == np.int64 and tokens.shape == (n,)
    assert tokens.tolist() == [drawn(*of) for of in zip(logits, samplings, positions, streams, strict=True)]


@pytest.mark.parametrize("top_p", [1e-6, 0.01, 0.3, 0.99])
def test_a_nucleus_of_any_size(top_p):
    """Of 1, some hundred, some thousand and nearly all of 20 000 tokens."""
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((1, 20_000)).astype(np.float32)
    sampling = Sampling(temperature=2.0, top_p=top_p)
    for position in range(3):
        token = sample(logits, sampling, positions=position, streams=0)
        assert token == drawn(logits[0], sampling, position, 0)


SHARES = {
    "temperature": (Sampling(temperature=0.5), [1 / 30, 4 / 30, 9 / 30, 16 / 30]),
    "all": (Sampling(seed=5), [0.1, 0.2, 0.3, 0.4]),
    "top_k": (Sampling(top_k=3), [0, 2 / 9, 3 / 9, 4 / 9]),
    "top_p": (Sampling(top_p=0.69), [0, 0, 3 / 7, 4 / 7]),
    "both": (Sampling(top_k=3, top_p=0.75), [0, 0, 3 / 7, 4 / 7]),
}


@pytest.mark.parametrize("name", SHARES)
@pytest.mark.parametrize("varied", ["positions", "streams"])
def test_frequencies(name, varied):
    """Chi-square of 10 000 draws, with the bound that one in a thousand exceeds."""
    sampling, shares = SHARES[name]
    n = 10_000
    logits = np.broadcast_to(np.log(np.float32([0.1, 0.2, 0.3, 0.4])), (n, 4))
    where = {"positions": 17, "streams": 4, varied: np.arange(n)}
    counts = np.bincount(sample(logits, sampling, **where), minlength=4)
    expected = np.float64(shares) * n
    possible = expected > 0
    assert not counts[~possible].any()
    chi_square = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    assert chi_square < {2: 10.8, 3: 13.8, 4: 16.3}[int(possible.sum())]


def test_neighbouring_draws_are_independent():
    n = 5000
    logits = np.zeros((n, 2), np.float32)
    at = {(p, s): sample(logits, Sampling(), positions=np.arange(n) + p, streams=s) for p in (0, 1) for s in (0, 1)}
    for other in [(0, 1), (1, 0), (1, 1)]:
        counts = np.bincount(2 * at[0, 0] + at[other], minlength=4)
        assert ((counts - n / 4) ** 2 / (n / 4)).sum() < 16.3


def test_batch_order_and_layout_do_not_matter():
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((40, 200)).astype(np.float32)
    samplings = [Sampling(top_p=0.8), Sampling(), Sampling(top_k=90, top_p=0.5), Sampling(temperature=0)] * 10
    where = {"positions": rng.integers(0, 1000, 40), "streams": rng.integers(0, 5, 40)}
    tokens = sample(logits, samplings, **where)
    order = rng.permutation(40)
    shuffled = sample(
        np.asfortranarray(logits)[order], [samplings[i] for i in order], **{k: v[order] for k, v in where.items()}
    )
    np.testing.assert_array_equal(shuffled, tokens[order])
    singly = [sample(logits[i : i + 1], samplings[i], **{k: v[i : i + 1] for k, v in where.items()}) for i in range(40)]
    np.testing.assert_array_equal(np.concatenate(singly), tokens)
    if HAS_TORCH:
        import torch

        tensor = torch.from_numpy(logits).t().contiguous().t().requires_grad_()
        drawn_of_tensor = sample(tensor, samplings, **where)
        assert isinstance(drawn_of_tensor, torch.Tensor) and drawn_of_tensor.dtype == torch.int64
        np.testing.assert_array_equal(drawn_of_tensor.numpy(), tokens)


def test_logprobs_are_those_of_the_model():
    logits = np.float32([[1, 2, 3, -np.inf], [500, 0, 499, 498]])
    tokens, logprobs = sample(logits, Sampling(temperature=0.3, top_k=2), positions=0, logprobs=True)
    for row, token, logprob in zip(logits, tokens, logprobs, strict=True):
        terms = [math.exp(x - row[token]) for x in row.tolist()]
        assert logprob == pytest.approx(-math.log(math.fsum(terms)), rel=1e-14)
    assert logprobs.dtype == np.float64


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"temperature": -0.1}, ValueError, "temperature=-0.1: expected a finite number of at least 0"),
        ({"temperature": math.nan}, ValueError, "temperature=nan"),
        ({"temperature": math.inf}, ValueError, "temperature=inf"),
        ({"temperature": "hot"}, TypeError, "temperature='hot': expected a number"),
        ({"top_k": 0}, ValueError, "top_k=0: expected an integer at least 1"),
        ({"top_k": 2.0}, TypeError, "top_k=2.0"),
        ({"top_p": 0.0}, ValueError, r"top_p=0.0: expected a number in \(0, 1\], or None"),
        ({"top_p": 1.1}, ValueError, "top_p=1.1"),
        ({"top_p": True}, TypeError, "top_p=True"),
        ({"seed": -1}, ValueError, "seed=-1"),
        ({"seed": 2**64}, ValueError, "seed=18446744073709551616: expected an integer from 0 to 18446744073709551615"),
    ],
)
def test_parameters_out_of_range(options, error, message):
    with pytest.raises(error, match=message):
        Sampling(**options)


X = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize(
    ("logits", "sampling", "where", "error", "message"),
    [
        (X.astype(int), Sampling(), {}, TypeError, "logits has dtype int64"),
        (X[0], Sampling(), {}, ValueError, r"logits has shape \(3,\): expected \(n, V\)"),
        (X[:, :0], Sampling(), {}, ValueError, "V of at least 1"),
        (X, [Sampling()], {}, ValueError, "sampling has 1: expected one, or 2"),
        (X, [Sampling(), None], {}, TypeError, "sampling has a NoneType"),
        (X, Sampling(), {"positions": [1]}, ValueError, "positions has 1: expected one, or 2"),
        (X, Sampling(), {"positions": -1}, ValueError, "positions=-1: expected an integer from 0 to"),
        (
            X,
            Sampling(),
            {"positions": 2**70},
            ValueError,
            "positions=1180591620717411303424: expected an integer from 0",
        ),
        (X, Sampling(), {"streams": [0, -2]}, ValueError, "streams has -2"),
        (X, Sampling(), {"streams": 0.5}, TypeError, "streams=0.5"),
    ],
)
def test_bad_input(logits, sampling, where, error, message):
    with pytest.raises(error, match=message):
        sample(logits, sampling, **{"positions": 0, **where})


@pytest.mark.parametrize("bad", [[0, math.nan, 1], [0, math.inf, 1], [-math.inf] * 3])
@pytest.mark.parametrize("options", [{"temperature": 0}, {}, {"top_k": 1}, {"top_p": 0.5}])
def test_rows_that_give_no_probabilities(bad, options):
    with pytest.raises(ValueError, match=r"logits\[1\] has NaN, \+Inf, or nothing but -Inf"):
        sample(np.float32([[0, 1, 2], bad]), Sampling(**options), positions=0)
