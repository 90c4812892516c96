"""Softmax attention whose keys and values are shared by groups of heads (multi-query attention, arXiv 1911.02150;
grouped-query attention, arXiv 2305.13245), read through a cache, or in blocks of an image (HaloNet, arXiv 2103.12731).

attention. Query heads come in groups of G = Hq / Hkv, head h reading the keys and values of head h // G. Query
i of a sequence of Sq queries and Sk keys stands at position

    p(i) = i + Sk - Sq  ("lower_right": the last query at the last key), or i  ("upper_left").

Its logit for key j is, in this order,

    s = scale * <q_i, k_j>                    accumulated in float32 (float64 of float64)
    s = softcap * tanh(s / softcap)           if softcap > 0
    s = s - slopes[h] * |j - p(i)|            if slopes are given (ALiBi, arXiv 2108.12409)
    s = s + bias[b, h, i, j]                  if a bias is given

and the key is allowed if ``p(i) - left <= j <= p(i) + right`` (-1: no limit; causal is right = 0), mask[b, h, i, j]
is True if a mask is given, the bias is not -Inf, and j is below the number of keys of the sequence. With w_j = exp(s_j)
of allowed keys and w_sink = exp(sinks[h]), if sinks are given,

    lse_i = log(sum_j w_j + w_sink)           natural logarithm
    out_i = sum_j w_j v_j / exp(lse_i)

Without an allowed key and without a sink, lse is -Inf and out 0; with a sink only, lse is the sink and out 0. What
is not allowed has no influence, NaN and Inf included; a NaN or +Inf logit makes out and lse of its row NaN.

A sequence is a member of the batch, or, with `cu_q` and `cu_k`, a run ``cu_q[n] : cu_q[n + 1]`` of the token axis
of a batch of one, with its keys ``cu_k[n] : cu_k[n + 1]``; ``kv[n]``, if given, is its number of keys in place
of what the shapes say. What lies beyond is never read.

decode. The keys of sequence n lie in pages of a pool, token t in row ``t % page`` of page ``table[n, t // page]``.
A pool of int8 or of codes of e4m3fn has a float32 scale for each token and head, and means code * scale.

store. Keys and values of tokens are written to pages as they are, or as codes: with a = max |x| of the D numbers of a
token and head, scale = max(a / 127, 2**-126) for int8 (448 for e4m3fn), in float32, and code = x / scale, a float32
rounded to the nearest code, ties to even. If one of the D is NaN or Inf, scale is NaN and the codes are 0.

halo. Of an image (height, width), queries at every `stride`-th pixel, in blocks of `block` x `block` pixels; all
queries of a block read the window of (block + 2 halo)^2 pixels around it. The logit is

    scale * <q, k> + <q, rel_height[r_y]> + <q, rel_width[r_x]>,   r = key - query + block - 1 + halo

in pixels, for each axis. Pixels outside of the image have keys and values of zero and take part in the softmax
(``pad="zero"``), or do not (``pad="mask"``). Blocks that reach beyond the image have fewer queries.

Shapes and dtypes. q (B, Hq, Sq, D), k (B, Hkv, Sk, D), v (B, Hkv, Sk, Dv), out (B, Hq, Sq, Dv) in any strides but
for the last axis, whose stride is 1; float32, float16 or bfloat16, or float64 on the CPU, all of one call alike.
lse (B, Hq, Sq), bias, slopes and sinks are float32, or float64 where q is.
"""
