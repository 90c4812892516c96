"""A decoder whose logits are a hash of all tokens before, which it reads back from the cache; and what it generates."""

from __future__ import annotations

import zlib
from types import SimpleNamespace

import numpy as np

from pykernels.attention import KVCache
from pykernels.inference import Sampling, sample

VOCAB = 11


class HashDecoder:
    """Called like a `Decoder`. The cache keeps numbers of tokens as keys of one column."""

    def __init__(self, max_length=1000, broken=(), fail=None):
        self.config = SimpleNamespace(vocab=VOCAB, max_length=max_length)
        self.broken, self.fail = broken, fail
        self.calls = []

    def cache(self, max_sequences, max_length, *, page_size=None):
        if page_size is None:
            return KVCache.contiguous(max_sequences, max_length, 1, 1)
        return KVCache.paged(max_sequences * -(-max_length // page_size), page_size, 1, 1)

    def __call__(self, tokens, cache, sequences, *, last_only):
        assert last_only and tokens.dtype == np.int64 and tokens.shape[0] == len(sequences)
        self.calls.append(tokens.shape)
        kept = tokens[:, None, :, None].astype(np.float32)
        cache.append(sequences, kept, kept)
        if self.fail is not None and len(self.calls) == self.fail:
            raise RuntimeError("the decoder failed")
        return np.stack([self.after(cache.gather(sequence)[0][0, :, 0].astype(int).tolist()) for sequence in sequences])

    def after(self, history):
        """Float32 (V,) logits, some of them equal; NaN after a token that is `broken`."""
        if history[-1] in self.broken:
            return np.full(VOCAB, np.nan, np.float32)
        seed = zlib.crc32(bytes(history))
        return np.random.default_rng(seed).integers(-8, 8, VOCAB).astype(np.float32) / 4


def alone(decoder, prompt, max_new_tokens, sampling=None, stop=(), stream=0):
    """The tokens of one sample, and why they end, in a plain loop without a cache."""
    history = list(prompt)
    endings = [[each] if isinstance(each, int) else list(each) for each in stop]
    for n in range(1, max_new_tokens + 1):
        logits = decoder.after(history)
        if sampling is None:
            token = int(np.argmax(logits))
        else:
            token = int(sample(logits[None], sampling, positions=len(history), streams=stream)[0])
        history.append(token)
        new = history[len(prompt) :]
        if any(len(ending) <= n and new[n - len(ending) :] == ending for ending in endings):
            return new, "stop"
    return history[len(prompt) :], "length"


def same_as_alone(decoder, request_or_prompt, completions, max_new_tokens, sampling=None, stop=()):
    for stream, completion in enumerate(completions):
        tokens, reason = alone(decoder, request_or_prompt, max_new_tokens, sampling, stop, stream)
        assert (completion.tokens.tolist(), completion.reason) == (tokens, reason)


DRAWN = Sampling(temperature=1.5, top_k=8, top_p=0.95, seed=3)
