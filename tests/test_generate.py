"""`generate` and `stream` against a plain loop, sharing, stop conditions and bad input."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from decoder_oracle import DRAWN, VOCAB, HashDecoder, alone, same_as_alone

from pykernels.inference import Sampling, _generate, _sampling, generate, stream

PROMPTS = [[1, 2, 3, 4, 5, 6, 7], [8], [9, 10] * 20, [1, 2, 3]]


@pytest.mark.parametrize("sampling", [None, DRAWN])
@pytest.mark.parametrize("max_batch", [1, 64])
def test_prompts_of_any_length(sampling, max_batch):
    decoder = HashDecoder()
    completions = generate(decoder, PROMPTS, max_new_tokens=30, sampling=sampling, max_batch=max_batch)
    assert len(completions) == len(PROMPTS)
    for prompt, completion in zip(PROMPTS, completions, strict=True):
        same_as_alone(decoder, prompt, [completion], 30, sampling)
        assert completion.tokens.dtype == np.int64 and completion.logprobs is None
    assert max(rows for rows, _ in decoder.calls) == min(max_batch, len(PROMPTS))


@pytest.mark.parametrize("page_size", [None, 1, 4])
def test_samples_share_the_prompt(page_size):
    decoder = HashDecoder()
    cache = decoder.cache(6, 60, page_size=page_size)
    completions = generate(decoder, PROMPTS, max_new_tokens=9, sampling=DRAWN, samples=3, cache=cache)
    for i, prompt in enumerate(PROMPTS):
        same_as_alone(decoder, prompt, completions[3 * i : 3 * i + 3], 9, DRAWN)
        assert len({tuple(each.tokens.tolist()) for each in completions[3 * i : 3 * i + 3]}) == 3
    prefilled = [length for _, length in decoder.calls if length > 1]
    assert sorted(prefilled) == sorted(len(prompt) for prompt in PROMPTS if len(prompt) > 1)
    assert cache.sequences == [] and cache.free_pages == cache.num_pages


def test_what_was_generated_is_continued_alike():
    decoder = HashDecoder()
    (whole,) = generate(decoder, PROMPTS[:1], max_new_tokens=12, sampling=DRAWN)
    (first,) = generate(decoder, PROMPTS[:1], max_new_tokens=5, sampling=DRAWN)
    (rest,) = generate(decoder, [PROMPTS[0] + first.tokens.tolist()], max_new_tokens=7, sampling=DRAWN)
    assert whole.tokens.tolist() == first.tokens.tolist() + rest.tokens.tolist()


@pytest.mark.parametrize("place", [0, 3, 11])
@pytest.mark.parametrize("length", [1, 2, 4])
def test_stop_conditions(place, length):
    """A token or a sequence that is generated, beside ones that are not; and found in the prompt, it stops nothing."""
    decoder = HashDecoder()
    prompt = PROMPTS[0]
    tokens, _ = alone(decoder, prompt, 12, DRAWN)
    ending = tokens[max(place - length + 1, 0) : place + 1]
    stop = [[*ending, VOCAB - 1, 0, VOCAB - 1], prompt[-1:] + tokens[:1] + [0, 0], ending]
    if len(ending) == 1:
        stop[2] = np.int64(ending[0])
    (completion,) = generate(decoder, [prompt], max_new_tokens=12, sampling=DRAWN, stop=iter(stop))
    expected = alone(decoder, prompt, 12, DRAWN, [ending])
    assert (completion.tokens.tolist(), completion.reason) == expected
    assert expected[1] == "stop" and len(expected[0]) <= place + 1


def test_tokens_are_told_as_they_come():
    decoder = HashDecoder()
    told = {}
    options = {"max_new_tokens": 6, "sampling": DRAWN, "stop": [3], "samples": 2}
    completions = generate(decoder, PROMPTS, **options, on_token=lambda n, token: told.setdefault(n, []).append(token))
    assert told == {n: completion.tokens.tolist() for n, completion in enumerate(completions)}
    pairs = list(stream(decoder, PROMPTS, **options))
    assert [[t for n, t in pairs if n == number] for number in range(8)] == [told[number] for number in range(8)]
    calls = len(decoder.calls)
    tokens = stream(decoder, PROMPTS, **options)
    assert len(decoder.calls) == calls
    next(tokens)
    assert len(decoder.calls) <= calls + len(PROMPTS)


def test_logprobs():
    decoder = HashDecoder()
    (completion,) = generate(decoder, PROMPTS[:1], max_new_tokens=5, sampling=DRAWN, logprobs=True)
    history = list(PROMPTS[0])
    for token, logprob in zip(completion.tokens.tolist(), completion.logprobs, strict=True):
        weights = np.exp(decoder.after(history).astype(np.longdouble))
        assert logprob == pytest.approx(float(np.log(weights[token] / weights.sum())), rel=1e-13)
        history.append(token)


def test_the_cache_is_empty_after_an_end_of_any_kind():
    decoder = HashDecoder(broken={5})
    cache = decoder.cache(8, 60, page_size=4)

    def refuse(number, token):
        raise KeyError(number)

    with pytest.raises(KeyError):
        generate(decoder, PROMPTS, max_new_tokens=9, cache=cache, on_token=refuse)
    assert cache.sequences == []
    with pytest.raises(ValueError, match=r"the logits after 5 tokens of prompts\[1\] have NaN"):
        generate(decoder, [[1, 2, 3], [1, 2, 3, 4, 5]], max_new_tokens=9, cache=cache)
    assert cache.sequences == []
    tokens = stream(decoder, PROMPTS, max_new_tokens=9, cache=cache)
    next(tokens)
    assert cache.sequences
    tokens.close()
    assert cache.sequences == []
    decoder.fail = len(decoder.calls) + 3
    with pytest.raises(RuntimeError, match="the decoder failed"):
        generate(decoder, PROMPTS, max_new_tokens=9, cache=cache)
    assert cache.sequences == [] and cache.free_pages == cache.num_pages


def test_no_prompts():
    assert generate(HashDecoder(), [], max_new_tokens=3) == [] == list(stream(HashDecoder(), [], max_new_tokens=3))


BAD = [
    ([[1], []], {}, ValueError, r"prompts\[1\] is empty"),
    ([[1], [VOCAB]], {}, ValueError, r"prompts\[1\] has token 11: expected 0 to 10"),
    ([[1], [0, -1]], {}, ValueError, r"prompts\[1\] has token -1"),
    ([[1], [0.5]], {}, TypeError, r"prompts\[1\] has dtype float64: expected integers"),
    ([1, 2], {}, ValueError, r"prompts\[0\] has shape \(\): expected \(n,\)"),
    ([[1], [1] * 16], {}, ValueError, r"prompts\[1\] has 16 tokens and max_new_tokens=5: expected at most 20 together"),
    ([[1]], {"max_new_tokens": 0}, ValueError, "max_new_tokens=0: expected an integer at least 1"),
    ([[1]], {"samples": 0}, ValueError, "samples=0"),
    ([], {"samples": 0}, ValueError, "samples=0"),
    ([[1]], {"samples": 9, "max_batch": 8}, ValueError, r"prompts\[0\] has samples=9: expected at most max_batch=8"),
    ([[1]], {"max_batch": 0}, ValueError, "max_batch=0"),
    ([[1]], {"stop": 5}, TypeError, "stop=5: expected token ids, or sequences"),
    ([[1]], {"stop": [1, 99]}, ValueError, r"stop\[1\] has token 99"),
    ([[1]], {"stop": [[]]}, ValueError, r"stop\[0\] is empty"),
    ([[1]], {"sampling": 0.5}, TypeError, "sampling is a float: expected Sampling, or None for greedy"),
    ([[1]], {"cache": {}}, TypeError, "cache is a dict: expected a KVCache"),
]


@pytest.mark.parametrize(("prompts", "options", "error", "message"), BAD)
def test_bad_input_is_refused_before_anything_runs(prompts, options, error, message):
    decoder = HashDecoder(max_length=20)
    for call in (generate, stream):
        with pytest.raises(error, match=message):
            call(decoder, prompts, **{"max_new_tokens": 5, **options})
    assert decoder.calls == []


def test_a_request_longer_than_the_cache():
    decoder = HashDecoder()
    message = r"prompts\[1\] has 16 tokens and max_new_tokens=5: expected at most 20 together, which the cache"
    for cache in (decoder.cache(2, 20), decoder.cache(1, 20, page_size=4)):
        with pytest.raises(ValueError, match=message):
            generate(decoder, [[1], [1] * 16], max_new_tokens=5, cache=cache)
    cache = decoder.cache(1, 20, page_size=4)
    cache.new()
    with pytest.raises(ValueError, match="cache has 1 sequences: expected an empty one"):
        generate(decoder, [[1]], max_new_tokens=5, cache=cache)
    assert decoder.calls == []


@pytest.mark.parametrize("page_size", [None, 4])
def test_a_decoder(page_size):
    """Each sample of a real model is what a loop over its logits gives that has no cache."""
    from pykernels.inference import Config, Decoder

    config = Config(vocab=50, layers=2, width=32, hidden=64, heads=4, kv_heads=1, head_dim=8)
    decoder = Decoder.random(config, seed=3)
    cache = decoder.cache(6, 40, page_size=page_size)
    sampling = Sampling(temperature=2.0, top_k=20, seed=1)
    completions = generate(decoder, [[1, 2, 3], [7] * 11], max_new_tokens=7, sampling=sampling, samples=2, cache=cache)
    for prompt, stream_number, completion in zip(
        [[1, 2, 3]] * 2 + [[7] * 11] * 2, [0, 1] * 2, completions, strict=True
    ):
        history = list(prompt)
        for _ in range(7):
            logits = decoder.logits(np.array([history]))[:, -1]
            where = {"positions": len(history), "streams": stream_number}
            history.append(int(_sampling.sample(logits, sampling, **where)[0]))
        assert completion.tokens.tolist() == history[len(prompt) :]


@pytest.mark.parametrize("module", [_sampling, _generate])
def test_doctests(module):
    done = doctest.testmod(module)
    assert done.attempted and not done.failed
