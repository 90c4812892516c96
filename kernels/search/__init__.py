"""Brute-force search fused with top-k selection (TPU-KNN, arXiv 2206.14286), and ColBERT's MaxSim.

search. For queries q (Q, D) and database rows x (N, D), the ranking score of row n is

    s(q, n) = scale[n] * <q, x[n]> + bias[n]        accumulated in float32

and the result the k rows of largest score, equal scores by the lowest row number first. The scores
are never held all at once. Metrics are choices of scale and bias (and of the scaling of q):
inner product (1, 0); cosine (1 / |x|, 0); squared L2 (1, -|x|^2 / 2), whose ranking is that of
-|q - x|^2 / 2 up to a term that depends on q alone. Rows of a quantized database carry their
quantization scale in `scale`.

`rows`, ascending row numbers, restricts the search to them; `mask` (Q, N) to the rows that are True
for a query. A score that is NaN or -Inf is as good as masked: such a row is never found. Where fewer
than k rows remain, the rest of the scores is -Inf and of the ids -1.

distances. sum((q - scale[n] * x[n])^2) for given pairs, differences taken first: never negative, and
exact for equal vectors.

maxsim (ColBERT, arXiv 2004.12832, equation 3). Tokens of a query q_i and of a document x_j:

    S = sum_i max_j <q_i, x_j>

A document is a run of tokens ``offsets[d] : offsets[d + 1]`` of the packed tokens, or of `rows`,
which lists token numbers (so padded and masked documents need no copy). Maxima may be negative. An
empty document has no maximum: it scores -Inf, unless the query has no token, whose sum is 0. A NaN
product is ignored by the maximum. `argmax` receives the number of the token that attains the
maximum, the first of them, and -1 in an empty document.

Shapes and dtypes. q and x are C-contiguous float32, float16, bfloat16, int8 or uint8 codes of
e4m3fn; D >= 1; scale and bias are float32 of length N.
"""
