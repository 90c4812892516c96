"""Efficiency, and the time that costs take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ._chip import Chip
from ._costs import Costs, Work
from ._numbers import positive


@dataclass(frozen=True)
class Efficiency:
    """How much of a chip's limits a program reaches.

    `flops`, `bandwidth` and `interconnect` are fractions, above 0 and at most 1, of the chip's rates; `overhead` is
    seconds added to every pass. The defaults are a lower bound of what programs take: the times that the paper measured
    for 540B on 64 chips are 1.2 (prefill of 512 sequences) to 2.5 times as long (decode of 64, int8 weights).
    `calibrate` finds them from measurements.
    """

    flops: float = 1.0
    bandwidth: float = 1.0
    interconnect: float = 1.0
    overhead: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flops", "bandwidth", "interconnect"):
            object.__setattr__(self, name, positive(f"efficiency {name}", getattr(self, name), most=1.0))
        object.__setattr__(self, "overhead", positive("efficiency overhead", self.overhead, zero=True))

    @staticmethod
    def of(value: float | Efficiency) -> Efficiency:
        """A number is that fraction of all three rates."""
        if isinstance(value, Efficiency):
            return value
        fraction = positive("efficiency", value, most=1.0)
        return Efficiency(fraction, fraction, fraction)


class Times(NamedTuple):
    """Seconds of one pass; arrays over batches. `products` and `attention` are pairs (compute, memory)."""

    products: tuple[Any, Any]
    attention: tuple[Any, Any]
    communication: Any
    total: Any


def times(costs: Costs, chip: Chip, work: Work, efficiency: Efficiency, overlap: float) -> Times:
    """Products with weights, attention and communication, one after the other.

    Each of the first two takes the longer of its FLOPs at the chip's rate and its bytes at the memory's (a roofline for
    each, as "How To Scale Your Model" does; attention computes in bf16). Of the shorter of computing and communicating
    `overlap` is hidden behind the other: 0, nothing, is a program without looped collectives (section 3.5 of the
    paper), and 1 bounds any program.
    """
    rate, read = efficiency.flops, chip.bandwidth * efficiency.bandwidth
    products = costs.flops / (chip.rate(work.compute) * rate), costs.weight_bytes / read
    attention = costs.attention_flops / (chip.bf16 * rate), costs.cache_bytes / read
    communication = costs.wire_seconds / efficiency.interconnect + costs.hop_seconds
    local = np.maximum(*products) + np.maximum(*attention)
    total = local + communication - overlap * np.minimum(local, communication) + efficiency.overhead
    return Times(products, attention, communication, total)


def cost(chips: int, seconds: Any, batch: Any, work: Work) -> Any:
    """Chip-seconds a token, ``n t / (B L)`` (section 4 of the paper)."""
    return chips * seconds / (batch * work.length)


def utilisation(multiplied: int, chips: int, peak: float, tokens: Any, seconds: Any) -> Any:
    """Model FLOPS utilisation, ``2 N tokens / (n peak t)``: tokens a second over those at peak FLOPs (section 2).

    >>> from pykernels.inference.plan import Chip, Model, utilisation
    >>> palm, chip = Model.named("palm-540b"), Chip.named("tpu-v4")
    >>> f"{utilisation(palm.multiplied, 64, chip.bf16, 512 * 2048, 85.2):.0%}"  # measured, table 2
    '76%'
    """
    return 2 * multiplied * tokens / (chips * peak * seconds)
