"""The benchmarks of attention: every provider agrees with float64, wrong ones are caught; the study of memory."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

pytest.importorskip("pytest_benchmark")
pytest.importorskip("torch")

from pykernels.bench import attention_data as data
from pykernels.bench import attention_memory, attention_peers, attention_table1, halo_peers, harness
from pykernels.bench import attention_workloads as workloads
from pykernels.bench.attention_peers import FOLDED, GROUPED, PRODUCTS
from pykernels.bench.bench_attention import groups
from pykernels.bench.halo_workloads import Image, exact_gradients, forward, inputs, training
from pykernels.bench.harness import OURS, Disagreement
from pykernels.kernels.attention import reference
from pykernels.kernels.attention.problem import Window

STEP = data.step_of(2, 6, 2, 70, 32)
SMALL = Image(16, heads=2, block=4, halo=1)


@pytest.fixture(autouse=True)
def one_copy(monkeypatch):
    monkeypatch.setattr(workloads, "rotations", lambda nbytes: 2)


def test_every_group_has_a_name_of_its_own_and_quick_is_a_part():
    quick, full = ([group.name for group in groups(choice)] for choice in (True, False))
    assert len(set(full)) == len(full) and set(quick) < set(full)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_steps_agree(dtype):
    harness.untimed(workloads.decoding(dtype, STEP, (GROUPED, FOLDED, PRODUCTS)))
    harness.untimed(workloads.decoding(dtype, data.step_of(1, 4, 1, 33, 32), (GROUPED, FOLDED, PRODUCTS)))


@pytest.mark.parametrize("dtype", data.SCALED)
def test_steps_from_fewer_bits_agree(dtype):
    harness.untimed(workloads.decoding_narrow(dtype, STEP))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_prefills_agree(dtype):
    for causal in (True, False):
        harness.untimed(workloads.prefilling(dtype, 100, 64, causal, 2))
    harness.untimed(workloads.skipping(dtype, 100, 64, 2))


def test_halo_attention_agrees():
    peers = halo_peers.PRODUCTS, halo_peers.SDPA
    harness.untimed(forward(SMALL, peers))
    harness.untimed(training(SMALL, peers))


def test_gradients_that_verify_are_those_of_the_reference():
    given = inputs(SMALL)
    grad = data.normal(given.q.shape, "float32", 1)
    wide = [x.astype(np.float64) for x in given]
    out, lse = np.empty(grad.shape), np.empty(grad.shape[:-1])
    where = Window(SMALL.block, SMALL.halo), SMALL.dim**-0.5
    reference.halo(*wide, *where, out, lse)
    expected = [np.empty_like(x) for x in wide]
    reference.halo_backward(grad.astype(np.float64), *wide, *where, out, lse, *expected)
    for found, right in zip(exact_gradients(SMALL, given, grad), (out, *expected), strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-9, atol=1e-12)


@pytest.mark.exhaustive
def test_flex_attention_agrees():
    harness.untimed(forward(SMALL._replace(batch=2, halo=3), (halo_peers.FLEX,)))


def test_wrong_outputs_are_caught(monkeypatch):
    monkeypatch.setattr(attention_peers, "prefill", lambda q, k, v, causal: attention_peers.products(q, k, v))
    with pytest.raises(Disagreement, match=r"prefill causal fp32 .*: SDPA: .*float64"):
        harness.untimed(workloads.prefilling("float32", 100, 64, True, 2))
    monkeypatch.setattr(halo_peers, "_relative", lambda queries, *_: queries.new_zeros(1))
    with pytest.raises(Disagreement, match=r"halo forward .*: unfold, products: .*float64"):
        harness.untimed(forward(SMALL, (halo_peers.PRODUCTS,)))


@pytest.mark.parametrize("flops", [10**6, 4 * 512 * 513 // 2 * 64 * 4, 10**9])
def test_the_limit_does_the_work_of_the_case(flops):
    for call in attention_peers.product_alone("bfloat16", flops).values():
        a, b = call.args
        assert a.shape[1] == b.shape[0]
        np.testing.assert_allclose(2 * a.shape[0] * a.shape[1] * b.shape[1], flops, rtol=0.01)


def test_contexts_fill_the_memory():
    table = attention_table1.contexts(1 << 20, 1)
    named = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    assert [row["longest context"] for row in named[:3]] == [128, 512, 2048]
    assert all(0 <= (1 << 20) - row["longest context"] * row["bytes a token"] < 8192 for row in named[:-1])
    json.dumps(table)


def test_errors_of_caches_are_those_of_their_formats():
    rows = attention_table1.errors(data.step_of(1, 4, 2, 500, 64))["rows"]
    error = {(keys, cache): float(rms.rstrip("%")) for keys, cache, rms, _ in rows}
    assert len(error) == 6
    for keys in {keys for keys, _ in error}:
        assert (
            0 < error[keys, "bf16"] < 0.5
            and error[keys, "bf16"] < error[keys, "int8"] < 15
            and error[keys, "e4m3fn"] < 8
        )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")
def test_prefill_holds_no_scores():
    scores = 4 * attention_memory.HEADS * 2048**2
    assert attention_memory.measure("prefill", OURS, 2048) < scores / 4
