"""Bad input of the plan: the exact error, and what is said of padding."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from pykernels.inference.plan import (
    Chip,
    Efficiency,
    Model,
    Slice,
    calibrate,
    crossovers,
    draw,
    longest_context,
    pareto,
    plan,
)

PALM = Model.named("palm-540b")
TPU = Chip.named("tpu-v4")
CUBE = Slice.of(TPU, (4, 4, 4))
FITS = plan(PALM, TPU, 64, batch=1, context=1)[0]


def test_what_does_not_fit_names_the_nearest_that_does():
    case = dict(batch=512, context=2048, weights="int8")
    with pytest.raises(ValueError, match=r"palm-540b does not fit 16 x tpu-v4 .* GiB of the 32 of a chip") as error:
        plan(PALM, TPU, 16, **case)
    near = re.search(r"fits with (\d+) chips, or with batch=(\d+), or with context=(\d+)$", str(error.value))
    chips, batch, context = map(int, near.groups())
    assert plan(PALM, TPU, chips, **case)[0].fits
    for one, beyond in ((dict(batch=batch), dict(batch=batch + 1)), (dict(context=context), dict(context=context + 1))):
        assert plan(PALM, TPU, 16, **dict(case, **one))[0].fits
        with pytest.raises(ValueError, match="does not fit"):
            plan(PALM, TPU, 16, **dict(case, **beyond))


def test_what_fits_with_narrower_numbers_says_so():
    with pytest.raises(ValueError, match=r"fits with 32 chips, or with int8 weights$"):
        plan(PALM, TPU, 16, batch=1, context=100)
    with pytest.raises(ValueError, match=r"or with int8 cache, or with batch="):
        plan(PALM, TPU, 64, batch=4096, context=4096)
    with pytest.raises(ValueError, match=r"nothing near it fits either$"):
        plan(PALM, replace(TPU, memory=1e6), 1, batch=1, context=1)
    with pytest.raises(ValueError, match="palm-540b does not fit 4 x tpu-v4"):
        pareto(PALM, TPU, 4, context=2048)


def test_padding_is_said():
    model = Model("odd", layers=2, width=100, hidden=250, heads=6, kv_heads=3, head_dim=10, vocab=50)
    notes = {result.attention: result.notes for result in plan(model, "h100", 4, batch=3, context=8)}
    assert "hidden 250 padded to 252" in notes["heads"] and "width" not in str(notes)
    assert "batch 3 padded to 4, a multiple of 4 chips" in notes["batch"]
    assert {note for note in notes["heads"] if "heads" in note} == {"heads 6 padded to 8", "key heads 3 padded to 4"}
    assert (
        "links of h100 connect 8 chips: assumed between all 16" in plan(PALM, "h100", 16, batch=1, context=1)[0].notes
    )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(model="palm"), ValueError, "model='palm': expected one of palm-8b, palm-62b, palm-540b"),
        (dict(model=3), TypeError, "model is a int: expected a Model or its name"),
        (dict(chip="v4"), ValueError, "chip='v4': expected one of tpu-v4, tpu-v5e, a100"),
        (dict(chips=0), ValueError, "chips=0: expected an integer at least 1"),
        (dict(chips=2.0), TypeError, r"chips=2.0: expected an integer"),
        (dict(batch=0), ValueError, "batch=0: expected"),
        (dict(context=0), ValueError, "context=0: expected"),
        (dict(new_tokens=0), ValueError, "new_tokens=0: expected"),
        (dict(phase="train"), ValueError, "phase='train': expected one of prefill, decode"),
        (dict(cached=1), ValueError, "cached=1: of a decode all of the context is"),
        (dict(cached=8, phase="prefill"), ValueError, "cached=8: expected fewer than context=8"),
        (dict(weights="int4"), ValueError, "weights='int4': expected one of bf16, int8, fp8"),
        (dict(cache="fp4"), ValueError, "cache='fp4': expected"),
        (dict(compute=None), TypeError, "compute=None: expected a string"),
        (dict(efficiency=0), ValueError, "efficiency=0: expected a finite number above 0, at most 1"),
        (dict(efficiency=1.5), ValueError, "efficiency=1.5: expected"),
        (dict(efficiency=float("nan")), ValueError, "efficiency=nan: expected"),
        (dict(overlap=-0.1), ValueError, "overlap=-0.1: expected a finite number of at least 0, at most 1"),
        (dict(overlap="no"), TypeError, "overlap='no': expected"),
        (dict(links="all"), ValueError, "links='all': expected one of pooled, axes"),
    ],
)
def test_arguments_of_plan(change, error, message):
    case = dict(model=PALM, chip=TPU, chips=64, batch=1, context=8) | change
    with pytest.raises(error, match=message):
        plan(**case)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Model("m", 1, 1, 1, 6, 4, 1, 1), ValueError, "kv_heads=4: expected a divisor of heads=6"),
        (lambda: Model("m", 0, 1, 1, 1, 1, 1, 1), ValueError, "layers=0: expected"),
        (lambda: PALM.with_heads(40), ValueError, "padded_heads=40: expected an integer at least 48"),
        (lambda: Model.named("llama-3-8b").with_heads(33), ValueError, "padded_heads=33: expected a multiple of"),
        (lambda: PALM.cache_bytes(1, "int4"), ValueError, "dtype='int4'"),
        (lambda: Model.from_config({"model_type": "t5"}), ValueError, "model_type='t5': expected one of falcon, gemma"),
        (lambda: Model.from_config({"model_type": "llama"}), ValueError, "config has no 'num_hidden_layers'"),
        (lambda: Model.from_config([]), TypeError, "config is a list"),
        (lambda: replace(TPU, bandwidth=-1), ValueError, "bandwidth=-1: expected a finite number above 0"),
        (lambda: replace(TPU, dimensions=4), ValueError, "dimensions=4: expected an integer from 0 to 3"),
        (lambda: TPU.rate("fp4"), ValueError, "dtype='fp4'"),
        (lambda: Slice((4, 4), 1.0), ValueError, "expected three integers"),
        (lambda: Slice((4, 4, 0), 1.0), ValueError, "shape=0: expected"),
        (lambda: Slice((4, 4, 4), 0.0), ValueError, "bandwidth=0.0: expected"),
        (lambda: Efficiency(flops=0), ValueError, "efficiency flops=0: expected"),
        (lambda: Efficiency(overhead=-1), ValueError, "efficiency overhead=-1: expected"),
        (lambda: crossovers(PALM, TPU, 64), TypeError, "slice is a int: expected a Slice"),
        (lambda: crossovers(PALM, TPU, CUBE, formula="best"), ValueError, "formula='best': expected one of paper"),
        (lambda: longest_context(PALM, TPU, 64, batch=1, share=2.0), ValueError, "share=2.0: expected"),
        (lambda: longest_context(PALM, TPU, 64, batch=1, layout="2d"), ValueError, "layout='2d': expected one of ws1d"),
        (lambda: pareto(PALM, TPU, 64, context=1, batches=()), ValueError, "batches is empty"),
        (lambda: pareto(PALM, TPU, (), context=1), ValueError, "chips, weights or cache is empty"),
        (lambda: calibrate([(FITS, 1.0)]), ValueError, "1 points for 4 parameters: expected at least as many"),
        (lambda: calibrate([(FITS, 0.0)], fit=("flops",)), ValueError, "measured seconds=0.0: expected"),
        (lambda: calibrate([(1, 1.0)], fit=("flops",)), TypeError, "points has a int"),
        (lambda: calibrate([], fit=()), ValueError, r"fit=\(\): expected at least one of flops"),
        (lambda: calibrate([], fit=("speed",)), ValueError, "fit='speed': expected one of flops"),
        (lambda: draw([]), ValueError, "results is empty"),
    ],
)
def test_arguments_of_the_others(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_config_that_is_no_json(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is no JSON"):
        Model.from_config(tmp_path)
    with pytest.raises(FileNotFoundError):
        Model.from_config(tmp_path / "other.json")


def test_a_layout_that_is_another_for_want_of_an_axis_is_still_planned():
    whole = longest_context("palm-8b", "tpu-v4", 1, batch=1)
    for named in ({"attention": "batch"}, {"layout": "ws2d"}, {"layout": "wgxyz", "attention": "batch"}):
        assert longest_context("palm-8b", "tpu-v4", 1, batch=1, **named) == whole > 0


def test_one_or_several_batches():
    assert pareto(PALM, TPU, 64, context=128, batches=64) == pareto(PALM, TPU, (64,), context=128, batches=[64])
    with pytest.raises(TypeError, match=r"chips=3\.5: expected one or several"):
        pareto(PALM, TPU, 3.5, context=128)
