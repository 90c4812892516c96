"""Requests that wait for an engine, and the pages of its cache that are promised."""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

import numpy as np

from ._request import Request, Run

Array = np.ndarray[Any, Any]


class Prefix:
    """Tokens whose keys and values an engine keeps for the prompts that begin with them; made by `Engine.prefix`.

    Attributes
    ----------
    tokens : int64 (L,)
    """

    def __init__(self, queue: Queue, tokens: Array, sequence: int, pages: int) -> None:
        self.tokens, self.sequence, self.pages = tokens, sequence, pages
        self.users = 0
        self._queue = queue

    def release(self) -> None:
        """Have no further request use this; its pages are free when those that do have ended."""
        self._queue.release(self)


def pages(tokens: int, page_size: int) -> int:
    return -(-tokens // page_size)


def share(request: Request, shared: int, page_size: int) -> tuple[int, int]:
    """The most pages that all samples of a request have in common, and that each has for itself.

    `shared` tokens of the prompt are in a sequence that others have too. Of a page that is partly filled every
    sequence takes a copy, except perhaps one.
    """
    whole = len(request.prompt) // page_size
    return whole - shared // page_size, pages(request.length, page_size) - whole


class Queue:
    """First come, first served: a request is admitted when all pages that it may ever need are there.

    So what is running never lacks a page. A request that waits for pages is not overtaken.
    """

    def __init__(self, cache: Any) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._waiting: deque[Request] = deque()
        self._prefixes: list[Prefix] = []
        self._of: dict[Request, tuple[Prefix | None, int, int]] = {}
        """Of a request that waits or runs, the prefix that it shares, and its pages: in common, and of each sample."""
        self._promised = 0
        self._held = 0
        """Pages of prefixes, and of released ones that requests still share."""

    def __len__(self) -> int:
        """How many requests wait or run."""
        return len(self._of)

    def waiting(self) -> list[Request]:
        with self._lock:
            return list(self._waiting)

    def add(self, request: Request) -> None:
        """Append a request; ValueError if it could never run."""
        size = self._cache.page_size
        with self._lock:
            prefix, shared = self._best(request.prompt)
            common, own = share(request, shared, size)
            room = self._cache.num_pages - self._held
            if common + request.samples * own > room:
                raise ValueError(
                    f"{request.name} needs {common + request.samples * own} pages of {size} tokens for "
                    f"{len(request.prompt)} tokens and {request.samples} x max_new_tokens={request.max_new_tokens}: "
                    f"the cache has {room}"
                )
            if prefix is not None:
                prefix.users += 1
            request.fed = shared
            self._of[request] = prefix, common, own
            self._waiting.append(request)

    def admit(self, slots: int) -> list[Request]:
        """The requests that may begin, of at most so many samples; their pages are promised."""
        admitted = []
        with self._lock:
            while self._waiting:
                request = self._waiting[0]
                needed = self._needed(request)
                if request.samples > slots or self._promised + self._held + needed > self._cache.num_pages:
                    break
                self._promised += needed
                slots -= request.samples
                admitted.append(self._waiting.popleft())
        return admitted

    def begin(self, request: Request) -> int:
        """A sequence that has the first `request.fed` tokens of the prompt."""
        prefix = self._of[request][0]
        if prefix is None:
            return int(self._cache.new())
        sequence = int(self._cache.fork(prefix.sequence))
        self._cache.truncate(sequence, request.fed)
        return sequence

    def withdraw(self, request: Request) -> bool:
        """Take a request out of those that wait, if it does."""
        with self._lock:
            if request not in self._waiting:
                return False
            self._waiting.remove(request)
            self._leave(request)
            return True

    def ended(self, run: Run) -> None:
        """A sample of an admitted request has ended: free its sequence and its promise."""
        request = run.request
        if run.sequence is not None:
            self._cache.free(run.sequence)
            run.sequence = None
        with self._lock:
            _, common, own = self._of[request]
            self._promised -= own
            if all(other.reason is not None for other in request.runs):
                self._promised -= common
                self._leave(request)

    def promise_prefix(self, needed: int) -> None:
        """Set pages aside for a prefix; MemoryError if what runs, or the largest request that waits, needs them."""
        with self._lock:
            largest = max((self._needed(request) for request in self._waiting), default=0)
            room = self._cache.num_pages - self._held - max(self._promised, largest)
            if needed > room:
                raise MemoryError(f"the prefix needs {needed} pages of {self._cache.page_size} tokens: {room} are free")
            self._held += needed

    def break_promise(self, needed: int) -> None:
        with self._lock:
            self._held -= needed

    def register(self, prefix: Prefix) -> None:
        with self._lock:
            self._prefixes.append(prefix)

    def release(self, prefix: Prefix) -> None:
        with self._lock:
            if prefix in self._prefixes:
                self._prefixes.remove(prefix)
                self._drop_unused(prefix)

    def release_all(self) -> None:
        for prefix in list(self._prefixes):
            self.release(prefix)

    def _best(self, prompt: Array) -> tuple[Prefix | None, int]:
        """The prefix that has most of a prompt, whose last token is always left to be computed; and how much."""
        best, most = None, 0
        for prefix in self._prefixes:
            n = min(len(prefix.tokens), len(prompt) - 1)
            other = np.flatnonzero(prefix.tokens[:n] != prompt[:n])
            n = int(other[0]) if len(other) else n
            if n > most:
                best, most = prefix, n
        return best, most

    def _needed(self, request: Request) -> int:
        _, common, own = self._of[request]
        return common + request.samples * own

    def _leave(self, request: Request) -> None:
        prefix = self._of.pop(request)[0]
        if prefix is not None:
            prefix.users -= 1
            if prefix not in self._prefixes:
                self._drop_unused(prefix)

    def _drop_unused(self, prefix: Prefix) -> None:
        if prefix.users == 0:
            self._cache.free(prefix.sequence)
            self._held -= prefix.pages
