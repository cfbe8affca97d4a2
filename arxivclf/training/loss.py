"""What a training makes small: the loss of each paper and label."""

from __future__ import annotations

from collections.abc import Callable

import torch

from arxivclf.config import TrainSettings
from arxivclf.training.dataset import Papers


def loss_of(
    settings: TrainSettings, papers: Papers, where: torch.device
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The loss of each paper and label, (papers, labels), from logits and truth of that shape."""
    entropy = torch.nn.functional.binary_cross_entropy_with_logits
    if settings.loss == "weighted":
        positive = torch.from_numpy(papers.truth.sum(axis=0))
        balance = ((len(papers) - positive) / positive).to(where)
        return lambda logits, truth: entropy(logits, truth, reduction="none", pos_weight=balance)
    if settings.loss == "focal":
        # Lin et al. (2017): what is right already counts less, by (1 - p)^gamma of its probability p.
        def focal(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
            each = entropy(logits, truth, reduction="none")
            # Never 0, of which a power below 1 has no slope.
            wrong = (-torch.expm1(-each)).clamp_min(1e-12)
            return wrong**settings.focal_gamma * each

        return focal
    return lambda logits, truth: entropy(logits, truth, reduction="none")
