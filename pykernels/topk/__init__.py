"""Top-k selection: exact, or approximate with an expected recall that is known (TPU-KNN, arXiv 2206.14286).

The definition of every operation is in `pykernels.kernels.topk`: ties go to the lowest index, -0.0
equals 0.0, and every NaN is equal to every other and larger than +Inf.
"""

from ._approx import approx_max_k, approx_min_k
from ._plan import RecallPlan, plan
from ._recall import expected_recall
from ._topk import topk

__all__ = ["RecallPlan", "approx_max_k", "approx_min_k", "expected_recall", "plan", "topk"]
