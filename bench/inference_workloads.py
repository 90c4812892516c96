"""Workloads of the benchmarks of inference: decoding a token at a time, prefill, few heads of keys, and planning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pykernels.bench import inference_data as data
from pykernels.bench import inference_peers as peers
from pykernels.bench.attention_data import SHORT, normal
from pykernels.bench.attention_peers import PRODUCT, product_alone
from pykernels.bench.harness import MAX_ROUNDS, MIN_ROUNDS, OURS, Call, Disagreement, Group, Workload
from pykernels.inference import Config, Decoder, plan

Array = np.ndarray[Any, Any]

BFLOAT16, MANY = f"{OURS} bf16", f"{OURS} multi-head"
ROOM = MAX_ROUNDS + 27
"""Tokens that may be generated after a context: as many as are measured, and some to warm up."""

TOLERANCE = {"float32": 2e-5, "bfloat16": 4e-2}
"""Root mean square of the error of logits over that of the logits, by the dtype of activations."""

DTYPE = {
    peers.EAGER: "bfloat16",
    peers.COMPILED: "bfloat16",
    peers.FP32: "float32",
    peers.COMPILED_FP32: "float32",
}


def decoding(config: Config, weights: str, context: int, peer_names: Sequence[str], rounds: int = MIN_ROUNDS) -> Group:
    """One sequence, a token a call, each the most probable after the one before."""
    size = data.weight_bytes(config, weights) + data.cache_bytes(config, context, _activations(weights))

    def build() -> Workload:
        given = data.tokens(config, context + 1)
        ours = _ours(config, weights, peer_names)
        steps = {name: _steps(decoder, given[:-1]) for name, decoder in ours.items()}
        for name in _here(peer_names):
            model = _theirs(config, weights, ours[OURS], name)
            steps[name] = peers.steps(model, given[:-1], ROOM, compiled=name in peers.BY_COMPILER)
        calls = {name: _generation(step, int(given[-1])) for name, step in steps.items()}
        verify = _verifier(config, weights, ours[OURS], given)
        return Workload(calls, verify, _missing(peer_names), "fresh")

    case = f"{data.described(config)}, batch 1, context {context}"
    operation = f"decode, {SHORT[weights]} weights"
    providers = OURS, *peer_names
    return Group(operation, case, providers, build, config.parameters, size, "read", least_rounds=rounds)


def prefilling(config: Config, weights: str, length: int, peer_names: Sequence[str], rounds: int = MIN_ROUNDS) -> Group:
    """All tokens of one sequence at once, and the logits of the last."""
    operations = data.flops(config, length)

    def build() -> Workload:
        given = data.tokens(config, length)
        ours = _ours(config, weights, peer_names)
        calls = {name: _prefill(decoder, given) for name, decoder in ours.items()}
        for name in _here(peer_names):
            calls[name] = peers.prefill(_theirs(config, weights, ours[OURS], name), given)
        verify = _verifier(config, weights, ours[OURS], given)
        limits = product_alone(_activations(weights), operations)
        return Workload(calls, verify, _missing(peer_names), "fresh", limits)

    case = f"{data.described(config)}, {config.layers} layers, {length} tokens"
    size = data.weight_bytes(config, weights)
    operation = f"prefill, {SHORT[weights]} weights"
    providers = OURS, *peer_names
    return Group(operation, case, providers, build, length, size, PRODUCT, operations, least_rounds=rounds)


def sharing_keys(config: Config, batch: int, context: int, rounds: int = MIN_ROUNDS) -> Group:
    """Decoding with one head of keys beside as many as of queries, and the same number of parameters."""
    configs = {OURS: data.one_head(config), MANY: config}
    sizes = {
        name: data.weight_bytes(each, "bfloat16") + data.cache_bytes(each, batch * context, "bfloat16")
        for name, each in configs.items()
    }

    def build() -> Workload:
        calls, exact = {}, {}
        given = data.tokens(config, batch)
        for name, each in configs.items():
            decoder = Decoder.random(each, dtype="bfloat16")
            past = [_random_past(each, context, layer) for layer in range(each.layers)]
            calls[name] = _together(decoder, past, given)
            exact[name] = data.logits(decoder, given[-1:], past)
        return Workload(calls, lambda name, found: near(found[-1], exact[name], "bfloat16"), allocation="fresh")

    layers = f"{data.described(config)}, {config.layers} layers"
    case = f"{layers}, B={batch}, S={context}: {sizes[MANY] / sizes[OURS]:.2f} times the bytes"
    return Group(
        "multi-query beside multi-head", case, (OURS, MANY), build, context, sizes[OURS], "read", least_rounds=rounds
    )


def planning(model: str, chips: int, batches: Sequence[int], rounds: int = MIN_ROUNDS) -> Group:
    """Every layout on every torus, for each batch, of decode and of prefill."""

    def run() -> list[list[plan.Result]]:
        return [
            plan.plan(model, "tpu-v4", chips, batch=batch, context=2048, phase=phase, weights="int8", every_torus=True)
            for phase in ("decode", "prefill")
            for batch in batches
        ]

    def verify(provider: str, found: list[list[plan.Result]]) -> None:
        """No bound is below that of reading all weights once, and of two operations for each and each token."""
        chip, named = plan.Chip.named("tpu-v4"), plan.Model.named(model)
        for results in found:
            work, batch = results[0].work, results[0].batch
            tokens = batch * (work.context if work.phase == "prefill" else 1)
            read = named.multiplied / (chips * chip.bandwidth)
            least = max(read, 2 * named.multiplied * tokens / (chips * chip.bf16))
            fastest = min(result.seconds for result in results if result.fits)
            if not results[0].seconds == fastest >= 0.999 * least:
                raise Disagreement(f"{work.phase} of {batch} in {results[0].seconds:.3g} s, not {least:.3g} or more")

    case = f"{model}, {chips} chips, {2 * len(batches)} phases and batches"

    def build() -> Workload:
        return Workload({OURS: run}, verify, allocation="fresh")

    return Group("plan", case, (OURS,), build, chips, 0, None, least_rounds=rounds)


def _ours(config: Config, weights: str, peer_names: Sequence[str]) -> dict[str, Decoder]:
    """Ours, and beside it that of bfloat16 if it is a peer."""
    beside = {BFLOAT16: "bfloat16"} if BFLOAT16 in peer_names else {}
    return {name: data.decoder(config, each) for name, each in ({OURS: weights} | beside).items()}


def _theirs(config: Config, weights: str, ours: Decoder, name: str) -> Any:
    """A model of transformers, in the memory of ours if `weights` are of its dtype."""
    return peers.model(ours if weights == DTYPE[name] else data.half(config), DTYPE[name])


def _steps(decoder: Decoder, context: Array) -> peers.Step:
    cache = decoder.cache(1, len(context) + ROOM)
    sequence = cache.new()
    decoder(context[None], cache, [sequence], last_only=True)

    def step(token: int) -> Array:
        found: Array = decoder(np.array([[token]]), cache, [sequence], last_only=True)[0]
        return found

    return step


def _generation(step: peers.Step, first: int) -> Call:
    """Greedy decoding, a token a call."""
    token = first

    def run() -> Array:
        nonlocal token
        logits = step(token)
        token = int(logits.argmax())
        return logits

    return run


def _prefill(decoder: Decoder, given: Array) -> Call:
    cache = decoder.cache(1, len(given))

    def run() -> Array:
        sequence = cache.new()
        found: Array = decoder(given[None], cache, [sequence], last_only=True)[0]
        cache.free(sequence)
        return found

    return run


def _together(decoder: Decoder, past: data.Past, given: Array) -> Call:
    """A step of as many sequences as tokens, each after the same past."""
    batch, context = len(given), past[0][0].shape[1]
    cache = decoder.cache(batch, context + ROOM)
    sequences = [cache.new() for _ in range(batch)]
    grown = cache.grow(sequences, context)
    for layer, parts in enumerate(past):
        cache.write(grown, layer, *(np.broadcast_to(x, (batch, *x.shape)) for x in parts))
    return lambda: decoder(given[:, None], cache, sequences, last_only=True)


def _random_past(config: Config, context: int, layer: int) -> tuple[Array, Array]:
    shape = config.kv_heads, context, config.head_dim
    return normal(shape, "bfloat16", 2 * layer), normal(shape, "bfloat16", 2 * layer + 1)


def _verifier(config: Config, weights: str, ours: Decoder, given: Array) -> Callable[[str, Any], None]:
    """Compares with float32: ours with its own weights, as they are quantized, the others with those before."""
    exact = data.half_logits(config, len(given))
    own = exact if weights in TOLERANCE else data.logits(ours, given)

    def verify(provider: str, found: Any) -> None:
        if provider == OURS:
            near(found, own, _activations(weights))
        else:
            near(found, exact, DTYPE.get(provider, "bfloat16"))

    return verify


def _activations(weights: str) -> str:
    return weights if weights in TOLERANCE else "bfloat16"


def near(found: Array, expected: Array, dtype: str) -> None:
    """Raise `Disagreement` unless logits are as close as their dtype allows."""
    error = float(np.sqrt(((found - expected) ** 2).mean() / (expected**2).mean()))
    if not error <= TOLERANCE[dtype]:
        raise Disagreement(f"the logits differ from plain float32 by {error:.2g}, more than {TOLERANCE[dtype]:.2g}")


def _here(names: Sequence[str]) -> list[str]:
    return [name for name in names if name in DTYPE and name not in peers.absent()]


def _missing(names: Sequence[str]) -> dict[str, str]:
    return {name: reason for name, reason in peers.absent().items() if name in names}
