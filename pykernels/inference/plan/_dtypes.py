"""Types of numbers by the names that the plan uses."""

from __future__ import annotations

WEIGHTS = ("bf16", "int8", "fp8")
CACHES = ("bf16", "int8", "fp8")
ACTIVATION_BYTES = 2  # activations are bf16, in memory and between chips


def nbytes(dtype: str) -> int:
    """Bytes of one number; the scales of quantized ones are not counted."""
    return 2 if dtype == "bf16" else 1
