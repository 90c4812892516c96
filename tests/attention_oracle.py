"""The plain formula of attention in torch, whole matrices at once, and what covers all pairs of cases."""

from __future__ import annotations

import itertools
import math

import ml_dtypes
import numpy as np
import torch


def plain(q, k, v, *, kv_lengths=None, **options):
    """Out and lse of `attention`, each sequence cut to its keys before anything is computed; differentiable."""
    results = []
    for b in range(q.shape[0]):
        count = k.shape[2] if kv_lengths is None else int(kv_lengths[b])
        given = dict(options)
        for name in ("bias", "mask"):
            if given.get(name) is not None:
                full = given[name].expand(q.shape[0], q.shape[1], q.shape[2], k.shape[2])
                given[name] = full[b, :, :, :count]
        results.append(one(q[b], k[b, :, :count], v[b, :, :count], **given))
    if not results:
        return q.new_zeros((*q.shape[:3], v.shape[3])), q.new_zeros(q.shape[:3])
    return tuple(torch.stack(parts) for parts in zip(*results, strict=True))


def one(
    q, k, v, *, causal=False, scale=None, window=None, softcap=None, sinks=None, alibi_slopes=None, bias=None, mask=None
):
    """One sequence: q (Hq, Sq, D), k and v (Hkv, Sk, D)."""
    group = q.shape[0] // k.shape[0]
    k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
    logits = (q @ k.transpose(-1, -2)) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    queries, keys = logits.shape[1:]
    position = torch.arange(queries)[:, None] + (0 if causal == "upper_left" else keys - queries)
    key = torch.arange(keys)[None]
    if alibi_slopes is not None:
        logits = logits - alibi_slopes[:, None, None].to(q.dtype) * (key - position).abs()
    if bias is not None:
        logits = logits + bias.to(q.dtype)
    allowed = torch.ones(queries, keys, dtype=torch.bool)
    if causal:
        allowed = allowed & (key <= position)
    if window is not None:
        left, right = window
        allowed = allowed & (key >= position - left) if left >= 0 else allowed
        allowed = allowed & (key <= position + right) if right >= 0 else allowed
    if mask is not None:
        allowed = allowed & mask
    logits = logits.masked_fill(~allowed, -torch.inf)
    if sinks is not None:
        logits = torch.cat([logits, sinks[:, None, None].to(q.dtype).expand(-1, queries, 1)], -1)
    if logits.shape[2] == 0:
        return q.new_zeros((*q.shape[:2], v.shape[2])), q.new_full(q.shape[:2], -torch.inf)
    nothing = (logits == -torch.inf).all(-1, keepdim=True)
    wide = logits if q.dtype == torch.float64 else logits.float()
    weights = torch.softmax(wide.masked_fill(nothing, 0), -1).masked_fill(nothing, 0).to(q.dtype)
    lse = torch.logsumexp(wide.masked_fill(nothing, 0), -1).masked_fill(nothing[..., 0], -torch.inf)
    return weights[..., :keys] @ v, lse


def tensor(x):
    """A tensor of the values of an array, in its dtype."""
    if x.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(x.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.ascontiguousarray(x))


def wide(x):
    """A float64 tensor of the values of an array."""
    return torch.from_numpy(np.asarray(x, np.float64)) if x.dtype != bool else torch.from_numpy(x)


def pairwise(choices):
    """Cases in which every two choices of different rows meet, the most that are missing first."""
    names = list(choices)
    missing = {
        ((a, x), (b, y))
        for a, b in itertools.combinations(range(len(names)), 2)
        for x in range(len(choices[names[a]]))
        for y in range(len(choices[names[b]]))
    }
    rng = np.random.default_rng(0)
    cases = []
    while missing:
        candidates = []
        for _ in range(30):
            (a, x), (b, y) = sorted(missing)[rng.integers(len(missing))]
            case = [int(rng.integers(len(choices[name]))) for name in names]
            case[a], case[b] = x, y
            candidates.append(case)
        covered = [set(itertools.combinations(enumerate(case), 2)) & missing for case in candidates]
        best = max(range(len(candidates)), key=lambda i: len(covered[i]))
        missing -= covered[best]
        cases.append({name: choices[name][i] for name, i in zip(names, candidates[best], strict=True)})
    return cases
