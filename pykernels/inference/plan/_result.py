"""Result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._chip import Chip
from ._costs import Costs, Held, Partition, Work
from ._efficiency import Efficiency, cost, times, utilisation
from ._model import Model

_REPORTED = (
    *("layout", "attention", "batch", "seconds", "total_seconds", "mfu", "cost"),
    *("compute_seconds", "memory_seconds", "communication_seconds", "limit", "fits", "longest_context", "overlap"),
)


@dataclass(frozen=True)
class Result:
    """One way to run one phase on some chips, and what it takes at least; of `plan`.

    Attributes
    ----------
    model, chip, chips, torus, layout, attention, batch, phase, context, weights, cache : what it is of
    seconds : of the prefill, or of one step of the decode (a token of every sequence)
    total_seconds : of all the steps of the decode; of a prefill, `seconds`
    mfu : model FLOPS utilisation, ``2 N tokens / (n peak t)``; N without padding
    cost : chip-seconds a token
    compute_seconds, memory_seconds : of the parts that FLOPs limit and of those that memory does
    communication_seconds : of all collectives, before any overlap
    limit : the largest of the three: "compute", "memory" or "communication"
    held, bytes : in the memory of each chip: weights, cache and activations, and their sum
    fits : whether that is at most the chip's memory
    longest_context : the most tokens of each sequence with which it fits, 0 if none; None if windows bound the cache
    efficiency, overlap : that were assumed
    notes : what was padded, and other assumptions
    """

    partition: Partition
    work: Work
    chip: Chip
    batch: int
    efficiency: Efficiency
    overlap: float
    costs: Costs
    held: Held
    seconds: float
    mfu: float
    cost: float
    compute_seconds: float
    memory_seconds: float
    communication_seconds: float
    longest_context: int | None

    @staticmethod
    def of(partition: Partition, work: Work, chip: Chip, batch: int, efficiency: Efficiency, overlap: float) -> Result:
        """Evaluate one partition at one batch."""
        costs = Costs(*map(float, partition.costs(work, batch)))
        held = Held(*map(float, partition.held(work, batch)))
        took = times(costs, chip, work, efficiency, overlap)
        parts, seconds = (took.products, took.attention), float(took.total)
        chips = partition.slice.chips
        peak, tokens = chip.rate(work.compute), batch * work.length
        return Result(
            partition=partition,
            work=work,
            chip=chip,
            batch=batch,
            efficiency=efficiency,
            overlap=overlap,
            costs=costs,
            held=held,
            seconds=seconds,
            mfu=utilisation(partition.model.multiplied, chips, peak, tokens, seconds),
            cost=cost(chips, seconds, batch, work),
            compute_seconds=sum(compute for compute, memory in parts if compute >= memory),
            memory_seconds=sum(memory for compute, memory in parts if compute < memory),
            communication_seconds=took.communication,
            longest_context=longest(partition.model, work, held, chip.memory),
        )

    @property
    def model(self) -> Model:
        return self.partition.model

    @property
    def layout(self) -> str:
        return self.partition.layout

    @property
    def attention(self) -> str:
        return self.partition.attention

    @property
    def torus(self) -> tuple[int, int, int]:
        return self.partition.slice.shape

    @property
    def chips(self) -> int:
        return self.partition.slice.chips

    @property
    def total_seconds(self) -> float:
        return self.seconds * (self.work.new_tokens if self.work.phase == "decode" else 1)

    @property
    def limit(self) -> str:
        shares = {"compute": self.compute_seconds, "memory": self.memory_seconds}
        shares["communication"] = self.communication_seconds
        return max(shares, key=lambda name: shares[name])

    @property
    def bytes(self) -> float:
        return self.held.total  # type: ignore[no-any-return]

    @property
    def fits(self) -> bool:
        return self.bytes <= self.chip.memory

    @property
    def notes(self) -> tuple[str, ...]:
        model, sizes, chips = self.model, self.partition.padded, self.chips
        pairs = {
            "heads": (model.heads, sizes.heads),
            "key heads": (model.kv_heads, sizes.kv_heads),
            "width": (model.width, sizes.width),
            "hidden": (model.hidden, sizes.hidden),
            "query columns": (sizes.heads * model.head_dim, sizes.query_columns),
            "key columns": (sizes.kv_heads * model.head_dim, sizes.key_columns),
        }
        notes = [f"{name} {given} padded to {stored}" for name, (given, stored) in pairs.items() if given != stored]
        parts = chips if self.attention == "batch" else self.partition.split[0]
        if self.batch % parts:
            notes.append(f"batch {self.batch} padded to {-(-self.batch // parts) * parts}, a multiple of {parts} chips")
        if chips > self.chip.reach:
            notes.append(f"links of {self.chip.name} connect {self.chip.reach} chips: assumed between all {chips}")
        return tuple(notes)

    def to_dict(self) -> dict[str, Any]:
        """Everything above as JSON has it."""
        held = {name: getattr(self.held, name) for name in ("weights", "cache", "activations")}
        return {
            "model": self.model.name,
            "chip": self.chip.name,
            "chips": self.chips,
            "torus": list(self.torus),
            **vars(self.work),
            **{name: getattr(self, name) for name in _REPORTED},
            "bytes_per_chip": held | {"total": self.bytes, "memory": self.chip.memory},
            "efficiency": vars(self.efficiency),
            "notes": list(self.notes),
        }


def longest(model: Model, work: Work, held: Held, memory: float) -> int | None:
    """The most tokens of each sequence for which weights, cache and activations are at most `memory` bytes.

    Cache (all layers up to the window, then those without one) and, in a prefill, activations grow with the tokens.
    """
    free, grown = memory - held.weights, 0.0
    if work.phase == "prefill":
        grown = held.activation_token
        free += grown * work.cached
    else:
        free -= held.activations
    slope = model.layers * held.cache_token + grown
    if free < slope:
        return 0
    window = model.window if model.windows else None
    if window is None or free <= slope * window:
        return int(free / slope)
    beyond = (model.layers - model.windows) * held.cache_token + grown
    return int(window + (free - slope * window) / beyond) if beyond else None
