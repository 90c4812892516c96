"""Engine."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import numpy as np

from .. import _options
from ..attention import KVCache
from ._queue import Prefix, Queue, pages
from ._request import Event, Request, Run
from ._sampling import Sampling, choose, log_probabilities
from ._stopping import token_ids

Array = np.ndarray[Any, Any]


class Engine:
    """Continuous batching: requests of different lengths share the steps of a decoder, and come and go between them.

    Each step gives every sample that is being decoded its next token, all in one call of the decoder, and then some
    prompts a piece further, each in calls of its own. A request is admitted, first come first served, when a place in
    the batch and all pages that it may ever need are there; until then it waits, and is never evicted afterwards.

    What is drawn depends on a request alone (see `sample`), not on what else is in the batch; so do its tokens, as long
    as the decoder's logits of a row do not depend on the other rows.

    Parameters
    ----------
    decoder : a `Decoder`, or what is called like one and has its ``config.vocab`` and ``config.max_length``
    cache : an empty `KVCache` of the decoder, as `Decoder.cache` makes; for the engine alone until it is closed
        Pages that prompts share need a paged cache.
    max_batch : how many samples are in the batch at most
    chunk : how many tokens of a prompt one call takes at most, and after how many a step ends, so that long prompts do
        not keep the others waiting

    Any number of threads may submit, cancel and make prefixes while one steps; further ones that step wait.
    Used in a ``with`` statement, an engine is closed at the end.

    Attributes
    ----------
    busy : whether requests wait or run

    Examples
    --------
    >>> from pykernels.inference import Config, Decoder, Engine, Sampling
    >>> config = Config(vocab=50, layers=2, width=32, hidden=64, heads=4, kv_heads=1, head_dim=8)
    >>> decoder = Decoder.random(config)
    >>> engine = Engine(decoder, decoder.cache(4, 64, page_size=8))
    >>> system = engine.prefix(range(16))  # computed once, for every prompt that begins with it
    >>> short = engine.submit([*range(16), 30], max_new_tokens=3)
    >>> drawn = engine.submit([*range(16), 40, 41], max_new_tokens=5, sampling=Sampling(seed=1), samples=2)
    >>> [(event.request is short, event.reason) for event in engine.step()]  # a first token of all three
    [(True, None), (False, None), (False, None)]
    >>> engine.run()
    >>> short.completions[0].reason, [len(sample.tokens) for sample in drawn.completions]
    ('length', [5, 5])
    """

    def __init__(self, decoder: Any, cache: KVCache, *, max_batch: int = 64, chunk: int = 512) -> None:
        if not isinstance(cache, KVCache):
            raise TypeError(f"cache is a {type(cache).__name__}: expected a KVCache, such as Decoder.cache makes")
        if cache.sequences:
            raise ValueError(f"cache has {len(cache.sequences)} sequences: expected an empty one")
        self._decoder, self._cache = decoder, cache
        self._max_batch = _options.integer("max_batch", max_batch, 1)
        self._chunk = _options.integer("chunk", chunk, 1)
        self._queue = Queue(cache)
        self._active: list[Request] = []
        self._stepping = threading.Lock()

    @property
    def busy(self) -> bool:
        return len(self._queue) > 0

    def submit(
        self,
        prompt: Any,
        *,
        max_new_tokens: int,
        sampling: Sampling | None = None,
        stop: Iterable[Any] = (),
        samples: int = 1,
        logprobs: bool = False,
    ) -> Request:
        """Queue a prompt.

        Parameters
        ----------
        prompt : P token ids, at least one. What it has in common with the beginning of a `prefix` is not computed
        max_new_tokens : how many tokens to generate at most, at least 1
        sampling : a `Sampling`; None takes the most probable tokens
        stop : token ids and sequences of token ids; a sample ends after any of them, found in what it generated
        samples : how many continuations to draw, each its own stream of draws; the prompt is computed once
        logprobs : whether to keep the logarithms of the probabilities of the tokens

        Raises
        ------
        TypeError for arguments of wrong type; ValueError for those out of range, for token ids that the model does not
        have, and for a request that the model, the cache or the batch can never hold. Nothing is queued then.
        """
        request = Request(
            "prompt",
            prompt,
            self._decoder.config,
            max_new_tokens=max_new_tokens,
            sampling=sampling,
            stop=stop,
            samples=samples,
            logprobs=logprobs,
        )
        self.enqueue(request)
        return request

    def enqueue(self, request: Request) -> None:
        """Queue a request that exists already."""
        if request.samples > self._max_batch:
            raise ValueError(
                f"{request.name} has samples={request.samples}: expected at most max_batch={self._max_batch}"
            )
        request.check_length(self._longest(), "the cache has room for")
        self._queue.add(request)

    def prefix(self, tokens: Any) -> Prefix:
        """Compute L tokens that prompts will begin with, and keep their pages until ``release()`` of what is returned.

        ValueError if they are more than the model or the cache can hold, MemoryError if pages are short because of
        other prefixes, what is running, or a request that waits and then could never run.
        """
        ids = token_ids("tokens", tokens, self._decoder.config.vocab)
        longest = min(self._longest(), self._decoder.config.max_length)
        if len(ids) > longest:
            raise ValueError(f"tokens has {len(ids)}: expected at most {longest}, as the model and the cache can hold")
        needed = pages(len(ids), self._cache.page_size)
        with self._stepping:
            self._queue.promise_prefix(needed)
            sequence = None
            try:
                sequence = self._cache.new()
                for start in range(0, len(ids), self._chunk):
                    self._decoder(ids[None, start : start + self._chunk], self._cache, [sequence], last_only=True)
            except BaseException:
                if sequence is not None:
                    self._cache.free(sequence)
                self._queue.break_promise(needed)
                raise
            prefix = Prefix(self._queue, ids, sequence, needed)
            self._queue.register(prefix)
        return prefix

    def step(self) -> list[Event]:
        """Take one step, and return the tokens that came.

        A request whose logits have NaN, +Inf, or nothing but -Inf ends with "error", and its `error` says so. If the
        decoder raises, all requests that run end so, what waits stays, and the exception is passed on.
        """
        with self._stepping:
            try:
                self._active += self._queue.admit(self._max_batch - sum(run.reason is None for run in self._runs()))
                return self._decode() + self._prefill()
            except BaseException as error:
                for request in list(self._active):
                    self._fail(request, error)
                raise

    def run(self) -> None:
        """Step until nothing waits or runs."""
        while self.busy:
            self.step()

    def cancel(self, request: Request) -> None:
        """End a request, whose samples keep what they have; its pages are free then. A step in progress ends before."""
        with self._stepping:
            self._end_all(request, "cancelled")

    def close(self) -> None:
        """Cancel all requests and release all prefixes, so that the cache is as it was."""
        with self._stepping:
            for request in [*self._active, *self._queue.waiting()]:
                self._end_all(request, "cancelled")
            self._queue.release_all()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        waiting = len(self._queue.waiting())
        return f"Engine with {len(self._queue) - waiting} requests running and {waiting} waiting, {self._cache!r}"

    def _longest(self) -> int:
        """How many tokens the cache can hold of one sequence."""
        return self._cache._pages.longest * self._cache.page_size

    def _runs(self) -> list[Run]:
        return [run for request in self._active for run in request.runs]

    def _decode(self) -> list[Event]:
        runs = [run for run in self._runs() if run.decoding]
        if not runs:
            return []
        tokens = np.array([[run.tokens[-1]] for run in runs], np.int64)
        logits = self._decoder(tokens, self._cache, [run.sequence for run in runs], last_only=True)
        return self._advance(runs, logits)

    def _prefill(self) -> list[Event]:
        events: list[Event] = []
        budget = self._chunk
        for request in [request for request in self._active if request.fed < len(request.prompt)]:
            if budget <= 0:
                break
            runs = request.runs
            if runs[0].sequence is None:
                runs[0].sequence = self._queue.begin(request)
            tokens = request.prompt[None, request.fed : request.fed + self._chunk]
            logits = self._decoder(tokens, self._cache, [runs[0].sequence], last_only=True)
            request.fed += tokens.shape[1]
            budget -= tokens.shape[1]
            if request.fed == len(request.prompt):
                for run in runs[1:]:
                    run.sequence = self._cache.fork(runs[0].sequence)
                events += self._advance(runs, logits[[0] * len(runs)])
        return events

    def _advance(self, runs: list[Run], logits: Any) -> list[Event]:
        """Draw a token for each run from its row of logits."""
        samplings = [run.request.sampling for run in runs]
        positions = [len(run.request.prompt) + len(run.tokens) for run in runs]
        chosen = choose(logits, samplings, positions, [run.stream for run in runs])
        wanted = [i for i, run in enumerate(runs) if run.request.wants_logprobs and chosen[i] >= 0]
        if wanted:
            for i, value in zip(wanted, log_probabilities(logits[wanted], chosen[wanted]).tolist(), strict=True):
                runs[i].logprobs.append(value)
        return [event for run, token in zip(runs, chosen.tolist(), strict=True) for event in self._take(run, token)]

    def _take(self, run: Run, token: int) -> list[Event]:
        request = run.request
        if run.reason is not None:  # another sample of the request has failed
            return []
        if token < 0:
            open_runs = [each for each in request.runs if each.reason is None]
            wrong = f"the logits after {len(request.prompt) + len(run.tokens)} tokens of {request.name}"
            self._fail(request, ValueError(f"{wrong} have NaN, +Inf, or nothing but -Inf"))
            return [Event(request, each.stream, None, "error") for each in open_runs]
        run.tokens.append(token)
        reason = None
        if request.stopping.reached(run.tokens):
            reason = "stop"
        elif len(run.tokens) == request.max_new_tokens:
            reason = "length"
        if reason is not None:
            self._end(run, reason)
        return [Event(request, run.stream, token, reason)]

    def _fail(self, request: Request, error: BaseException) -> None:
        request.error = error
        self._end_all(request, "error")

    def _end_all(self, request: Request, reason: str) -> None:
        if request in self._active:
            for run in request.runs:
                if run.reason is None:
                    self._end(run, reason)
        elif self._queue.withdraw(request):
            for run in request.runs:
                run.reason = reason
            request.end()

    def _end(self, run: Run, reason: str) -> None:
        run.reason = reason
        self._queue.ended(run)
        if all(other.reason is not None for other in run.request.runs):
            self._active.remove(run.request)
            run.request.end()
