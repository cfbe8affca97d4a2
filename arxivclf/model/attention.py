"""Attention for training on a CPU: whole matrices in the precision of the products, and a backward pass to match.

torch's fused attention saves memory by computing the probabilities again on the way back, in blocks; on a CPU, at the
lengths of abstracts, this costs more time than keeping them. MiniLM, 256 tokens, bfloat16, two cores with avx512_bf16:
22.6 papers/s with this, 15.8 with the fused one, 16.7 with transformers' own matrices ("eager", softmax in float32).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, bidirectional_mask_function, sdpa_mask

_NAME = "arxivclf_matrices"
_LEFT_TO_TORCH = ("softcap", "position_bias", "cache", "s_aux")


@contextmanager
def matrices(model: PreTrainedModel) -> Iterator[None]:
    """Have a model on a CPU compute its attention this way as long as the block lasts, if its code lets it be chosen.

    The forward pass alone is faster fused, so that validation and labelling go without.
    """
    if model.device.type != "cpu" or model.config._attn_implementation != "sdpa":
        yield
        return
    AttentionInterface.register(_NAME, _attention)
    AttentionMaskInterface.register(_NAME, _mask)
    model.set_attn_implementation(_NAME)
    try:
        yield
    finally:
        model.set_attn_implementation("sdpa")


def _mask(
    *,
    mask_function: Callable[..., Any] = bidirectional_mask_function,
    attention_mask: torch.Tensor | None = None,
    **more: Any,
) -> torch.Tensor | None:
    """What padding alone hides, as a bias (papers, 1, 1, width) of 0 and -inf; any other mask as torch's has it."""
    if attention_mask is not None and attention_mask.ndim == 2 and mask_function is bidirectional_mask_function:
        hidden = attention_mask[:, None, None, :] == 0
        return torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, -torch.inf)
    mask: torch.Tensor | None = sdpa_mask(mask_function=mask_function, attention_mask=attention_mask, **more)
    return mask


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers asks for: query, key, value (papers, heads, width, size of a head); the result (papers, width,
    heads, size). What an encoder of padded texts does not need is left to torch."""
    by_padding = attention_mask is not None and attention_mask.is_floating_point()
    special = dropout or key.shape != query.shape or any(more.get(name) is not None for name in _LEFT_TO_TORCH)
    if special or not by_padding:
        visible = attention_mask
        if attention_mask is not None and by_padding:
            visible = attention_mask == 0
        result: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, visible, dropout=dropout, scaling=scaling, **more
        )
        return result
    mixed = by_matrices(query, key, value, cast(torch.Tensor, attention_mask), scaling)
    return mixed.transpose(1, 2).contiguous(), None


def by_matrices(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor, scale: float | None = None
) -> torch.Tensor:
    """Of query (papers, heads, rows, size), key and value (papers, heads, width, size) the values mixed for each row.

    `bias` (papers, 1, 1, width) is added to the scores; the scale is 1 / sqrt(size) unless given.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    return cast(torch.Tensor, cast(Any, _Matrices).apply(query, key, value, bias, scale))


class _Matrices(torch.autograd.Function):
    """softmax(scale * query key^T) value, the probabilities kept for the way back."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        shape = ctx.shape = query.shape
        of_each_head = bias.to(query.dtype).expand(*shape[:2], 1, -1).flatten(0, 1)
        query, key, value = (part.flatten(0, 1) for part in (query, key, value))
        scores = torch.baddbmm(of_each_head, query, key.transpose(1, 2), alpha=scale)
        shares = torch.softmax(scores, -1)
        ctx.save_for_backward(query, key, value, shares)
        ctx.scale = scale
        return torch.bmm(shares, value).view(shape)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, shares = ctx.saved_tensors
        of_keys = (*ctx.shape[:2], *key.shape[1:])
        mixed = gradients[0].flatten(0, 1)
        to_value = torch.bmm(shares.transpose(1, 2), mixed)
        to_shares = torch.bmm(mixed, value.transpose(1, 2))
        to_scores = torch.ops.aten._softmax_backward_data(to_shares, shares, -1, shares.dtype)
        to_query = torch.bmm(to_scores, key).mul_(ctx.scale)
        to_key = torch.bmm(to_scores.transpose(1, 2), query).mul_(ctx.scale)
        return to_query.view(ctx.shape), to_key.view(of_keys), to_value.view(of_keys), None, None
