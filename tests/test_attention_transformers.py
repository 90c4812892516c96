"""Models of Hugging Face transformers run with our attention as they do with their own."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5.4")

from pykernels.attention import register_with_transformers  # noqa: E402
from pykernels.attention._transformers_forward import attention_forward  # noqa: E402

SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
    "tie_word_embeddings": False,
    "initializer_range": 0.2,
}
GROUPED = {**SIZES, "num_key_value_heads": 2, "intermediate_size": 96, "max_position_embeddings": 128}
WINDOW = 12
CONFIGS = {
    "gpt_bigcode": ("GPTBigCode", {**SIZES, "n_positions": 128, "multi_query": True}),
    "falcon": ("Falcon", {**SIZES, "multi_query": True, "new_decoder_architecture": False}),
    "falcon_groups": ("Falcon", {**SIZES, "num_kv_heads": 2, "new_decoder_architecture": True}),
    "llama": ("Llama", GROUPED),
    "mistral": ("Mistral", {**GROUPED, "sliding_window": WINDOW, "head_dim": 8}),
    "gemma2": (
        "Gemma2",
        {**GROUPED, "head_dim": 8, "sliding_window": WINDOW, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 4},
    ),
    "gpt_oss": (
        "GptOss",
        {**GROUPED, "head_dim": 8, "sliding_window": WINDOW, "num_local_experts": 4, "num_experts_per_tok": 2},
    ),
    "qwen2_moe": (  # does not tell its attention how wide the window is
        "Qwen2Moe",
        {
            **GROUPED,
            "sliding_window": WINDOW,
            "use_sliding_window": True,
            "max_window_layers": 1,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
            "shared_expert_intermediate_size": 32,
        },
    ),
}
LENGTH = 29
NEW = 64


@pytest.fixture(scope="module", autouse=True)
def registered():
    register_with_transformers()


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pair(name: str, **changes: object) -> list:
    """The same random model with eager attention, and with ours."""
    family, sizes = CONFIGS[name]
    config = getattr(transformers, f"{family}Config")(**{**sizes, **changes})
    made = getattr(transformers, f"{family}ForCausalLM")
    torch.manual_seed(0)
    eager = made._from_config(copy.deepcopy(config), attn_implementation="eager").eval()
    ours = made._from_config(copy.deepcopy(config), attn_implementation="pykernels").eval()
    ours.load_state_dict(eager.state_dict())
    return [eager, ours]


def tokens(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(2, 97, (rows, length)))


def left_padded(rows: int, length: int) -> dict[str, torch.Tensor]:
    mask = torch.ones(rows, length, dtype=torch.int64)
    for row in range(1, rows):
        mask[row, : 5 * row] = 0
    return {"input_ids": tokens(rows, length) * mask, "attention_mask": mask}


def close(got: torch.Tensor, want: torch.Tensor) -> None:
    torch.testing.assert_close(got, want, rtol=1e-5, atol=2e-5 * max(1, float(want.abs().max())))


def generated(model, inputs: dict[str, torch.Tensor], **options: object) -> torch.Tensor:
    return model.generate(**inputs, max_new_tokens=NEW, do_sample=False, pad_token_id=0, **options)


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_and_generated_tokens_are_those_of_eager_attention(name):
    eager, ours = pair(name)
    inputs = left_padded(3, LENGTH)
    kept = inputs["attention_mask"].bool()
    with torch.no_grad():
        close(ours(**inputs).logits[kept], eager(**inputs).logits[kept])
        one = inputs["input_ids"][:1]
        close(ours(one).logits, eager(one).logits)
    want = generated(eager, inputs)
    assert len(want[0, LENGTH:].unique()) > 4
    assert torch.equal(generated(ours, inputs), want)


@pytest.mark.parametrize("name", ["gpt_bigcode", "mistral", "gpt_oss"])
@pytest.mark.parametrize("padded", [False, True])
def test_static_caches(name, padded):
    eager, ours = pair(name)
    inputs = left_padded(3 if padded else 1, LENGTH)
    want = generated(eager, inputs)
    assert torch.equal(generated(ours, inputs, cache_implementation="static", disable_compile=True), want)


@pytest.mark.parametrize("cache", [transformers.DynamicCache, transformers.StaticCache])
@pytest.mark.parametrize("name", ["llama", "gemma2"])
def test_prefill_in_chunks(name, cache):
    eager, ours = pair(name)
    ids = tokens(2, LENGTH)
    options = {"max_cache_len": 40} if cache is transformers.StaticCache else {}
    past = cache(config=ours.config, **options)
    with torch.no_grad():
        got = [ours(part, past_key_values=past).logits for part in ids.split((9, 1, 14, 5), 1)]
        close(torch.cat(got, 1), eager(ids).logits)


@pytest.mark.parametrize("name", ["gpt_bigcode", "gpt_oss"])
def test_gradients_are_those_of_eager_attention(name):
    eager, ours = pair(name, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0)
    ids = tokens(2, LENGTH)
    for model in (eager, ours):
        model.train()
        model(ids, labels=ids).loss.backward()
    for (parameter, want), got in zip(eager.named_parameters(), ours.parameters(), strict=True):
        assert torch.isfinite(got.grad).all() and got.grad.any(), parameter
        close(got.grad, want.grad)


def test_compiled_as_one_graph():
    eager, ours = pair("mistral", num_hidden_layers=1)
    inputs = left_padded(2, LENGTH)
    kept = inputs["attention_mask"].bool()
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        close(compiled(**inputs, use_cache=False).logits[kept], eager(**inputs).logits[kept])


def test_compiled_decoding():
    eager, ours = pair("gpt_bigcode", num_hidden_layers=1)
    inputs = left_padded(2, LENGTH)
    prefill, decode = ours.forward, torch.compile(ours.forward, fullgraph=True, backend="aot_eager")

    @functools.wraps(prefill)
    def forward(*args, **options):
        return (decode if options["input_ids"].shape[1] == 1 else prefill)(*args, **options)

    ours.forward = forward
    got = generated(ours, inputs, cache_implementation="static", disable_compile=True)
    assert torch.equal(got, generated(eager, inputs))


@pytest.mark.parametrize("lengths", [(11, 11), (11, 3), (7, 11)], ids=["full", "right", "left"])
def test_encoder(lengths):
    config = transformers.BertConfig(**{**SIZES, "intermediate_size": 96, "max_position_embeddings": 32})
    torch.manual_seed(0)
    eager = transformers.BertModel._from_config(config, attn_implementation="eager").eval()
    mask = (torch.arange(11) < torch.tensor(lengths)[:, None]).long()
    if lengths[0] < lengths[1]:
        mask = mask.flip(1)
    outputs = []
    with torch.no_grad():
        for name in ("eager", "pykernels"):
            eager.set_attn_implementation(name)
            outputs.append(eager(tokens(2, 11), attention_mask=mask).last_hidden_state)
    close(*outputs[::-1])


def test_position_biases_and_cross_attention():
    config = transformers.T5Config(
        vocab_size=97, d_model=64, d_kv=8, d_ff=96, num_layers=2, num_heads=8, decoder_start_token_id=1, dropout_rate=0
    )
    torch.manual_seed(0)
    model = transformers.T5ForConditionalGeneration._from_config(config, attn_implementation="eager")
    inputs = left_padded(2, LENGTH)
    outputs, gradients = [], []
    for name in ("eager", "pykernels"):
        model.set_attn_implementation(name)
        model.zero_grad()
        result = model(**inputs, labels=tokens(2, 7))
        result.loss.backward()
        outputs.append(result.logits.detach())
        gradients.append(model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight.grad)
    close(*outputs[::-1])
    close(*gradients[::-1])
    assert gradients[0].any()


def test_sentence_embeddings_of_a_real_model():
    real_model = pytest.importorskip("pykernels.bench.real_model")
    encoder = pytest.importorskip(real_model.PACKAGE) and real_model.Encoder()
    texts = real_model.sentences()[:24]
    encoder.tokenizer.enable_padding()
    encoded = encoder.tokenizer.encode_batch(texts)
    ids, mask = (torch.tensor([getattr(e, name) for e in encoded]) for name in ("ids", "attention_mask"))
    embeddings = []
    with torch.no_grad():
        for name in ("eager", "pykernels"):
            encoder.model.set_attn_implementation(name)
            hidden = encoder.model(input_ids=ids, attention_mask=mask).last_hidden_state
            pooled = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            embeddings.append(torch.nn.functional.normalize(pooled))
    assert not mask.all() and abs(embeddings[0][0] - embeddings[0][1]).max() > 0.01
    torch.testing.assert_close(embeddings[1], embeddings[0], rtol=0, atol=1e-5)


def test_output_is_contiguous_and_masks_of_users_are_taken():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, 5, 8, generator=generator) for heads in (4, 2, 2))
    bias = torch.randn(1, 4, 5, 5, generator=generator)
    allowed = torch.rand(2, 1, 5, 5, generator=generator) > 0.3
    allowed |= torch.eye(5, dtype=torch.bool)
    added = torch.where(allowed, 0.0, torch.finfo(torch.float32).min)
    module = torch.nn.Module()
    want = torch.nn.functional.scaled_dot_product_attention(q, k, v, bias + added, scale=0.5, enable_gqa=True)
    for mask in (allowed, added):
        out, weights = attention_forward(module, q, k, v, mask, scaling=0.5, position_bias=bias)
        assert weights is None and out.shape == (2, 5, 4, 8) and out.is_contiguous()
        close(out, want.transpose(1, 2))
    with pytest.raises(ValueError, match="attention_mask has shape"):
        attention_forward(module, q, k, v, torch.ones(2, 5, dtype=torch.bool))


def test_what_is_not_supported_is_refused_by_name():
    _, ours = pair("llama", attention_dropout=0.1)
    with pytest.raises(NotImplementedError, match=r"dropout=0\.1"):
        ours.train()(tokens(1, 5))
    with pytest.raises(NotImplementedError, match="output_attentions"):
        ours.eval()(tokens(1, 5), output_attentions=True)
    with pytest.raises(TypeError, match="name must be a string"):
        register_with_transformers(3)
    for name in ("sdpa", "my_flash", "a b", ""):
        with pytest.raises(ValueError, match="name="):
            register_with_transformers(name)
