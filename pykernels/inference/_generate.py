"""generate and stream."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any

from .. import _options
from ..attention import KVCache
from ._engine import Engine
from ._queue import share
from ._request import Completion, Request
from ._sampling import Sampling
from ._stopping import Stopping

PAGE_SIZE = 64


def generate(
    decoder: Any,
    prompts: Sequence[Any],
    *,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    stop: Iterable[Any] = (),
    samples: int = 1,
    logprobs: bool = False,
    cache: KVCache | None = None,
    max_batch: int = 64,
    on_token: Callable[[int, int], object] | None = None,
) -> list[Completion]:
    """Continue prompts of any lengths.

    A sample's tokens do not depend on the other prompts (see `Engine`), and prompt and tokens that are given again as
    a prompt are continued alike.

    Parameters
    ----------
    decoder : a `Decoder`
    prompts : vectors of token ids, each with at least one
    max_new_tokens : how many tokens to generate for each sample at most, at least 1
    sampling : a `Sampling`; None takes the most probable tokens
    stop : token ids and sequences of token ids; a sample ends after any of them, found in what it generated
    samples : how many continuations of each prompt to draw, each its own stream of draws. Each prompt is computed once,
        and its pages are shared
    logprobs : whether to return the logarithms of the probabilities of the tokens
    cache : an empty `KVCache` of the decoder; None makes a paged one, in which `max_batch` samples fit.
        Prompts wait until there is room, in order; the cache is empty again at the end, and after an error
    max_batch : how many samples are decoded at once at most
    on_token : called with the number of a result and its next token, as they come

    Returns
    -------
    a `Completion` of each sample: sample j of prompt i is number ``i * samples + j``

    Raises
    ------
    TypeError and ValueError that name the argument, such as ``prompts[2]``, before anything runs: also for prompts
    whose tokens and `max_new_tokens` together are more than the model or the cache can hold. ValueError if the model
    gives logits with NaN or +Inf, or nothing but -Inf.

    Examples
    --------
    >>> from pykernels.inference import Config, Decoder, Sampling, generate
    >>> config = Config(vocab=50, layers=2, width=32, hidden=64, heads=4, kv_heads=1, head_dim=8)
    >>> decoder = Decoder.random(config)
    >>> greedy = generate(decoder, [[1, 2, 3], [4]], max_new_tokens=4)
    >>> [(len(each.tokens), each.reason) for each in greedy]
    [(4, 'length'), (4, 'length')]
    >>> stop = greedy[1].tokens[:2].tolist()  # a sequence of two tokens
    >>> len(generate(decoder, [[4]], max_new_tokens=4, stop=[stop])[0].tokens)
    2
    >>> len(generate(decoder, [[4]], max_new_tokens=4, sampling=Sampling(top_p=0.9, seed=7), samples=3))
    3
    """
    requests, events = _started(
        decoder,
        prompts,
        cache,
        max_batch,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        stop=stop,
        samples=samples,
        logprobs=logprobs,
    )
    with closing(events):
        for number, token in events:
            if on_token is not None:
                on_token(number, token)
    return [completion for request in requests for completion in request.completions]


def stream(
    decoder: Any,
    prompts: Sequence[Any],
    *,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    stop: Iterable[Any] = (),
    samples: int = 1,
    cache: KVCache | None = None,
    max_batch: int = 64,
) -> Iterator[tuple[int, int]]:
    """As `generate`, an iterator of pairs: the number of a result, and its next token.

    Arguments are checked at once; the decoder runs as the iterator is advanced. The cache is empty again when it ends
    or is closed.

    Examples
    --------
    >>> from pykernels.inference import Config, Decoder, stream
    >>> config = Config(vocab=50, layers=2, width=32, hidden=64, heads=4, kv_heads=1, head_dim=8)
    >>> for number, token in stream(Decoder.random(config), [[1, 2, 3], [4]], max_new_tokens=2):
    ...     print(number, 0 <= token < 50)
    0 True
    1 True
    0 True
    1 True
    """
    return _started(
        decoder,
        prompts,
        cache,
        max_batch,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        stop=stop,
        samples=samples,
        logprobs=False,
    )[1]


def _started(
    decoder: Any, prompts: Sequence[Any], cache: KVCache | None, max_batch: int, *, stop: Iterable[Any], **options: Any
) -> tuple[list[Request], Generator[tuple[int, int], None, None]]:
    """Requests that are queued, and an iterator that runs them: of numbers of results, and tokens."""
    stopping = Stopping(stop, decoder.config.vocab)
    _options.integer("samples", options["samples"], 1)
    requests = [
        Request(f"prompts[{i}]", prompt, decoder.config, stop=stopping, **options) for i, prompt in enumerate(prompts)
    ]
    if cache is None:
        _options.integer("max_batch", max_batch, 1)
        needs = sorted(common + each.samples * own for each in requests for common, own in [share(each, 0, PAGE_SIZE)])
        together = max(max_batch // options["samples"], 1)
        cache = decoder.cache(max(sum(needs[-together:]), 1), PAGE_SIZE, page_size=PAGE_SIZE)
    engine = Engine(decoder, cache, max_batch=max_batch)
    for request in requests:
        engine.enqueue(request)
    return requests, _tokens(engine, requests)


def _tokens(engine: Engine, requests: list[Request]) -> Generator[tuple[int, int], None, None]:
    first = {request: i * request.samples for i, request in enumerate(requests)}
    with engine:
        while engine.busy:
            for event in engine.step():
                if event.request.error is not None:
                    raise event.request.error
                if event.token is not None:
                    yield first[event.request] + event.sample, event.token
