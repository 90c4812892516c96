"""Triton launchers, with the names and signatures of `reference`, for contiguous torch tensors.

Work of a step is that of the pairs: 35 operations of each that a movable atom sees, 0.30 GFLOP of a
conformation with 2609 movable of 3322 atoms. On an H200, 67 TFLOP/s of float32, 256 conformations are 78
GFLOP or 1.2 ms; the other kernels move about 0.6 GB, 0.13 ms at 4.8 TB/s.
"""

from __future__ import annotations

from .gpu_adam import adam
from .gpu_energy import energy
from .gpu_step import descend
from .gpu_transform import transform, transform_backward

__all__ = ["adam", "descend", "energy", "transform", "transform_backward"]
