"""Falcon's attention, which chooses among classes by name where other models call a function."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers.models.falcon import modeling_falcon

from ._transformers_forward import attention_forward


def register(name: str) -> None:
    modeling_falcon.FALCON_ATTENTION_CLASSES[name] = FalconAttention


class FalconAttention(modeling_falcon.FalconAttention):  # type: ignore[misc]
    """The weights of its base; keys and values are cached and read once for each group of heads."""

    def forward(
        self,
        hidden_states: Tensor,
        alibi: Tensor | None,
        attention_mask: Tensor | None,
        position_ids: Tensor | None = None,
        layer_past: Any = None,
        use_cache: bool = False,
        output_attentions: bool = False,
        position_embeddings: Any = None,
        **options: Any,
    ) -> tuple[Tensor, None]:
        """Output (B, S, E) of `hidden_states` (B, S, E); where there is an `alibi`, the mask contains it."""
        batch, length, _ = hidden_states.shape
        groups = self.num_kv_heads if self.new_decoder_architecture or self.multi_query else self.num_heads
        fused = self.query_key_value(hidden_states).view(batch, length, groups, -1, self.head_dim)
        query = fused[:, :, :, :-2].flatten(2, 3).transpose(1, 2)
        key, value = (fused[:, :, :, i].transpose(1, 2) for i in (-2, -1))
        if alibi is None:
            query, key = modeling_falcon.apply_rotary_pos_emb(query, key, *position_embeddings)
        if layer_past is not None:
            key, value = layer_past.update(key, value, self.layer_idx)
        out, _ = attention_forward(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout.p if self.training and alibi is not None else 0.0,
            output_attentions=output_attentions,
        )
        return self.dense(out.flatten(2)), None
