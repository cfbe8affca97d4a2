"""A BERT in whose last layer only the first token of a paper goes on, for only that is read.

Its logits and gradients are those of the whole, and of six layers it saves a sixth of the work.
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
        self.first = _First(self.model.bert.encoder.layer[-1].attention.self, self.heads)

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
            if at == last:
                mixed = self.first(rows, mask)
                rows = rows[:, :1]
            else:
                own = layer.attention.self
                query, key, value = (self._by_head(part(rows)) for part in (own.query, own.key, own.value))
                mixed = self.attention(query, key, value, mask).transpose(1, 2).flatten(2)
            rows = layer.attention.output.LayerNorm(layer.attention.output.dense(mixed) + rows)
            rows = layer.output.LayerNorm(self.fed_forward(at, layer, rows) + rows)
        logits: torch.Tensor = self.model.classifier(torch.tanh(bert.pooler.dense(rows[:, 0])))
        return logits

    def fed_forward(self, at: int, layer: Any, rows: torch.Tensor) -> torch.Tensor:
        """What the two products of layer `at` make of rows (papers, width or 1, size); like the rows."""
        made: torch.Tensor = layer.output.dense(gelu(layer.intermediate.dense(rows)))
        return made

    def _by_head(self, rows: torch.Tensor) -> torch.Tensor:
        parted: torch.Tensor = cast(Any, rows).unflatten(-1, (self.heads, -1))
        return parted.transpose(1, 2)


class _First(torch.nn.Module):
    """The attention of each paper's first token alone, which needs no key and no value of any token.

    With one query q, the score q (K x) of a token x is (q K) x, and what is mixed, the sum of p (V x), is V times the
    sum of p x: a product for each head and paper instead of two for each token.
    """

    def __init__(self, attention: Any, heads: int) -> None:
        super().__init__()
        self.attention, self.heads = attention, heads

    def forward(self, rows: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(papers, 1, size) of rows (papers, width, size); `mask` (papers, 1, 1, width) is added to the scores."""
        query, key, value = self.attention.query, self.attention.key, self.attention.value
        asking = query(rows[:, 0]).unflatten(1, (self.heads, -1)).transpose(0, 1)
        asked = torch.matmul(asking, key.weight.unflatten(0, (self.heads, -1))).transpose(0, 1)
        # The bias moves all scores of a head alike, and is there for the sake of its gradient.
        common = torch.matmul(asking, key.bias.view(self.heads, -1, 1)).transpose(0, 1)
        scores = (torch.matmul(asked, rows.transpose(1, 2)) + common) * asking.shape[-1] ** -0.5
        taken = torch.matmul(torch.softmax(scores + mask[:, 0], -1), rows).transpose(0, 1)
        mixed = torch.matmul(taken, value.weight.unflatten(0, (self.heads, -1)).transpose(1, 2))
        made: torch.Tensor = mixed.transpose(0, 1).flatten(1)[:, None] + value.bias
        return made


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return scaled_dot_product_attention(query, key, value, attn_mask=mask)
