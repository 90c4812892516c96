"""Numba launchers: the same names and signatures as `reference`. Arrays are C-contiguous."""

from .cpu_adam import adam as adam
from .cpu_energy import energy as energy
from .cpu_step import descend as descend
from .cpu_transform import transform as transform
from .cpu_transform import transform_backward as transform_backward
