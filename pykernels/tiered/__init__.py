"""The tiered tensor transform (3T, arXiv 2301.00984): points that move alone, in groups and in macro-groups.

The definition of every operation is in `pykernels.kernels.tiered`.
"""

from ._build import build_tiers
from ._complex import Complex
from ._constants import Schedule
from ._descent import Descent
from ._ensemble import Ensemble
from ._generate import generate
from ._parameters import Parameters
from ._screen import screen
from ._structures import read_complex
from ._tiers import Tiers
from ._transform import transform, transform_backward

__all__ = [
    "Complex",
    "Descent",
    "Ensemble",
    "Parameters",
    "Schedule",
    "Tiers",
    "build_tiers",
    "generate",
    "read_complex",
    "screen",
    "transform",
    "transform_backward",
]
