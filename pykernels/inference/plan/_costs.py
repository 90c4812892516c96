"""What a pass through the model costs on every chip: FLOPs, bytes read, bytes exchanged, bytes held."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from . import volumes
from ._dtypes import ACTIVATION_BYTES, nbytes
from ._model import Model
from ._slice import Slice

_MOVED_BYTES = {"activation": ACTIVATION_BYTES, "statistic": 4}


@dataclass(frozen=True)
class Work:
    """What is asked for: the phase, tokens, and types of numbers.

    Prefill is one pass over ``context - cached`` tokens of each sequence. Decode is `new_tokens` passes over one token
    of each, on top of `context` tokens in the cache.
    """

    phase: str
    context: int
    new_tokens: int = 1
    cached: int = 0
    weights: str = "bf16"
    cache: str = "bf16"
    compute: str = "bf16"

    @property
    def length(self) -> int:
        """Tokens of each sequence in one pass."""
        return self.context - self.cached if self.phase == "prefill" else 1

    @property
    def held(self) -> int:
        """Tokens of each sequence in the cache at the end."""
        return self.context if self.phase == "prefill" else self.context + self.new_tokens


class Held(NamedTuple):
    """Bytes in the memory of each chip; arrays over batches.

    The cache is `cache_token` for every token that a layer keeps of each sequence, activations are `activation_token`
    for every token of each sequence in a pass.
    """

    weights: Any
    cache: Any
    activations: Any
    cache_token: Any
    activation_token: Any

    @property
    def total(self) -> Any:
        return self.weights + self.cache + self.activations


class Costs(NamedTuple):
    """Of one pass on each chip; arrays over batches.

    `flops` and `weight_bytes` are of the products with weights, `attention_flops` and `cache_bytes` of attention;
    `wire_seconds` and `hop_seconds` are of communication.
    """

    flops: Any
    weight_bytes: Any
    attention_flops: Any
    cache_bytes: Any
    wire_seconds: Any
    hop_seconds: Any


@dataclass(frozen=True)
class Partition:
    """A model laid out on a slice: feedforward layout, attention over heads or batch (`volumes` has the names)."""

    model: Model
    slice: Slice
    layout: str
    attention: str

    @cached_property
    def padded(self) -> volumes.Padded:
        return volumes.padded(self.model.shapes, self.slice.shape, self.attention)

    @cached_property
    def split(self) -> tuple[int, int, int]:
        """Chips that share a gather of weights, that split E and that split F: N, e and f, with n = N e f."""
        gathered, contracted, spread = (self.slice.size(axes) for axes in volumes.LAYOUTS[self.layout])
        return gathered, contracted, spread

    @cached_property
    def block_weights(self) -> int:
        """Weights of one padded block: ``E (2 (query + key columns) + 3 F)``, or 2 F if not gated."""
        sizes = self.padded
        feedforward = (2 + self.model.gated) * sizes.hidden
        return sizes.width * (2 * (sizes.query_columns + sizes.key_columns) + feedforward)

    @cached_property
    def head_weights(self) -> int:
        """The output matrix, its vocabulary padded to a multiple of the chips."""
        return -(-self.model.vocab // self.slice.chips) * self.slice.chips * self.padded.width

    def costs(self, work: Work, batch: Any) -> Costs:
        """FLOPs, bytes and seconds of one pass, for integers `batch`."""
        rows = volumes.sequences(self.layout, self.attention, self.slice.shape, batch)
        return Costs(
            *self.products(work, rows * work.length), *self.attend(work, batch, rows), *self.communication(work, batch)
        )

    def held(self, work: Work, batch: Any) -> Held:
        """Bytes in memory at the end of a prefill or decode, for integers `batch`."""
        cache_token = self.cache_token(work, batch)
        rows = volumes.sequences(self.layout, self.attention, self.slice.shape, batch)
        activation_token = rows * self.activation_token()
        cache, activations = cache_token * self.model.kept(work.held), activation_token * work.length
        return Held(self.held_weights(work), cache, activations, cache_token, activation_token)

    def products(self, work: Work, tokens: Any) -> tuple[Any, float]:
        """FLOPs, and bytes of weights read, of one pass over `tokens` on each chip.

        2 FLOPs a token and weight (section 2 of the paper), of the blocks and the output matrix; the latter for every
        token, as in the ``2 N`` that the model FLOPS utilisation is measured by. A chip has ``N / n`` of the weights in
        use, on 1 / N of the tokens. It reads all weights in use once; activations are taken to stay on the chip.
        """
        share = self.split[0] / self.slice.chips
        weights = self.model.layers * self.block_weights + self.head_weights
        return 2 * weights * share * tokens, weights * share * nbytes(work.weights)

    def attend(self, work: Work, batch: Any, rows: Any) -> tuple[Any, Any]:
        """FLOPs, and bytes of keys and values read, of attention in one pass.

        ``4 d`` FLOPs a query head, query and key (two products of length d). Queries of a prefill see the keys up to
        their own and within the window; those of a decode, on average over the new tokens, the cache. Every key and
        value is read once (section 3.3: the memory time that sharding over the batch divides by n).
        """
        chips, model = self.slice.chips, self.model
        if self.attention == "batch":
            heads = model.laid_heads * -(-batch // chips)
        else:
            heads = self.padded.heads * self.split[0] // chips * rows
        pairs, read = _pairs(model, work)
        return 4 * model.head_dim * heads * pairs, self.cache_token(work, batch) * read

    def cache_token(self, work: Work, batch: Any) -> Any:
        """Bytes that one token of each sequence takes in the cache of one layer, on each chip (section 3.3)."""
        elements = volumes.cache_elements(
            self.model.shapes, self.layout, self.attention, self.slice.shape, batch, context=1
        )
        return elements * nbytes(work.cache)

    def communication(self, work: Work, batch: Any) -> tuple[Any, float]:
        """Seconds that the bytes and the hops of one pass take, all layers.

        A collective of K chips moves D (K - 1) / K bytes in and out of each, D those of its unsplit side (appendix
        A.1), at the bandwidth of its axes; an all-reduce twice. `volumes.collectives` has them; the embedding and the
        logits, once a pass, are left out.
        """
        wire, hops = 0.0, 0.0
        for each in volumes.collectives(
            self.model.shapes, self.layout, self.attention, self.slice.shape, batch, work.length
        ):
            size = nbytes(work.weights) if each.moves == "weight" else _MOVED_BYTES[each.moves]
            wire = wire + each.moved * (size / self.slice.rate(each.axes))
            hops += self.slice.hops(each.axes) * (2 if each.kind == "all_reduce" else 1)
        return self.model.layers * wire, self.model.layers * hops * self.slice.latency

    def held_weights(self, work: Work) -> float:
        """Bytes of weights on each chip: 1 / n of all, and of weights gathered just in time, one matrix E x F."""
        chips, layers = self.slice.chips, self.model.layers
        products = layers * self.block_weights + self.head_weights * (1 if self.model.tied else 2)
        gathered = self.padded.width * self.padded.hidden * self.split[0] if self.split[0] > 1 else 0
        others = self.model.other_parameters * ACTIVATION_BYTES
        return ((products + gathered) * nbytes(work.weights) + others) / chips

    def activation_token(self) -> float:
        """Bytes of the activations of one token where a block is widest, all sequences of a pass at once.

        The residual, E / e of the gathered input, and the results of the first products before they are summed.
        """
        sizes, (_, e, f) = self.padded, self.split
        up = (1 + self.model.gated) * sizes.hidden
        columns = sizes.query_columns + 2 * sizes.key_columns
        widest = columns + up if self.model.parallel else max(columns, up)
        return ACTIVATION_BYTES * (sizes.width / (e * f) + sizes.width / e + widest / f)


def _pairs(model: Model, work: Work) -> tuple[float, float]:
    """Query-key pairs of one head, and cached tokens read, of one sequence in one pass, all layers."""
    full, windows = model.layers - model.windows, model.windows
    if work.phase == "prefill":
        window = model.window or work.context
        pairs = full * _seen(work.cached, work.context, work.context)
        return pairs + windows * _seen(work.cached, work.context, window), model.kept(work.context)
    last = work.context + work.new_tokens - 1
    window = model.window or last
    total = full * (_seen(work.context - 1, last, last))
    total += windows * (_seen(work.context - 1, last, window))
    return total / work.new_tokens, total / work.new_tokens


def _seen(first: int, last: int, window: int) -> int:
    """Sum of ``min(i, window)`` for i from `first` + 1 to `last`."""

    def upto(i: int) -> int:
        short = min(i, window)
        return short * (short + 1) // 2 + (i - short) * window

    return upto(last) - upto(first)
