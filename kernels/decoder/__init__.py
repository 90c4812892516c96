"""What a decoder block does between its products: norms, rotary positions and gated activations.

Numbers are float32, bfloat16 or float16, the same of every array called x, residual, total or out; everything else is
float32. Work is in float32, and each result is rounded once, when it is written.

normalize. Rows h of x (M, E), or of total = x + residual, rounded to the dtype first and written as well. With the
means over the E numbers of a row,

    rms     y = h / sqrt(mean(h**2) + eps)                                 (arXiv 1910.07467)
    layer   y = (h - mean(h)) / sqrt(mean((h - mean(h))**2) + eps)         (arXiv 1607.06450)
    out = y * (weight + offset) + bias

The product is taken before y is rounded, as Gemma does; Llama rounds y first, which in float32 is the same.

rotary. Of x (n, H, T, D), the first R = 2 * cos.shape[1] numbers of a head are turned in pairs, the rest is copied;
with p = positions[n, t] and i < R / 2 (arXiv 2104.09864)

    out_a = x_a * cos[p, i] - x_b * sin[p, i]            a, b = i, i + R / 2         ("half", as Hugging Face does)
    out_b = x_b * cos[p, i] + x_a * sin[p, i]            a, b = 2 i, 2 i + 1         ("interleaved", as the paper does)

gated. out (M, F) = f(x[:, :F]) * x[:, F:] of x (M, 2 F), f one of `pykernels.kernels._activations` (arXiv 2002.05202).

NaN and Inf go where the formulas take them: into their own row (normalize), pair (rotary) or number (gated). Squares
are float32 too, so rows with numbers beyond about 1e19 overflow. Without rows, or with rows of nothing, nothing is
written. A row's bits depend on it alone, not on other rows or threads.
"""
