"""The gradient of maxsim against autograd of the plain formula, and torch.compile."""

from __future__ import annotations

import pytest
from search_oracle import ragged

from pykernels.search import maxsim

torch = pytest.importorskip("torch")


def plain_formula(queries, x, query_mask, document_mask):
    """The definition in torch, all products at once."""
    products = (queries[:, None, :, None] * x[None, :, None]).sum(-1)
    best = products.masked_fill(~document_mask[None, :, None], -1e30).amax(-1)
    return best.masked_fill(~query_mask[:, None], 0).sum(-1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_gradient_of_both_sides(dtype):
    torch.manual_seed(0)
    kind = getattr(torch, dtype)
    queries, x = torch.randn(3, 7, 16, dtype=kind), torch.randn(5, 11, 16, dtype=kind)
    query_mask, document_mask = torch.rand(3, 7) < 0.6, torch.rand(5, 11) < 0.5
    document_mask[:, 3] = True
    weight = torch.randn(3, 5)
    ours, theirs = [(q.requires_grad_(), d.requires_grad_()) for q, d in ((queries.clone(), x.clone()) for _ in "12")]
    wide = [each.double() for each in theirs]
    (plain_formula(*wide, query_mask, document_mask) * weight).sum().backward()
    scores = maxsim(*ours, query_mask=query_mask, document_mask=document_mask)
    (scores * weight).sum().backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)
    frozen = queries.clone().requires_grad_()
    (maxsim(frozen, x, query_mask=query_mask, document_mask=document_mask) * weight).sum().backward()
    assert torch.equal(frozen.grad, ours[0].grad)
    documents = x.detach().clone().requires_grad_()
    (maxsim(queries, documents, query_mask=query_mask, document_mask=document_mask) * weight).sum().backward()
    assert torch.equal(documents.grad, ours[1].grad)


def test_gradient_by_finite_differences_of_packed_documents():
    tokens, offsets, _ = ragged([4, 0, 9, 1], 6)
    queries, tokens = torch.randn(5, 6, generator=torch.Generator().manual_seed(0)), torch.from_numpy(tokens)
    weight = torch.tensor([0.5, 0.0, -2.0, 1.5])

    def loss(q, x):
        scores = maxsim(q, x, document_offsets=offsets)
        return float((scores.double()[weight != 0] * weight[weight != 0]).sum())

    q, x = queries.clone().requires_grad_(), tokens.clone().requires_grad_()
    scores = maxsim(q, x, document_offsets=offsets)
    assert scores[1] == -torch.inf
    (scores[weight != 0] * weight[weight != 0]).sum().backward()
    step = 1e-3
    for leaf, other, call in ((queries, q, lambda z: loss(z, tokens)), (tokens, x, lambda z: loss(queries, z))):
        numeric = torch.zeros_like(leaf)
        for i in range(leaf.numel()):
            moved = [leaf.clone() for _ in "12"]
            moved[0].view(-1)[i] += step
            moved[1].view(-1)[i] -= step
            numeric.view(-1)[i] = (call(moved[0]) - call(moved[1])) / (2 * step)
        torch.testing.assert_close(other.grad, numeric, rtol=1e-2, atol=5e-3)


def test_gradient_is_the_same_bits_and_reaches_the_best_documents_only():
    tokens, offsets, _ = ragged([9] * 30, 32)
    queries = torch.randn(4, 16, 32, generator=torch.Generator().manual_seed(0))
    gradients = []
    for _ in range(3):
        q, x = queries.clone().requires_grad_(), torch.from_numpy(tokens).clone().requires_grad_()
        scores, ids = maxsim(q, x, document_offsets=offsets, k=2)
        scores.square().sum().backward()
        gradients.append((q.grad, x.grad))
    assert all(torch.equal(a, b) for other in gradients[1:] for a, b in zip(gradients[0], other, strict=True))
    touched = {int(token) // 9 for token in x.grad.abs().sum(1).nonzero()}
    assert touched == set(ids.unique().tolist())
    with torch.no_grad():
        assert not maxsim(q, x, document_offsets=offsets).requires_grad


def test_compiles_without_a_graph_break_and_has_its_gradient():
    def loss(queries, x, lengths, mask):
        scores, _ = maxsim(queries * 2, x, document_lengths=lengths, query_mask=mask, k=3)
        return scores.square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.manual_seed(0)
    for count in (6, 9):
        lengths, mask = torch.randint(1, 8, (count,)), torch.rand(2, 5) < 0.7
        results = []
        queries, x = torch.randn(2, 5, 16), torch.randn(count, 7, 16)
        for call in (loss, compiled):
            q, d = queries.clone().requires_grad_(), x.clone().requires_grad_()
            value = call(q, d, lengths, mask)
            value.backward()
            results.append((value, q.grad, d.grad))
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    packed = torch.compile(
        lambda q, x, offsets: maxsim(q, x, document_offsets=offsets), fullgraph=True, backend="aot_eager"
    )
    tokens, offsets = torch.randn(20, 16), torch.tensor([0, 4, 20])
    assert torch.equal(packed(queries[0], tokens, offsets), maxsim(queries[0], tokens, document_offsets=offsets))


def test_operators_pass_opcheck():
    from pykernels.search import _torch  # noqa: F401  registers them

    queries, x = torch.randn(2, 3, 8), torch.randn(4, 5, 8)
    lengths = torch.tensor([5, 2, 0, 1])
    for attained in (False, True):
        leaves = (queries.requires_grad_(attained), x.requires_grad_(attained))
        arguments = (*leaves, None, lengths, None, None, torch.rand(2, 3) < 0.7, attained, None)
        tests = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
        torch.library.opcheck(torch.ops.pykernels.maxsim, arguments, test_utils=tests if not attained else tests[:3])
    tokens = torch.randint(-1, 20, (2, 4, 3))
    arguments = (torch.randn(2, 4), tokens, queries.detach(), x.detach(), True, True)
    torch.library.opcheck(torch.ops.pykernels.maxsim_backward, arguments)
