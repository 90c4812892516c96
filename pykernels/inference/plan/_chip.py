"""Chip."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ... import _options
from ._numbers import positive

_TERA, _GIGA, _MICRO = 1e12, 1e9, 1e-6


@dataclass(frozen=True)
class Chip:
    """Limits of one accelerator: FLOP/s of dense matrix products, bytes, bytes/s.

    Parameters
    ----------
    name : how tables call it
    bf16, int8, fp8 : FLOP/s of products of these types; a type that the chip does not multiply has the rate of bf16
    memory, bandwidth : bytes of its memory and bytes/s at which it is read
    interconnect : bytes/s that leave the chip over all of its links together; as many come in
    latency : seconds a hop between chips
    dimensions : of the torus that the links form; 0 for a switch, or links between all
    reach : how many chips the links connect; what is planned for more takes the same links between all

    Raises TypeError and ValueError for numbers that are not positive; `latency` and `dimensions` may be 0.

    Notes
    -----
    ========  ===========  ===========  ===========  ======  ========  ============  =====
    name      bf16 TFLOPS  int8         fp8          memory  TB/s      interconnect  reach
    ========  ===========  ===========  ===========  ======  ========  ============  =====
    tpu-v4    275          275          -            32 GiB  1.2       270 GB/s      4096
    tpu-v5e   197          393          -            16 GB   0.819     200 GB/s      256
    a100      312          624          -            80 GB   2.039     300 GB/s      8
    h100      989.4        1978.9       1978.9       80 GB   3.35      450 GB/s      8
    h200      989.4        1978.9       1978.9       141 GB  4.8       450 GB/s      8
    b200      2250         4500         4500         180 GB  8.0       900 GB/s      8
    mi300x    1307.4       2614.9       2614.9       192 GB  5.3       448 GB/s      8
    ========  ===========  ===========  ===========  ======  ========  ============  =====

    TPU v4: section 4 of the paper (arXiv 2211.05102); int8 and reach: Google Cloud's "TPU v4". TPU v5e: Google Cloud's
    "TPU v5e", which gives 400 GB/s in both directions together. A100 (SXM, 80 GB), H100, H200 (SXM): NVIDIA's data
    sheets, halved where they count sparsity; NVLink's 600 and 900 GB/s are both directions. B200: NVIDIA's sheets of
    HGX B200 and DGX B200, an eighth of the system. MI300X: AMD's data sheet, seven links of 64 GB/s each way.
    A latency of 1 microsecond a hop is the rule of thumb of "How To Scale Your Model" (jax-ml/scaling-book) for TPUs;
    for the others it stands for want of a published number.

    Examples
    --------
    >>> from pykernels.inference.plan import Chip
    >>> h200 = Chip.named("h200")
    >>> round(h200.bf16 / h200.bandwidth)  # FLOPs a byte from which on it is limited by compute
    206
    """

    name: str
    bf16: float
    int8: float
    fp8: float
    memory: float
    bandwidth: float
    interconnect: float
    latency: float = _MICRO
    dimensions: int = 0
    reach: int = 1

    def __post_init__(self) -> None:
        for name in ("bf16", "int8", "fp8", "memory", "bandwidth", "interconnect"):
            positive(name, getattr(self, name))
        positive("latency", self.latency, zero=True)
        _options.integer("dimensions", self.dimensions, 0, 3)
        _options.integer("reach", self.reach, 1)

    @staticmethod
    def named(name: str) -> Chip:
        """The chip of that name, one of `Chip.names()`; ValueError for others."""
        return _CHIPS[_options.choice("chip", name, Chip.names())]

    @staticmethod
    def names() -> tuple[str, ...]:
        """The names that `Chip.named` knows."""
        return tuple(_CHIPS)

    @staticmethod
    def here() -> Chip:
        """This machine's processor, by what ``pykernels info`` measures now; takes about a second.

        Products of all types at the rate of the fp32 matrix product, memory as the system has it, at the rate at which
        it is read. The interconnect is half of the copy rate: processes exchange data through memory, in and out.
        """
        from pykernels.roofs import roofs

        rates = roofs()
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        gemm = rates["GEMM"]
        return Chip("here", gemm, gemm, gemm, memory, rates["read"], rates["copy"] / 2)

    def rate(self, dtype: str) -> float:
        """FLOP/s of products of the type `dtype`: "bf16", "int8" or "fp8"."""
        rate: float = getattr(self, _options.choice("dtype", dtype, ("bf16", "int8", "fp8")))
        return rate


def _chip(
    name: str, tera: tuple[float, float, float], memory: float, tb: float, gb: float, dimensions: int, reach: int
) -> Chip:
    bf16, int8, fp8 = (rate * _TERA for rate in tera)
    return Chip(name, bf16, int8, fp8, memory, tb * _TERA, gb * _GIGA, dimensions=dimensions, reach=reach)


_CHIPS = {
    chip.name: chip
    for chip in (
        _chip("tpu-v4", (275, 275, 275), 32 * 2**30, 1.2, 270, 3, 4096),
        _chip("tpu-v5e", (197, 393, 197), 16e9, 0.819, 200, 2, 256),
        _chip("a100", (312, 624, 312), 80e9, 2.039, 300, 0, 8),
        _chip("h100", (989.4, 1978.9, 1978.9), 80e9, 3.35, 450, 0, 8),
        _chip("h200", (989.4, 1978.9, 1978.9), 141e9, 4.8, 450, 0, 8),
        _chip("b200", (2250, 4500, 4500), 180e9, 8.0, 900, 0, 8),
        _chip("mi300x", (1307.4, 2614.9, 2614.9), 192e9, 5.3, 448, 0, 8),
    )
}
