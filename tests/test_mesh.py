"""The simulated mesh: what collectives move, and the block that runs on it."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from pykernels.inference.mesh import Cache, Mesh, _block, _mesh, _report, place, plain_block, random_weights, run_block
from pykernels.inference.plan.volumes import Shapes

SHAPES = Shapes(width=12, hidden=24, heads=4, kv_heads=2, head_dim=4)


@pytest.mark.parametrize("module", [_mesh, _block, _report])
def test_doctests(module):
    assert doctest.testmod(module).failed == 0


def test_chips_hold_blocks_by_their_place():
    mesh, whole = Mesh(2, 3, 2), np.arange(12 * 8.0).reshape(12, 8)
    split = mesh.split(whole, ("zy", "x"))
    for x in range(2):
        for y in range(3):
            for z in range(2):
                row = 2 * (z * 3 + y)
                shard = split.shards[(x * 3 + y) * 2 + z]
                np.testing.assert_array_equal(shard, whole[row : row + 2, 4 * x : 4 * x + 4])
    np.testing.assert_array_equal(mesh.join(split), whole)


def test_all_gather_of_axes_that_split_different_dimensions():
    mesh, whole = Mesh(2, 3, 2), np.random.default_rng(0).normal(size=(12, 8))
    (gathered,) = mesh.all_gather([mesh.split(whole, ("zy", "x"))], "xy", "weights")
    assert gathered.spec == ("z", "") and gathered.shards[0].shape == (6, 8)
    np.testing.assert_array_equal(mesh.join(gathered), whole)
    assert mesh.log[0].group == 6
    for bytes_each in (mesh.log[0].sent, mesh.log[0].received):
        np.testing.assert_array_equal(bytes_each, np.full(12, 5 * 2 * 4 * 8))


def test_reduce_scatter_and_all_reduce_sum_over_their_axes():
    mesh, random = Mesh(2, 2, 3), np.random.default_rng(1)
    parts = random.normal(size=(2, 4, 6))  # partial sums over x, the second dimension split over z
    tensor = mesh.each(lambda part: part[0], mesh.split(parts, ("x", "", "z")), spec=("", "z"), partial="x")
    (scattered,) = mesh.reduce_scatter([tensor], "x", "up")
    assert scattered.spec == ("", "zx") and scattered.partial == ""
    np.testing.assert_array_equal(mesh.join(scattered), parts.sum(0))
    np.testing.assert_array_equal(mesh.log[0].received, np.full(12, 4 * 1 * 8))
    odd = mesh.each(lambda x: x[:3, :1], tensor, spec=("", "z"), partial="x")
    np.testing.assert_array_equal(mesh.join(mesh.all_reduce(odd, "x", "norm")), parts.sum(0)[:3, ::2])
    np.testing.assert_array_equal(mesh.log[1].received, np.full(12, 2 * 2 * 8))  # three numbers, padded to four


def test_all_to_all_moves_a_split_and_back():
    mesh, whole = Mesh(2, 2, 1), np.random.default_rng(2).normal(size=(8, 3, 12))
    columns = mesh.split(whole, ("", "", "zyx"))
    (batch,) = mesh.all_to_all([columns], "xyz", 0, 2, "there")
    assert batch.spec == ("xyz", "", "") and batch.shards[1].shape == (2, 3, 12)
    np.testing.assert_array_equal(mesh.join(batch), whole)
    (back,) = mesh.all_to_all([batch], "zyx", 2, 0, "back")
    for had, got in zip(columns.shards, back.shards, strict=True):
        np.testing.assert_array_equal(had, got)
    np.testing.assert_array_equal(mesh.log[0].sent, np.full(4, 3 * (2 * 3 * 3) * 8))


def layer_of_torch(shapes, weights, x, theta):
    """A decoder layer of whole sequences, from torch's functions; rotary positions are turns of complex numbers."""
    torch = pytest.importorskip("torch")
    F, E, D = torch.nn.functional, shapes.width, shapes.head_dim
    w, x = {name: torch.from_numpy(weight).double() for name, weight in weights.items()}, torch.from_numpy(x)

    def turned(heads):
        if theta is None:
            return heads
        angles = torch.arange(x.shape[1])[:, None] * theta ** (-torch.arange(0, D, 2, dtype=torch.float64) / D)
        z = torch.complex(heads[..., : D // 2], heads[..., D // 2 :]) * torch.polar(torch.ones_like(angles), angles)
        return torch.cat([z.real, z.imag], -1)

    def attended(h):
        heads = (h @ w["qkv.weight"].T).unflatten(-1, (-1, D)).transpose(1, 2)
        q, k, v = heads.split([shapes.heads, shapes.kv_heads, shapes.kv_heads], 1)
        out = F.scaled_dot_product_attention(turned(q), turned(k), v, is_causal=True, enable_gqa=True)
        return out.transpose(1, 2).flatten(2) @ w["output.weight"].T

    def fed(h):
        up = h @ w["up.weight"].T
        gate, value = up.chunk(2, -1) if shapes.gated else (up, torch.ones_like(up))
        return (F.silu(gate) * value) @ w["down.weight"].T

    h = F.rms_norm(x, (E,), w["attention_norm.weight"], 1e-6)
    y = x + attended(h)
    return y + fed(h if shapes.parallel else F.rms_norm(y, (E,), w["feedforward_norm.weight"], 1e-6))


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize(("gated", "theta"), [(True, 100.0), (False, None)])
def test_the_plain_block_is_a_decoder_layer(parallel, gated, theta):
    shapes = SHAPES._replace(gated=gated, parallel=parallel)
    weights = random_weights(shapes)
    x = np.random.default_rng(3).normal(size=(2, 5, 12))
    y, cache = plain_block(shapes, weights, x[:, :3], rotary_theta=theta)
    steps = [y]
    for t in (3, 4):
        y, cache = plain_block(shapes, weights, x[:, t : t + 1], cache, rotary_theta=theta)
        steps.append(y)
    expected = layer_of_torch(shapes, weights, x, theta)
    np.testing.assert_allclose(np.concatenate(steps, 1), expected, rtol=0, atol=1e-12)


def test_prefill_gathers_weights_and_decode_does_not_from_one_storage_and_cache():
    """The paper's serving of 540 billion parameters (its Table 2), in small; 6 sequences on 4 chips are padded."""
    shapes, mesh, cache = SHAPES._replace(kv_heads=1, parallel=True), Mesh(2, 2, 1), Cache()
    weights = random_weights(shapes)
    placed = place(mesh, "wgxyz", "batch", shapes, weights)
    x = np.random.default_rng(4).normal(size=(6, 7, 12))
    expected, _ = plain_block(shapes, weights, x, rotary_theta=50.0)
    layouts = {(0, 4): "wgxyz", (4, 5): "ws2d", (5, 6): "wgx", (6, 7): "wgxy"}
    for (start, stop), layout in layouts.items():
        y = run_block(mesh, layout, "batch", shapes, placed, x[:, start:stop], cache, rotary_theta=50.0)
        np.testing.assert_allclose(y, expected[:, start:stop], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(cache.nbytes, np.full(4, 2 * 2 * 7 * 4 * 8))


def test_bad_input():
    with pytest.raises(ValueError, match="torus axis Y=0"):
        Mesh(2, 0, 1)
    mesh, weights, x = Mesh(2, 2, 1), random_weights(SHAPES), np.ones((4, 1, 12))
    with pytest.raises(ValueError, match="multiple of 4 chips"):
        mesh.split(x[:3], ("xy", "", ""))
    with pytest.raises(ValueError, match="expected x as the minor axes"):
        mesh.all_gather([mesh.split(x, ("xy", "", ""))], "x", "example")
    with pytest.raises(ValueError, match="chip 0 differs from others"):
        mesh.join(_mesh.Sharded(tuple(np.arange(4.0).reshape(4, 1)), ("",), (1,)))
    with pytest.raises(ValueError, match=r"'down.weight'.*\(12, 24\)"):
        place(mesh, "ws2d", "heads", SHAPES, {**weights, "down.weight": weights["down.weight"].T})
    with pytest.raises(ValueError, match="feedforward_norm"):
        place(mesh, "ws2d", "heads", SHAPES._replace(parallel=True), weights)
    placed = place(mesh, "ws2d", "batch", SHAPES, weights)
    with pytest.raises(ValueError, match="layout='2d'"):
        run_block(mesh, "2d", "batch", SHAPES, placed, x)
    with pytest.raises(ValueError, match=r"\(4, 12\): expected \(B, L, 12\)"):
        run_block(mesh, "ws2d", "batch", SHAPES, placed, x[:, 0])
    with pytest.raises(ValueError, match="weights are split as"):
        run_block(mesh, "ws1d", "batch", SHAPES, placed, x)
    cache = Cache()
    run_block(mesh, "ws2d", "batch", SHAPES, placed, x, cache)
    with pytest.raises(ValueError, match="cache of 4 sequences"):
        run_block(mesh, "ws2d", "batch", SHAPES, placed, np.ones((5, 1, 12)), cache)
    with pytest.raises(ValueError, match="cache of 4 sequences"):
        run_block(mesh, "ws2d", "heads", SHAPES, place(mesh, "ws2d", "heads", SHAPES, weights), x, cache)
