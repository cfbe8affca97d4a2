"""Which parameters of an encoder a training changes: all of them, its head alone, or small matrices beside its own."""

from __future__ import annotations

from typing import Any, cast

import torch
from transformers import PreTrainedModel

from arxivclf.errors import MissingExtraError, ModelError


def open_for_training(model: PreTrainedModel, tune: str, lora_rank: int) -> PreTrainedModel:
    """The model to train: `all` as it is, `head` with its body frozen, `lora` with low-rank updates (Hu et al. 2021).

    Raises MissingExtraError where peft is needed and not there, ModelError where a base gives no hold for it.
    """
    if tune == "head":
        body = getattr(model, model.base_model_prefix, None)
        if body is None or body is model:
            raise ModelError("tune = head: this base does not tell its head from its body")
        body.requires_grad_(False)
    if tune == "lora":
        try:
            from peft import LoraConfig, TaskType, get_peft_model
        except ImportError:
            raise MissingExtraError("tune = lora needs its extra: pip install 'arxivclf[lora]'") from None
        # All linear layers of the body, as Dettmers et al. (2023) found best; the head is trained whole.
        config = LoraConfig(
            task_type=TaskType.SEQ_CLS, r=lora_rank, lora_alpha=2 * lora_rank, target_modules="all-linear"
        )
        return cast(PreTrainedModel, get_peft_model(model, config))
    return model


def merged(model: PreTrainedModel) -> PreTrainedModel:
    """The model with its updates added to its own matrices: a plain one again."""
    adapted: Any = model
    return cast(PreTrainedModel, adapted.merge_and_unload()) if hasattr(adapted, "merge_and_unload") else model


def decayed(model: torch.nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """What the optimiser trains, in two groups: BERT's own training decays matrices, and neither biases nor norms."""
    trained = [weights for weights in model.parameters() if weights.requires_grad]
    return [
        {"params": [weights for weights in trained if weights.ndim >= 2], "weight_decay": weight_decay},
        {"params": [weights for weights in trained if weights.ndim < 2], "weight_decay": 0.0},
    ]
