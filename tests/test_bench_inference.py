"""The benchmarks of inference: logits of every provider are those of plain NumPy, wrong ones are caught; the study."""

from __future__ import annotations

import json

import numpy as np
import plain_decoder
import pytest

pytest.importorskip("pytest_benchmark")
pytest.importorskip("torch")
pytest.importorskip("transformers")

from pykernels.bench import harness, inference_peers, inference_study
from pykernels.bench import inference_data as data
from pykernels.bench import inference_workloads as workloads
from pykernels.bench.bench_inference import groups
from pykernels.bench.harness import Disagreement
from pykernels.bench.inference_peers import COMPILED, EAGER, FP32
from pykernels.bench.inference_workloads import BFLOAT16, decoding, planning, prefilling, sharing_keys
from pykernels.inference import Config, Decoder, plan

TINY = Config(97, layers=2, width=64, hidden=96, heads=4, kv_heads=2, head_dim=16)
MULTI_HEAD = data.many_heads(2, 96, 4)


def test_every_group_has_a_name_of_its_own_and_quick_is_a_part():
    quick, full = ([group.name for group in groups(choice)] for choice in (True, False))
    assert len(set(full)) == len(full) and set(quick) < set(full)


@pytest.mark.parametrize(
    "weights",
    ["int8", "bfloat16", *(pytest.param(each, marks=pytest.mark.exhaustive) for each in ("e4m3fn", "float32"))],
)
def test_tokens_agree(weights):
    peers = (BFLOAT16, EAGER, FP32) if weights == "int8" else (EAGER,)
    harness.untimed(decoding(TINY, weights, 9, peers))
    harness.untimed(prefilling(TINY, weights, 9, peers))


@pytest.mark.exhaustive
def test_compiled_tokens_agree():
    harness.untimed(decoding(TINY, "bfloat16", 9, (COMPILED,)))


def test_multi_query_beside_multi_head_agrees():
    harness.untimed(sharing_keys(MULTI_HEAD, 2, 20))


def test_sizes_are_those_of_decoders():
    for config, billions in ((data.SMALL, 0.5), (data.LARGE, 1.0)):
        assert config.parameters / 1e9 == pytest.approx(billions, rel=0.05)
    for weights in data.ITEM:
        assert data.weight_bytes(TINY, weights) == data.decoder(TINY, weights).nbytes
    cache = Decoder.random(TINY, dtype="bfloat16").cache(3, 7)
    assert data.cache_bytes(TINY, 21, "bfloat16") == cache.nbytes
    large = data.many_heads(4, 1024, 16)
    assert data.one_head(large).parameters == large.parameters and data.one_head(large).kv_heads == 1


def test_logits_that_verify_are_those_of_a_plain_decoder():
    decoder = Decoder.random(TINY, seed=3, dtype="bfloat16")
    tokens = data.tokens(TINY, 11)
    expected = plain_decoder.logits(TINY, decoder.weights, tokens)[-1]
    np.testing.assert_allclose(data.logits(decoder, tokens), expected, rtol=2e-5, atol=2e-5)
    cache = decoder.cache(1, 11)
    sequence = cache.new()
    decoder(tokens[None, :8], cache, [sequence])
    past = [cache.gather(sequence, layer) for layer in range(TINY.layers)]
    workloads.near(data.logits(decoder, tokens[8:], past), expected, "bfloat16")


def test_generation_feeds_the_most_probable_token():
    fed = []

    def step(token):
        fed.append(token)
        return np.roll(np.arange(10), token)  # the largest is before the token

    call = workloads._generation(step, 5)
    for _ in range(4):
        call()
    assert fed == [5, 4, 3, 2]


def test_wrong_logits_are_caught(monkeypatch):
    right = inference_peers.model

    def without_positions(decoder, dtype):
        made = right(decoder, dtype)
        made.model.rotary_emb.inv_freq.zero_()
        return made

    monkeypatch.setattr(inference_peers, "model", without_positions)
    with pytest.raises(Disagreement, match=r"decode, bf16 weights .*: transformers bf16: .*float32"):
        harness.untimed(decoding(TINY, "bfloat16", 9, (EAGER,)))
    together = workloads._together

    def without_past(decoder, past, given):
        return together(decoder, [(k, v * 0) for k, v in past], given)

    monkeypatch.setattr(workloads, "_together", without_past)
    with pytest.raises(Disagreement, match=r"multi-query .*: pykernels: .*float32"):
        harness.untimed(sharing_keys(MULTI_HEAD, 2, 20))


def test_plans_are_checked():
    harness.untimed(planning("palm-540b", 64, (1, 256)))


def test_plans_that_cannot_be_are_caught(monkeypatch):
    right = plan.plan
    fast = plan.Chip(
        "fast", bf16=1e18, int8=1e18, fp8=1e18, memory=1e13, bandwidth=1e16, interconnect=1e15, latency=0.0
    )
    monkeypatch.setattr(
        workloads.plan, "plan", lambda model, chip, *rest, **options: right(model, fast, *rest, **options)
    )
    with pytest.raises(Disagreement, match=r"plan palm-540b.*: pykernels: .*decode of 1"):
        harness.untimed(planning("palm-540b", 64, (1,)))


def test_study_has_the_points_of_the_paper():
    found = inference_study.study(True)
    measured, contexts, proof = (
        [dict(zip(t["columns"], row, strict=True)) for row in t["rows"]] for t in found["tables"]
    )
    assert all(row["bound ms"] <= row["no overlap ms"] < row["measured ms"] for row in measured)
    assert [row["MFU measured"] for row in measured[:3]] == ["43%", "76%", "14%"]
    assert all(abs(row["planned"] / row["table 1"] - 1) < 0.0105 for row in contexts)
    assert len(proof) == 20 and all(row["every chip"] == "equal" for row in proof)
    for parts in found["frontier"].values():
        for x, y in parts["planned"].values():
            assert len(x) == len(y) > 5 and (np.diff(x) > -1e-9 * x[0]).all() and (np.diff(y) < 1e-9 * y[0]).all()
    json.dumps(found)
    plots = pytest.importorskip("pykernels.bench.inference_plots", exc_type=ImportError)
    figure = plots.frontier(found["frontier"])
    assert [axis.get_title() for axis in figure.axes] == ["decode", "prefill"]
    assert plots.frontier(None) is None
