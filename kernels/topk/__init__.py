"""Top-k selection, exact and approximate (TPU-KNN, arXiv 2206.14286; generalised in 2506.04165).

Order. Elements are ranked by value, equal values by their index, the lowest first. -0.0 equals
0.0. Every NaN, of either sign, is equal to every other and larger than +Inf. So the ranking is
total, and the k best are one set in one order, on every backend. `largest=False` ranks by value
ascending (NaN last), equal values again by the lowest index first.

topk. The k first of the ranking, values as they are in the input (a -0.0 stays one) and int64
indices; ``sorted=False`` gives them in the order of their indices. 0 <= k <= n.

partial_topk. A row is read in stripes of `bins` elements, one for each bin. Stripe s is rotated:
element ``s * bins + j`` lies in bin ``(j + rotation(s)) % bins``, where a hash of s,

    h = s * 0x9E3779B1;  h = (h ^ h >> 15) * 0x85EBCA77;  h = h ^ h >> 13    (each modulo 2**32)
    rotation(s) = h * bins >> 32                                            (0 of the first stripe)

keeps a period of the input from meeting the same bins in every stripe. Neighbours within a stripe lie
in different bins, and bins have n // bins elements or one more, in the order of their indices. Each
bin keeps its `per_bin` first of the ranking; these ``bins * per_bin`` survivors are written rank by
rank: slot ``r * bins + b`` holds the r-th of bin b. Requires ``n // bins >= per_bin``, and
``bins < 2**31``. An approximate top-k is the top-k of the survivors.

Recall (2506.04165, theorem 1). If the k best lie at random positions, bin b of size s_b holds R_b
of them, hypergeometrically distributed, and the expected share of them that survives is

    E = 1 - 1/k * sum_b E[max(0, R_b - per_bin)],   R_b ~ Hypergeom(n, k, s_b).

It is exact for per_bin >= 1, where the bound ((bins - 1) / bins) ** (k - 1) of TPU-KNN counts both
elements of a collision as lost. The rotations are fixed: who knows them can put all of the best into
one bin. Inputs that do not depend on the hash fare about as random positions do.

select. The k best of candidates that carry ids: rank by value, equal values by the lowest id. What
merges shards and survivors.

Shapes. Inputs are (R, n), C-contiguous, one row per selection; float64, float32, float16,
bfloat16, int8, int16, int32, int64 or uint8. R = 0 and k = 0 are valid.
"""
