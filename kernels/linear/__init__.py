"""Products of activations with weights that are kept narrow: the linear layers of inference.

    y[m, n] = f(s_x[m] * sum_b s[n // R, b] * sum_{k in block b} x[m, k] * w[n, k]  +  bias[n])

Shapes
    x (M, K), w (N, K) as torch keeps the weight of a linear layer, y (M, N), bias (N,). A block of R rows and C columns
    of w has one float32 scale, s (ceil(N / R), ceil(K / C)); blocks at the edges may be ragged. Without scales, s = 1.

Weights
    int8, the values of fp8 codes (see `pykernels.kernels.fp8`), float32, bfloat16 or float16; w is taken as it is, s
    multiplies sums, so that products of narrow numbers are exact. int8 is symmetric: ``w * s`` with no zero point.

Activations
    float32, bfloat16 or float16, with s_x = 1: "weight-only". Or int8 or fp8 codes with a float32 scale for each row
    (s_x), quantized just before: "dynamic". Products of int8 with int8 are exact, and their
    sums integers before they become float32.

On a GPU, many rows (over 512), and scale blocks that fit no tile, round w * s to x's dtype instead, and leave the
product to the vendor's library.

Sums are float32 (products of two bfloat16, int8 or fp8 are exact in it) in an order that depends on the shapes alone,
not on threads nor, for one (N, K) and M up to a few rows, on other rows; y is rounded once from them. NaN and Inf of
x, of w and of bias go where the formula takes them, 0 * Inf = NaN included. K = 0 gives f(bias), M = 0 or N = 0
nothing.

f is the identity or an element-wise ``relu``, ``silu`` (z / (1 + exp(-z))), ``gelu`` (z * Phi(z)) or ``gelu_tanh``
(its approximation 0.5 z (1 + tanh(sqrt(2 / pi) (z + 0.044715 z**3)))), in float32.

Int8 weights with products in bfloat16 are those of "Efficiently Scaling Transformer Inference" (arXiv 2211.05102,
section 3.6); int8 with a scale per row of both sides follows arXiv 2208.07339, section 3.1.
"""
