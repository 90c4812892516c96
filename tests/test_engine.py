"""`Engine` against each request alone: joining, leaving, waiting, sharing, failing; and what is left in the cache."""

from __future__ import annotations

import doctest
import threading

import numpy as np
import pytest
from decoder_oracle import DRAWN, VOCAB, HashDecoder, alone, same_as_alone
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pykernels.inference import Engine, Sampling, _engine

TOKENS = st.lists(st.integers(0, 2), min_size=1, max_size=9)
SAMPLINGS = st.none() | st.builds(
    Sampling, temperature=st.sampled_from([0.5, 2.0]), top_p=st.sampled_from([None, 0.8]), seed=st.integers(0, 3)
)


class Machine(RuleBasedStateMachine):
    """Requests with few different tokens, so that prefixes are shared in part; the logits after a 10 are broken."""

    @initialize(page_size=st.sampled_from([None, 1, 3]), max_batch=st.integers(2, 5), chunk=st.sampled_from([1, 4, 99]))
    def create(self, page_size, max_batch, chunk):
        self.decoder = HashDecoder(max_length=30, broken={10})
        self.cache = self.decoder.cache(4, 18, page_size=page_size)
        self.engine = Engine(self.decoder, self.cache, max_batch=max_batch, chunk=chunk)
        self.requests, self.prefixes, self.cancelled, self.told = [], [], set(), {}

    @rule(
        prompt=TOKENS,
        new=st.integers(1, 9),
        sampling=SAMPLINGS,
        samples=st.integers(1, 3),
        stop=st.lists(st.integers(0, 9) | st.lists(st.integers(0, 9), min_size=1, max_size=2), max_size=2),
    )
    def submit(self, prompt, new, sampling, samples, stop):
        try:
            request = self.engine.submit(prompt, max_new_tokens=new, sampling=sampling, samples=samples, stop=stop)
        except ValueError as error:
            assert "pages" in str(error) or "max_batch" in str(error)
        else:
            self.requests.append((request, prompt, new, sampling, stop))

    @rule(tokens=TOKENS)
    def prefix(self, tokens):
        try:
            self.prefixes.append(self.engine.prefix(tokens))
        except MemoryError as error:
            assert "the prefix needs" in str(error)

    @precondition(lambda self: self.prefixes)
    @rule(data=st.data())
    def release(self, data):
        data.draw(st.sampled_from(self.prefixes)).release()

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def cancel(self, data):
        request = data.draw(st.sampled_from(self.requests))[0]
        if not request.done:
            self.cancelled.add(request)
        self.engine.cancel(request)
        assert request.done

    @rule()
    def step(self):
        rows = len(self.decoder.calls)
        for event in self.engine.step():
            if event.token is not None:
                self.told.setdefault((event.request, event.sample), []).append(event.token)
        assert all(n <= self.engine._max_batch for n, _ in self.decoder.calls[rows:])

    @invariant()
    def what_came_was_told(self):
        for request, *_ in self.requests:
            for sample, completion in enumerate(request.completions):
                assert completion.tokens.tolist() == self.told.get((request, sample), [])

    def teardown(self):
        while self.engine.busy:
            self.step()
        for request, prompt, new, sampling, stop in self.requests:
            assert request.done
            for stream, completion in enumerate(request.completions):
                self.same(request, completion, prompt, new, sampling, stop, stream)
        for prefix in self.prefixes:
            prefix.release()
        assert self.cache.sequences == [] and self.cache.free_pages == self.cache.num_pages

    def same(self, request, completion, prompt, new, sampling, stop, stream):
        """A sample as it is alone; or the beginning of that, if it was cancelled or failed."""
        tokens = completion.tokens.tolist()
        if completion.reason in ("cancelled", "error"):
            assert (completion.reason == "error") == (request.error is not None) == (request not in self.cancelled)
            if tokens:
                assert alone(self.decoder, prompt, len(tokens), sampling, stop, stream)[0] == tokens
            return
        assert (tokens, completion.reason) == alone(self.decoder, prompt, new, sampling, stop, stream)


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestRandom = Machine.TestCase


