"""Halo attention against attention over gathered pixels in torch, its gradients too, and what must not change it."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")
import torch
from conftest import same_bits

from pykernels.attention import halo_attention

CASES = [  # (B, H, height, width), D, Dv, block, halo, stride, pad, tables of rows and of columns
    ((2, 2, 16, 16), 16, 16, 8, 3, 1, "zero", (True, True)),
    ((1, 2, 13, 11), 5, 7, 4, 2, 2, "zero", (True, True)),
    ((1, 1, 9, 17), 40, 33, 6, 1, 3, "mask", (True, False)),
    ((1, 1, 3, 5), 1, 1, 8, 3, 1, "mask", (False, True)),
    ((1, 3, 20, 7), 17, 64, 2, 3, 1, "zero", (True, True)),
    ((1, 1, 12, 25), 64, 16, 12, 0, 4, "zero", (False, False)),
]
NAMES = ("q", "k", "v", "rel_height", "rel_width")


def make(shape, dim, value_dim, block, halo, stride, pad, tables, seed=0):
    """Arrays in float64, and the other arguments; queries of the full image."""
    rng = np.random.default_rng(seed)
    rel = [rng.standard_normal((2 * (block + halo) - 1, dim)) if given else None for given in tables]
    arrays = [rng.standard_normal((*shape, d)) for d in (dim, dim, value_dim)] + rel
    return arrays, {"block": block, "halo": halo, "stride": stride, "pad": pad}


def tensors(arrays, dtype, requires_grad=False):
    return [None if x is None else torch.tensor(x, dtype=dtype, requires_grad=requires_grad) for x in arrays]


def gathered(q, k, v, rel_height, rel_width, *, block, halo, stride, pad, scale=None):
    """The definition, with a copy of its window for every query."""
    height, width = k.shape[2:4]
    y, x = torch.meshgrid(torch.arange(0, height, stride), torch.arange(0, width, stride), indexing="ij")
    side = torch.arange(block + 2 * halo)
    key_y = (y - y % block - halo)[..., None, None] + side[:, None]
    key_x = (x - x % block - halo)[..., None, None] + side[None, :]
    key_y, key_x = torch.broadcast_tensors(key_y, key_x)
    inside = (key_y >= 0) & (key_y < height) & (key_x >= 0) & (key_x < width)
    at = key_y.clamp(0, height - 1), key_x.clamp(0, width - 1)
    keys, values = (torch.where(inside[..., None], a[:, :, at[0], at[1]], 0) for a in (k, v))
    q = q[:, :, ::stride, ::stride]
    s = torch.einsum("bhyxd,bhyxijd->bhyxij", q, keys) * (q.shape[-1] ** -0.5 if scale is None else scale)
    for table, offset in ((rel_height, key_y - y[..., None, None]), (rel_width, key_x - x[..., None, None])):
        if table is not None:
            s = s + torch.einsum("bhyxd,yxijd->bhyxij", q, table[offset + block - 1 + halo])
    if pad == "mask":
        s = s.masked_fill(~inside, -torch.inf)
    return torch.einsum("bhyxj,bhyxjd->bhyxd", s.flatten(4).softmax(-1), values.flatten(4, 5))


def with_gradients(function, given, options, grad_out):
    out = function(*given[:3], **dict(zip(NAMES[3:], given[3:], strict=True)), **options)
    asked = [x for x in given if x is not None]
    return [out, *torch.autograd.grad(out, asked, grad_out.to(out.dtype))]


def gap(found, right):
    return ((found.double() - right.double()).abs().max() / right.double().abs().max()).item()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_output_and_gradients(case):
    arrays, options = make(*case)
    shape = gathered(*tensors(arrays, torch.float64), **options).shape
    grad_out = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    right = with_gradients(gathered, tensors(arrays, torch.float64, True), options, grad_out)
    for dtype, tolerance in ((torch.float32, 5e-6), (torch.float64, 1e-13)):
        found = with_gradients(halo_attention, tensors(arrays, dtype, True), options, grad_out)
        assert all(x.dtype is dtype and x.shape == y.shape for x, y in zip(found, right, strict=True))
        assert max(map(gap, found, right)) < tolerance
    for dtype in (torch.float16, torch.bfloat16):
        given = tensors(arrays, dtype, True)
        exact = [None if x is None else x.detach().double().requires_grad_() for x in given]
        right = with_gradients(gathered, exact, options, grad_out.to(dtype).double())
        plain = with_gradients(gathered, given, options, grad_out)
        found = with_gradients(halo_attention, given, options, grad_out)
        for ours, theirs, expected in zip(found, plain, right, strict=True):
            assert gap(ours, expected) <= 2 * gap(theirs, expected) + torch.finfo(dtype).eps / 2


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_sizes(data):
    size = st.integers(1, 11)
    block, halo = data.draw(size), data.draw(st.integers(0, 5))
    stride = data.draw(st.sampled_from([s for s in range(1, block + 1) if block % s == 0]))
    pad, tables = data.draw(st.sampled_from(["zero", "mask"])), (data.draw(st.booleans()), data.draw(st.booleans()))
    shape = 1, data.draw(st.integers(1, 2)), data.draw(size), data.draw(size)
    arrays, options = make(shape, data.draw(size), data.draw(size), block, halo, stride, pad, tables)
    right = gathered(*tensors(arrays, torch.float64), **options, scale=0.5).numpy()
    narrow = [None if x is None else x.astype(np.float32) for x in arrays]
    found = halo_attention(*narrow[:3], rel_height=narrow[3], rel_width=narrow[4], **options, scale=0.5)
    np.testing.assert_allclose(found, right, atol=2e-5)


def test_reference_backend():
    arrays, options = make(*CASES[1])
    right = gathered(*tensors(arrays, torch.float64), **options).numpy()
    tables = dict(zip(NAMES[3:], arrays[3:], strict=True))
    np.testing.assert_allclose(halo_attention(*arrays[:3], **tables, **options, backend="reference"), right, atol=1e-13)


@pytest.mark.parametrize("pad", ["zero", "mask"])
def test_gradients_by_finite_differences(pad):
    arrays, options = make((1, 1, 5, 4), 2, 3, 2, 1, 2, pad, (True, True))

    def call(q, k, v, rel_height, rel_width):
        return halo_attention(q, k, v, rel_height=rel_height, rel_width=rel_width, **options)

    assert torch.autograd.gradcheck(call, tensors(arrays, torch.float64, True))


def run(arrays, options, **more):
    return halo_attention(*arrays[:3], rel_height=arrays[3], rel_width=arrays[4], **options, **more)


def test_layouts_and_out_do_not_change_the_bits():
    arrays, options = make(*CASES[1])
    arrays = [x.astype(np.float32) for x in arrays]
    right = run(arrays, options)
    channels_last = [np.ascontiguousarray(x.transpose(0, 2, 3, 1, 4)).transpose(0, 3, 1, 2, 4) for x in arrays[:3]]
    reverse = [np.ascontiguousarray(x[..., ::-1, :])[..., ::-1, :] for x in arrays]
    pixels_last = [np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2) for x in arrays]
    for views in ([*channels_last, *arrays[3:]], reverse, pixels_last):
        same_bits(run(views, options), right)
    stride = options["stride"]
    same_bits(run([arrays[0][:, :, ::stride, ::stride], *arrays[1:]], options), right)
    for memory in (np.full(right.shape, np.nan, np.float32), np.full((*right.shape[:4], 20), np.nan, np.float32)):
        for out in (memory[..., : right.shape[4]], memory[..., right.shape[4] - 1 :: -1][..., : right.shape[4]]):
            assert run(arrays, options, out=out) is out
            same_bits(np.ascontiguousarray(out), right)


def test_threads_and_batches_do_not_change_the_bits():
    """Of results and of gradients, where stripes of blocks overlap in three rounds."""
    arrays, options = make((2, 2, 24, 16), 16, 16, 4, 3, 1, "zero", (True, True))
    grad_out = torch.randn(2, 2, 24, 16, 16, generator=torch.Generator().manual_seed(0))
    threads = numba.get_num_threads()
    results = []
    for count in (1, threads):
        numba.set_num_threads(count)
        results.append(with_gradients(halo_attention, tensors(arrays, torch.float32, True), options, grad_out))
    for one, many in zip(*results, strict=True):
        same_bits(one.detach().numpy(), many.detach().numpy())
    member = [x[1:] for x in arrays[:3]] + arrays[3:]
    alone = with_gradients(halo_attention, tensors(member, torch.float32, True), options, grad_out[1:])
    for one, many in zip(alone[:4], results[0][:4], strict=True):
        same_bits(one[0].detach().numpy(), many[1].detach().numpy())


@pytest.mark.parametrize("pad", ["zero", "mask"])
def test_nan_stays_in_the_windows_that_hold_it(pad):
    arrays, options = make((1, 1, 12, 12), 8, 8, 4, 1, 1, pad, (True, True))
    arrays = [x.astype(np.float32) for x in arrays]
    right = run(arrays, options)
    for spoilt in (1, 2):
        broken = [x.copy() for x in arrays]
        broken[spoilt][0, 0, 8, 2] = np.nan  # in the windows of two blocks
        found = run(broken, options)
        touched = np.zeros((12, 12), bool)
        touched[4:12, :4] = True
        assert np.isnan(found[0, 0][touched]).any(-1).all()
        np.testing.assert_array_equal(found[0, 0][~touched], right[0, 0][~touched])


def test_infinite_logits():
    ones = np.ones((1, 1, 2, 2, 1), np.float32)
    options = {"block": 2, "halo": 0, "pad": "mask"}
    assert (halo_attention(ones, ones * -np.inf, ones, **options) == 0).all()
    assert np.isnan(halo_attention(ones, ones * np.inf, ones, **options)).all()
    assert (halo_attention(ones, ones * 1e30, ones, **options) == 1).all()


@pytest.mark.parametrize("shape", [(0, 2, 8, 8), (2, 0, 8, 8), (1, 1, 0, 8), (1, 1, 8, 0)])
def test_empty(shape):
    arrays, options = make(shape, 4, 3, 4, 1, 2, "zero", (True, False))
    given = tensors(arrays, torch.float32, True)
    out = run(given, options)
    assert out.shape == (*shape[:2], -(-shape[2] // 2), -(-shape[3] // 2), 3)
    out.sum().backward()
    assert all((x.grad == 0).all() and x.grad.shape == x.shape for x in given if x is not None)


def test_compiled_and_opcheck():
    from pykernels.attention import _halo_torch

    arrays, options = make((1, 2, 6, 7), 4, 4, 4, 1, 1, "zero", (True, False))

    def call(q, k, v, rel_height, rel_width):
        return halo_attention(q, k, v, rel_height=rel_height, rel_width=rel_width, **options) * 2

    given, again = (tensors(arrays, torch.float32, True) for _ in range(2))
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")(*given)
    eager = call(*again)
    assert torch.equal(compiled, eager)
    compiled.square().sum().backward()
    eager.square().sum().backward()
    assert all(torch.equal(x.grad, y.grad) for x, y in zip(given, again, strict=True) if x is not None)
    torch.library.opcheck(_halo_torch._halo_op, (*given, 4, 1, 1, False, 0.5, None))


ROWS = 2 * (4 + 1) - 1
BAD = [
    ({"block": 0}, ValueError, "block=0: expected an integer at least 1"),
    ({"block": 4.0}, TypeError, "block=4.0: expected an integer"),
    ({"halo": -1}, ValueError, "halo=-1: expected an integer at least 0"),
    ({"stride": 3}, ValueError, "stride=3: expected a divisor of block=4"),
    ({"stride": 8}, ValueError, "stride=8: expected an integer from 1 to 4"),
    ({"pad": "same"}, ValueError, "pad='same': expected one of zero, mask"),
    ({"pad": 0}, TypeError, "pad=0: expected a string"),
    ({"scale": "1"}, TypeError, "scale='1': expected a number"),
    ({"scale": np.inf}, ValueError, "scale=inf: expected a finite number"),
    ({"q": np.ones((1, 2, 8, 8), np.float32)}, ValueError, r"q has shape \(1, 2, 8, 8\): expected 5 axes"),
    ({"q": np.ones((1, 2, 4, 4, 4), np.float32)}, ValueError, r"q has shape .*: expected \(1, 2, 8, 8, 4\) for k"),
    ({"q": np.ones((1, 2, 8, 8, 4), np.int32)}, TypeError, "q has dtype int32"),
    ({"k": np.ones((1, 2, 8, 8, 4))}, TypeError, "k has dtype float64"),
    ({"k": np.ones((1, 2, 8, 8, 5), np.float32)}, ValueError, "expected the same last axis D"),
    ({"v": np.ones((1, 2, 8, 7, 4), np.float32)}, ValueError, "expected a value for every key"),
    ({"v": np.ones((1, 2, 8, 8, 0), np.float32)}, ValueError, "D and Dv of at least 1"),
    ({"v": torch.ones(1, 2, 8, 8, 4)}, TypeError, "v is a Tensor"),
    (
        {"rel_height": np.ones((ROWS - 1, 4), np.float32)},
        ValueError,
        r"rel_height has shape \(8, 4\): expected \(9, 4\)",
    ),
    ({"rel_width": np.ones((ROWS, 4))}, TypeError, "rel_width has dtype float64"),
    ({"out": np.ones((1, 2, 8, 8, 3), np.float32)}, ValueError, "out has shape"),
    ({"out": "v"}, ValueError, "out shares memory with the input"),
    ({"backend": "tpu"}, ValueError, "backend='tpu'"),
]


@pytest.mark.parametrize(
    ("change", "error", "message"), BAD, ids=[next(iter(b[0])) + f"-{i}" for i, b in enumerate(BAD)]
)
def test_bad_input(change, error, message):
    given = {name: np.ones((1, 2, 8, 8, 4), np.float32) for name in "qkv"}
    given |= {"block": 4, "halo": 1, "out": np.full((1, 2, 8, 8, 4), 7, np.float32)} | change
    if isinstance(given["out"], str):
        given["out"] = given["v"]
    before = given["out"].copy()
    with pytest.raises(error, match=message):
        halo_attention(**given)
    np.testing.assert_array_equal(given["out"], before)
