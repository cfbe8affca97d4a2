"""A BERT in whose last layer only the first token of a paper goes on, for only that is read.

Its logits and gradients are those of the whole, and of six layers it saves a seventh of the work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch.nn.functional import gelu, scaled_dot_product_attention
from transformers import PreTrainedModel

# What is added to the scores of padding; its exponential is 0 in every precision.
_NEVER = -10_000.0

Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Of query (papers, heads, rows, size), key and value (papers, heads, width, size) and what is added to the scores,
float32 (papers, 1, 1, width): the mixed values, like the query."""


def fits(model: PreTrainedModel) -> bool:
    """Whether this module computes the same as the model's own code: a BERT as it was published, with a head."""
    config = model.config
    return (
        type(model).__name__ == "BertForSequenceClassification"
        and config.hidden_act == "gelu"
        and getattr(config, "position_embedding_type", "absolute") in (None, "absolute")
        and not config.is_decoder
        and not config.add_cross_attention
        # A layer that something was put around (an adapter) computes something else.
        and all(type(part) is torch.nn.Linear for name, part in model.named_modules() if name.endswith("dense"))
    )


class FirstToken(torch.nn.Module):
    """A BertForSequenceClassification that `fits`, without its dropout; the weights are its own."""

    def __init__(self, model: PreTrainedModel, attention: Attention | None = None) -> None:
        super().__init__()
        self.model = cast(Any, model)
        self.heads: int = model.config.num_attention_heads
        self.attention = attention or _attention

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits (papers, outputs) of token ids and mask, both int64 (papers, width)."""
        bert = self.model.bert
        there = bert.embeddings
        # All tokens are of the first type.
        places = there.position_embeddings.weight[: input_ids.shape[1]] + there.token_type_embeddings.weight[0]
        rows = there.LayerNorm(there.word_embeddings(input_ids) + places)
        mask = (1.0 - attention_mask[:, None, None, :].to(torch.float32)) * _NEVER
        last = len(bert.encoder.layer) - 1
        for at, layer in enumerate(bert.encoder.layer):
            attention = layer.attention.self
            key, value = (self._by_head(part(rows)) for part in (attention.key, attention.value))
            rows = rows[:, :1] if at == last else rows
            query = self._by_head(attention.query(rows))
            mixed = self.attention(query, key, value, mask).transpose(1, 2).flatten(2)
            rows = layer.attention.output.LayerNorm(layer.attention.output.dense(mixed) + rows)
            rows = layer.output.LayerNorm(layer.output.dense(gelu(layer.intermediate.dense(rows))) + rows)
        logits: torch.Tensor = self.model.classifier(torch.tanh(bert.pooler.dense(rows[:, 0])))
        return logits

    def _by_head(self, rows: torch.Tensor) -> torch.Tensor:
        parted: torch.Tensor = cast(Any, rows).unflatten(-1, (self.heads, -1))
        return parted.transpose(1, 2)


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return scaled_dot_product_attention(query, key, value, attn_mask=mask)
