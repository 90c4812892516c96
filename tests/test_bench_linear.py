"""The benchmarks of linear layers: every provider agrees with float64, and wrong ones are caught."""

from __future__ import annotations

import functools

import numpy as np
import pytest

pytest.importorskip("pytest_benchmark")
pytest.importorskip("torch")

from pykernels.bench import harness, linear_peers
from pykernels.bench import linear_workloads as workloads
from pykernels.bench.bench_linear import groups
from pykernels.bench.harness import Disagreement
from pykernels.bench.linear_peers import BF16, FBGEMM, FP32, INTEGER, PACKED, WIDENED
from pykernels.bench.linear_workloads import Shape, dynamic, weight_only


@pytest.fixture(autouse=True)
def two_copies(monkeypatch):
    monkeypatch.setattr(workloads, "rotations", lambda nbytes: 2)


@pytest.fixture
def nothing_compiled(monkeypatch):
    monkeypatch.setattr(workloads.quant, "linear", functools.partial(workloads.quant.linear, backend="reference"))


def test_every_group_has_a_name_of_its_own_and_quick_is_a_part():
    quick, full = ([group.name for group in groups(choice)] for choice in (True, False))
    assert len(set(full)) == len(full) and set(quick) < set(full)


@pytest.mark.parametrize("m", [1, 16])
def test_narrow_weights_agree(nothing_compiled, m):
    harness.untimed(weight_only("int8", "bfloat16", Shape(m, 96, 128), (PACKED, WIDENED, BF16, FP32)))
    if m == 1:
        harness.untimed(weight_only("bfloat16", "bfloat16", Shape(m, 96, 128), (BF16,)))


@pytest.mark.exhaustive
@pytest.mark.parametrize("m", [1, 16, 130])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("format", ["int8", "e4m3fn"])
def test_all_narrow_weights_agree(format, dtype, m):
    names = (WIDENED, FP32) if dtype == "float32" else (WIDENED, BF16, FP32)
    harness.untimed(weight_only(format, dtype, Shape(m, 192, 2048), names))
    harness.untimed(dynamic(Shape(m, 192, 2048), (INTEGER, FBGEMM, BF16)))


def test_int8_on_both_sides_agrees(nothing_compiled):
    harness.untimed(dynamic(Shape(17, 96, 128), (INTEGER, FBGEMM, BF16)))


def test_copies_lie_apart_and_leave_the_cache():
    weight = workloads.make_weight("int8", Shape(1, 8, 64))
    copies = workloads.copies(weight, 4)
    assert len(copies) == 2
    assert not any(np.shares_memory(copies[0].codes, other.codes) for other in (copies[1], weight))


def test_the_limit_is_what_takes_longer(monkeypatch):
    seconds = {"reading": 1.0, "square": 2.0, "cube": 3.0}
    monkeypatch.setattr(workloads, "reading", lambda nbytes: "reading")
    monkeypatch.setattr(workloads, "product_alone", lambda dtype, flops: {"square": "square", "cube": "cube"})
    monkeypatch.setattr(workloads, "quickest", seconds.get)
    assert list(workloads.longer("float32", 1, 1)) == ["square", "cube"]
    seconds["reading"] = 2.5
    assert list(workloads.longer("float32", 1, 1)) == ["reading"]


def test_wrong_products_are_caught(nothing_compiled, monkeypatch):
    right = linear_peers.product

    def without_scales(name, x, codes, scale):
        return right(name, x, codes, scale * 0 + scale.mean())

    monkeypatch.setattr(linear_peers, "product", without_scales)
    with pytest.raises(Disagreement, match=r"matrix-vector, int8 weight bf16 M=1, 96 x 128: torch bf16: .*float64"):
        harness.untimed(weight_only("int8", "bfloat16", Shape(1, 96, 128), (BF16,)))
    monkeypatch.setattr(linear_peers, "product", right)
    monkeypatch.setattr(workloads.quant, "linear", lambda x, weight, **_: x @ weight.codes.to(x.dtype).T)
    with pytest.raises(Disagreement, match=r"pykernels: .*float64"):
        harness.untimed(weight_only("int8", "bfloat16", Shape(1, 96, 128), ()))
