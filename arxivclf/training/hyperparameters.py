"""What a training decides itself where its settings leave it open."""

from __future__ import annotations

from dataclasses import dataclass

from arxivclf.config import TrainSettings
from arxivclf.model.encoder import Encoder

# Papers that an encoder is trained on by default, each epoch counted: 5,000 steps of 32. With 128 tokens a paper this
# takes MiniLM about two hours on two cores.
PRESENTATIONS = 160_000
# More repetitions of a small set cost time and gain little; early stopping ends them sooner where they gain nothing.
MOST_EPOCHS = 6.0


@dataclass(frozen=True)
class Chosen:
    """The settings of a training as they are used: given, or what fits the base and the number of papers."""

    epochs: float
    learning_rate: float
    warmup: float
    device: str
    precision: str


def choose(settings: TrainSettings, encoder: Encoder, papers: int) -> Chosen:
    """Settle epochs by the number of papers, and learning rate and warm-up by the base.

    Small encoders want larger steps: 1e-4 served MiniLM (width 384), 2e-5 is the usual rate of BERT-base (768); large
    ones diverge without a slow start. Where little is trained (a head, LoRA) the steps are larger by ten and more.
    """
    width = getattr(encoder.model.config, "hidden_size", 768)
    rate, warmup = (1e-4, 0.06) if width <= 512 else (2e-5, 0.06) if width <= 768 else (1e-5, 0.10)
    rate = {"all": rate, "head": 1e-3, "lora": max(rate, 2e-4)}[settings.tune]
    return Chosen(
        epochs=settings.epochs if settings.epochs is not None else epochs_for(papers),
        learning_rate=settings.learning_rate or rate,
        warmup=warmup if settings.warmup is None else settings.warmup,
        device=str(encoder.device.where),
        precision=str(encoder.device.precision).removeprefix("torch."),
    )


def epochs_for(papers: int) -> float:
    """Epochs over so many papers that give about 5,000 steps of 32: at most 6, whole ones, and below 1 for more papers
    than these steps take.

    The steps decide how far a training gets, and what it costs. A few thousand papers are too few steps in one epoch
    (3,000: 94), and few-sample fine-tuning of BERT keeps improving over more epochs than the usual three (Mosbach,
    Andriushchenko and Klakow, ICLR 2021), while half a million papers would take ten hours on two cores in one. Papers
    are counted and not steps: another batch size leaves the cost as it is.
    """
    epochs = min(MOST_EPOCHS, PRESENTATIONS / papers)
    # A validation follows each epoch, however short it is.
    return float(round(epochs)) if epochs >= 1 else epochs