def engine_of(pages, page_size=4, **options):
    decoder = HashDecoder(**{k: options.pop(k) for k in ("broken", "fail", "max_length") if k in options})
    cache = decoder.cache(pages, page_size, page_size=page_size)
    return decoder, cache, Engine(decoder, cache, **options)


def test_requests_join_and_leave_between_steps():
    decoder, cache, engine = engine_of(100)
    long = engine.submit([1, 2, 3], max_new_tokens=6)
    engine.step()
    engine.step()
    short = engine.submit([4], max_new_tokens=2, sampling=DRAWN)
    events = [engine.step() for _ in range(4)]
    assert [[event.request for event in step] for step in events] == [[long, short], [long, short], [long], [long]]
    assert [event.reason for event in events[1]] == [None, "length"] and events[3][0].reason == "length"
    assert not engine.busy and engine.step() == [] and cache.free_pages == 100
    same_as_alone(decoder, [1, 2, 3], long.completions, 6)
    same_as_alone(decoder, [4], short.completions, 2, DRAWN)
    assert decoder.calls == [(1, 3), (1, 1), (1, 1), (1, 1), (2, 1), (1, 1), (1, 1)]


def test_long_prompts_come_in_pieces_between_steps_of_others():
    decoder, _, engine = engine_of(100, chunk=8)
    first = engine.submit([1], max_new_tokens=9)
    engine.step()
    second = engine.submit([2] * 20, max_new_tokens=1)
    third = engine.submit([3] * 3, max_new_tokens=1)
    told = [[event.request for event in engine.step()] for _ in range(3)]
    assert told == [[first], [first], [first, second, third]]
    assert [shape for shape in decoder.calls if shape != (1, 1)] == [(1, 8), (1, 8), (1, 4), (1, 3)]


def test_requests_wait_for_pages_and_for_places_in_turn():
    """The second does not fit beside the first, and the third, which would, does not overtake it."""
    decoder, cache, engine = engine_of(5, max_batch=2)
    sizes = [(4, 8), (8, 8), (1, 3)]  # 3, 4 and 1 pages
    requests = [engine.submit([t] * prompt, max_new_tokens=new) for t, (prompt, new) in enumerate(sizes)]
    order = []
    while engine.busy:
        order += [event.request for event in engine.step() if event.reason is not None]
        assert cache.free_pages >= 0
    assert order == [requests[0], requests[2], requests[1]]
    for t, (prompt, new) in enumerate(sizes):
        same_as_alone(decoder, [t] * prompt, requests[t].completions, new)
    batch = [engine.submit([1], max_new_tokens=2) for _ in range(3)]
    assert [len(engine.step()) for _ in range(4)] == [2, 2, 1, 1] and all(request.done for request in batch)


def test_prefixes_are_computed_once_and_shared():
    decoder, cache, engine = engine_of(8)
    system = [1, 2, 3, 4, 5, 6]
    prefix = engine.prefix(system)
    assert decoder.calls == [(1, 6)] and cache.free_pages == 6
    prompts = [[*system, 7], system, [1, 2, 3, 9], [9]]
    requests = [engine.submit(prompt, max_new_tokens=1) for prompt in prompts]
    engine.run()
    assert decoder.calls[1:] == [(1, 1)] * 4
    for prompt, request in zip(prompts, requests, strict=True):
        same_as_alone(decoder, prompt, request.completions, 1)
    needs_sharing = engine.submit([*system, *range(9)], max_new_tokens=12, samples=1)  # 7 pages, one of them shared
    engine.step()
    prefix.release()
    prefix.release()
    assert cache.free_pages > 0 and len(cache.sequences) == 2
    engine.run()
    same_as_alone(decoder, [*system, *range(9)], needs_sharing.completions, 12)
    assert cache.free_pages == 8 and cache.sequences == []


