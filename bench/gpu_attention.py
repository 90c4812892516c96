"""Attention against torch's (its flash and cuDNN kernels) and FlexAttention: steps of decoding at the rate of a copy,
prefill at the rate of a matrix product."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from .gpu_search import multiply_rate
from .gpu_timing import Call, Row, interleaved, rows

D = 128
DECODE_CASES = (
    ("bfloat16", 32, 32, 8, 4096),
    ("int8", 32, 32, 8, 4096),
    ("bfloat16", 32, 16, 1, 16384),
    ("bfloat16", 8, 64, 4, 16384),
    ("bfloat16", 1, 32, 8, 65536),
    ("int8", 1, 32, 8, 65536),
    ("bfloat16", 1, 32, 8, 262144),
)
"""Types of the cache, sequences, heads of queries and of keys, and keys."""
DECODE_REHEARSAL = (("bfloat16", 2, 4, 2, 33), ("int8", 1, 4, 1, 20))
PREFILL_CASES = (("bfloat16", 1, 16, 16, 16384), ("bfloat16", 4, 32, 8, 4096), ("float16", 1, 16, 1, 16384))
PREFILL_REHEARSAL = (("bfloat16", 1, 2, 1, 70),)
PAGE = 64
TOLERANCE = 2e-2
FLEX, FLASH, CUDNN = "FlexAttention", "SDPA flash", "SDPA cuDNN"


def measure(gpu: bool) -> Iterator[list[Row]]:
    copying = copy_rate(gpu)
    for dtype, B, Hq, Hkv, S in DECODE_CASES if gpu else DECODE_REHEARSAL:
        calls = _decode_calls(dtype, B, Hq, Hkv, S, gpu)
        each = 2 * D + 8 if dtype == "int8" else 4 * D
        work = {name: float(B * Hkv * S * (each if name.startswith("pykernels") else 4 * D)) for name in calls}
        case = f"decode {dtype} B={B}, {Hq}/{Hkv} heads, S={S}, D={D}"
        limit = f"a copy at {copying / 1e9:.0f} GB/s"
        yield rows("attention", case, interleaved(calls, gpu), work, copying, limit)
    for dtype, B, Hq, Hkv, S in PREFILL_CASES if gpu else PREFILL_REHEARSAL:
        calls = _prefill_calls(dtype, B, Hq, Hkv, S, gpu)
        operations = dict.fromkeys(calls, 2.0 * B * Hq * S * (S + 1) * D)
        rate = multiply_rate(dtype, gpu)
        case = f"prefill causal {dtype} B={B}, {Hq}/{Hkv} heads, S={S}, D={D}"
        limit = f"a product at {rate / 1e12:.0f} Tops/s"
        yield rows("attention", case, interleaved(calls, gpu), operations, rate, limit)


def copy_rate(gpu: bool) -> float:
    """Bytes per second that a copy reads and writes."""
    import torch

    x = torch.ones(1 << 29 if gpu else 1 << 10, dtype=torch.int32, device="cuda" if gpu else "cpu")
    y = torch.empty_like(x)
    return 2.0 * x.nbytes / interleaved({"copy": functools.partial(y.copy_, x)}, gpu)["copy"]


def _normal(*shape: int, gpu: bool, dtype: str = "bfloat16") -> Any:
    import torch

    return torch.randn(shape, device="cuda" if gpu else "cpu", dtype=torch.float32).to(getattr(torch, dtype))


def _decode_calls(dtype: str, B: int, Hq: int, Hkv: int, S: int, gpu: bool) -> dict[str, Call]:
    """One query per sequence, ours from one page per sequence and from pages of `PAGE`; peers read bfloat16."""
    import torch

    from pykernels.kernels.attention import gpu as launchers
    from pykernels.kernels.attention.problem import Cache, Scoring

    q, k, v = (_normal(B, heads, tokens, D, gpu=gpu) for heads, tokens in ((Hq, 1), (Hkv, S), (Hkv, S)))
    lengths = torch.full((B,), S, device=q.device)
    scoring = Scoring(D**-0.5)
    calls: dict[str, Call] = {}
    for name, page in (("pykernels", S), (f"pykernels, pages of {PAGE}", PAGE)):
        pages = -(-S // page)
        table = torch.randperm(B * pages, device=q.device).reshape(B, pages)
        stored = [_in_pages(x, table, page, dtype) for x in (k, v)]
        cache = Cache(stored[0][0], stored[1][0], stored[0][1], stored[1][1], table, lengths)
        out, lse = torch.empty_like(q), torch.empty(B, Hq, 1, device=q.device)
        calls[name] = functools.partial(launchers.decode, q, cache, scoring, out, lse)
        calls[name]()
        _agrees(f"decode {dtype}, {name}", out, q, k, v, False, 0.1 if dtype == "int8" else TOLERANCE)
    return calls | _peers(q, k, v, False, gpu)


def _in_pages(x: Any, table: Any, page: int, dtype: str) -> tuple[Any, Any]:
    """A pool (pages, Hkv, page, D) with `x` (B, Hkv, S, D) where `table` says, and its scales or None."""
    import torch

    B, H, S, _ = x.shape
    padded = torch.nn.functional.pad(x, (0, 0, 0, -S % page))
    pool = torch.empty(table.numel(), H, page, D, dtype=x.dtype, device=x.device)
    pool[table.flatten()] = padded.reshape(B, H, -1, page, D).transpose(1, 2).reshape(-1, H, page, D)
    if dtype != "int8":
        return pool, None
    scale = pool.abs().amax(3).float() / 127
    codes = (pool / scale.clamp_min(1e-30)[..., None]).round().to(torch.int8)
    return codes, scale


def _prefill_calls(dtype: str, B: int, Hq: int, Hkv: int, S: int, gpu: bool) -> dict[str, Call]:
    import torch

    from pykernels.kernels.attention import gpu as launchers
    from pykernels.kernels.attention.problem import Lengths, Scoring

    q, k, v = (_normal(B, heads, S, D, gpu=gpu, dtype=dtype) for heads in (Hq, Hkv, Hkv))
    out, lse = torch.empty_like(q), torch.empty(B, Hq, S, device=q.device)
    scoring = Scoring(D**-0.5, right=0)
    ours = functools.partial(launchers.attention, q, k, v, scoring, Lengths(), out, lse)
    ours()
    _agrees(f"prefill {dtype}", out, q, k, v, True, TOLERANCE)
    return {"pykernels": ours, **_peers(q, k, v, True, gpu)}


def _agrees(what: str, out: Any, q: Any, k: Any, v: Any, causal: bool, tolerance: float) -> None:
    """Compare the last queries of the first sequence, and all of its heads, with products in float64."""
    import torch

    last = slice(-4, None)
    group = q.shape[1] // k.shape[1]
    keys, values = (x[0].double().repeat_interleave(group, 0) for x in (k, v))
    s = q[0, :, last].double() @ keys.transpose(1, 2) * D**-0.5
    if causal:
        at = torch.arange(s.shape[2], device=s.device)
        s = s.masked_fill(at > at[last, None], float("-inf"))
    expected = torch.softmax(s, 2) @ values
    error = (out[0, :, last].double() - expected).abs().max()
    if not error <= tolerance * expected.abs().max():
        raise ArithmeticError(f"{what} disagrees with torch")


def _peers(q: Any, k: Any, v: Any, causal: bool, gpu: bool) -> dict[str, Call]:
    """What runs here of torch's kernels, the group's heads folded into the query axis where that is the same."""
    if not gpu:
        return {}
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    run = torch.nn.functional.scaled_dot_product_attention
    folded = q if causal else q.reshape(len(q), k.shape[1], -1, D)
    grouped = folded.shape[1] != k.shape[1]

    def sdpa(backend: Any) -> Any:
        with sdpa_kernel(backend):
            return run(folded, k, v, is_causal=causal, enable_gqa=grouped)

    calls: dict[str, Call] = {
        FLASH: functools.partial(sdpa, SDPBackend.FLASH_ATTENTION),
        CUDNN: functools.partial(sdpa, SDPBackend.CUDNN_ATTENTION),
    }
    options: dict[str, Any] = {"enable_gqa": q.shape[1] != k.shape[1]}
    if causal:
        options["block_mask"] = create_block_mask(
            lambda b, h, i, j: i >= j, None, None, q.shape[2], k.shape[2], q.device
        )
    calls[FLEX] = functools.partial(torch.compile(flex_attention), q, k, v, **options)
    return {name: call for name, call in calls.items() if _runs(name, call)}


def _runs(name: str, call: Call) -> bool:
    try:
        call()
    except Exception as error:  # kernels differ in the devices and shapes that they take
        print(f"attention: {name} does not run: {str(error).splitlines()[0]}", flush=True)
        return False
    return True
