"""Request, Completion and Event: what is asked of an engine, and what it answers."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from .. import _options
from ._sampling import Sampling
from ._stopping import Stopping, token_ids

Array = np.ndarray[Any, Any]

GREEDY = Sampling(temperature=0)


class Completion(NamedTuple):
    """What one sample of a request has become.

    Attributes
    ----------
    tokens : int64 (n,), all that were generated; a stop sequence that was met is at their end
    reason : why no more come: "stop", "length" (there are `max_new_tokens`), "cancelled" or "error"; None if more do
    logprobs : None, or float64 (n,), natural logarithms of the probabilities that the model gave to the tokens
    """

    tokens: Array
    reason: str | None
    logprobs: Array | None


class Event(NamedTuple):
    """One token of one sample of a request; `reason` is why it is the last, or None. On "error", `token` is None."""

    request: Request
    sample: int
    token: int | None
    reason: str | None


class Run:
    """One sample of a request: what it has generated, and its sequence in the cache, if it has one."""

    __slots__ = ("logprobs", "reason", "request", "sequence", "stream", "tokens")

    def __init__(self, request: Request, stream: int) -> None:
        self.request, self.stream = request, stream
        self.tokens: list[int] = []
        self.logprobs: list[float] = []
        self.reason: str | None = None
        self.sequence: int | None = None

    @property
    def decoding(self) -> bool:
        return bool(self.tokens) and self.reason is None

    def completion(self) -> Completion:
        reason, tokens = self.reason, np.array(self.tokens, np.int64)
        logprobs = np.array(self.logprobs[: len(tokens)], np.float64)  # a step in progress may have added one
        return Completion(tokens, reason, logprobs if self.request.wants_logprobs else None)


class Request:
    """A prompt that is to be continued; made by `Engine.submit`.

    Attributes
    ----------
    prompt : int64 (P,)
    sampling, max_new_tokens, samples : as submitted
    done : whether all samples have ended
    error : None, or what ended the request
    completions : for each sample what it has so far; may be read at any time, from any thread
    """

    def __init__(
        self,
        name: str,
        prompt: Any,
        config: Any,
        *,
        max_new_tokens: int,
        sampling: Sampling | None,
        stop: Iterable[Any] | Stopping,
        samples: int,
        logprobs: bool,
    ) -> None:
        """`name` is what errors call the prompt."""
        if not isinstance(sampling, Sampling | None):
            raise TypeError(f"sampling is a {type(sampling).__name__}: expected Sampling, or None for greedy")
        self.name = name
        self.prompt = token_ids(name, prompt, config.vocab)
        self.sampling = GREEDY if sampling is None else sampling
        self.max_new_tokens = _options.integer("max_new_tokens", max_new_tokens, 1)
        self.samples = _options.integer("samples", samples, 1)
        self.wants_logprobs = bool(logprobs)
        self.stopping = stop if isinstance(stop, Stopping) else Stopping(stop, config.vocab)
        self.length = len(self.prompt) + self.max_new_tokens
        """How many tokens each sample may have, those of the prompt included."""
        self.check_length(config.max_length, "the model has positions for")
        self.runs = [Run(self, stream) for stream in range(self.samples)]
        self.fed = 0
        """How many tokens of the prompt are in the cache."""
        self.error: BaseException | None = None
        self._ended = threading.Event()

    def check_length(self, longest: int, why: str) -> None:
        if self.length > longest:
            raise ValueError(
                f"{self.name} has {len(self.prompt)} tokens and max_new_tokens={self.max_new_tokens}: "
                f"expected at most {longest} together, which {why}"
            )

    @property
    def done(self) -> bool:
        return self._ended.is_set()

    @property
    def completions(self) -> list[Completion]:
        return [run.completion() for run in self.runs]

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until another thread's steps have ended this, or for `timeout` seconds; return `done`."""
        return self._ended.wait(timeout)

    def end(self) -> None:
        self._ended.set()