def test_a_prefix_leaves_room_for_what_waits():
    decoder, cache, engine = engine_of(4)
    first = engine.submit([1] * 8, max_new_tokens=4)
    for _ in range(2):  # while it waits, and while it runs but does not have all of its pages yet
        with pytest.raises(MemoryError, match="the prefix needs 2 pages of 4 tokens: 1 are free"):
            engine.prefix([1] * 5)
        engine.step()
    engine.prefix([2] * 4)
    second = engine.submit([3], max_new_tokens=1)
    told = []
    while engine.busy:
        told += [event.request for event in engine.step()]
    assert told == [first, first, second]  # which waited, as the prefix has its page
    with pytest.raises(ValueError, match="prompt needs 4 pages of 4 tokens for 12 tokens and 1 x max_new_tokens=4"):
        engine.submit([1] * 12, max_new_tokens=4)
    with pytest.raises(ValueError, match="tokens has 17: expected at most 16, as the model and the cache can hold"):
        engine.prefix([1] * 17)
    decoder.fail = len(decoder.calls) + 1
    with pytest.raises(RuntimeError):
        engine.prefix([1] * 3)
    assert cache.free_pages == 3
    engine.close()
    assert cache.free_pages == 4 and cache.sequences == []


def test_logits_that_give_no_probabilities_end_one_request_only():
    decoder, cache, engine = engine_of(50, broken={5})
    good, bad = engine.submit([1, 2], max_new_tokens=1), engine.submit([5], max_new_tokens=3, samples=2)
    events = engine.step()
    assert [(event.request, event.sample, event.token, event.reason) for event in events[1:]] == [
        (bad, 0, None, "error"),
        (bad, 1, None, "error"),
    ]
    assert bad.done and isinstance(bad.error, ValueError) and "after 1 tokens of prompt" in str(bad.error)
    same_as_alone(decoder, [1, 2], good.completions, 1)
    assert cache.free_pages == 50


def test_a_decoder_that_raises_ends_what_runs():
    decoder, cache, engine = engine_of(9, fail=4)
    running = [engine.submit([t], max_new_tokens=7) for t in range(2)]
    waiting = engine.submit([1] * 20, max_new_tokens=16)
    engine.step()
    with pytest.raises(RuntimeError, match="the decoder failed"):
        engine.run()
    for request in running:
        assert request.done and request.error is not None and request.completions[0].reason == "error"
    assert cache.free_pages == 9 and not waiting.done
    engine.run()
    same_as_alone(decoder, [1] * 20, waiting.completions, 16)


def test_cancelled_requests_keep_what_they_have():
    _, cache, engine = engine_of(6)
    running = engine.submit([1], max_new_tokens=9, samples=2, sampling=DRAWN)
    waiting = engine.submit([2], max_new_tokens=9)
    engine.step()
    for request in (running, waiting, running):
        engine.cancel(request)
    assert [len(each.tokens) for each in running.completions] == [1, 1] and len(waiting.completions[0].tokens) == 0
    assert {each.reason for each in running.completions + waiting.completions} == {"cancelled"}
    assert not engine.busy and cache.free_pages == 6 and running.wait(0)


def test_threads_submit_while_one_steps():
    decoder, cache, engine = engine_of(40, max_batch=5, chunk=3)
    results, stop = [], threading.Event()

    def serve():
        while not (stop.is_set() and not engine.busy):
            engine.step()

    def ask(seed):
        rng = np.random.default_rng(seed)
        for _ in range(6):
            prompt, new = rng.integers(VOCAB, size=rng.integers(1, 9)).tolist(), int(rng.integers(1, 9))
            request = engine.submit(prompt, max_new_tokens=new, sampling=Sampling(seed=seed))
            assert request.wait(60)
            results.append((prompt, request.completions, new, Sampling(seed=seed)))

    server, clients = threading.Thread(target=serve), [threading.Thread(target=ask, args=(n,)) for n in range(6)]
    for thread in (server, *clients):
        thread.start()
    for thread in clients:
        thread.join()
    stop.set()
    server.join()
    assert len(results) == 36 and cache.free_pages == 40
    for prompt, completions, new, sampling in results:
        same_as_alone(decoder, prompt, completions, new, sampling)


def test_doctests():
    done = doctest.testmod(_engine)
    assert done.attempted and not done.failed
