"""How fast a training is, beside a plain transformers.Trainer on the same papers and base, and whether it is as good.

    pip install 'accelerate>=1.15,<2'
    python benchmarks/training.py arxiv.parquet [PAPERS] [MAX_TOKENS] [VALIDATION]

PAPERS (4,000) are read and split as `arxivclf train` does; VALIDATION takes the place of the validation part. The peer
keeps Trainer's defaults: float32, papers in random order, padding to the longest of a batch, dropout on, AdamW; it has
our batch size, learning rate, warm-up and one pass, since its own learning rate and batch of 8 (tried as well) are
slower or worse. The papers per second are those of the training steps alone; F1 is that of the validation papers at its
best threshold, both models scored in one precision. Both run one after the other, all cores each.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments
from transformers import logging as transformers_logging

from arxivclf import TrainSettings
from arxivclf.corpus.rejects import RejectsFile
from arxivclf.corpus.tasks import Task
from arxivclf.model.devices import find
from arxivclf.model.encoder import Encoder
from arxivclf.model.hub import find_base
from arxivclf.model.labels import Scores
from arxivclf.progress import Watcher
from arxivclf.reporting.metrics import Confusion, best_threshold
from arxivclf.training.checkpoint import Checkpoints
from arxivclf.training.dataset import Dataset, collect
from arxivclf.training.finetune import finetune
from arxivclf.training.hyperparameters import Chosen, choose
from arxivclf.training.processes import Processes


class Clock(Watcher):
    """The papers and the seconds of the stage called Training."""

    papers, seconds = 0, 0.0

    def begin(self, stage: str, total: int | None, done: int = 0) -> None:
        self.stage_now, self.started = stage, time.perf_counter()

    def advance(self, papers: int, share: float | None = None, **facts: float) -> None:
        if self.stage_now == "Training":
            self.papers += papers

    def end(self) -> None:
        if self.stage_now == "Training":
            self.seconds = time.perf_counter() - self.started


def ours(dataset: Dataset, settings: TrainSettings, chosen: Chosen, folder: Path) -> tuple[float, Scores]:
    torch.manual_seed(settings.seed)
    encoder = Encoder.start(find_base(settings.base), ["ai"], settings.max_tokens, find("cpu"))
    clock = Clock()
    checkpoints = Checkpoints(folder / "model", {}, 1e9, clock)
    trained = finetune(encoder, dataset, settings, chosen, checkpoints, Processes(), lambda figures, step: None, clock)
    return clock.papers / clock.seconds, trained.validation_logits


def plain_trainer(dataset: Dataset, settings: TrainSettings, chosen: Chosen, folder: Path) -> tuple[float, Scores]:
    torch.manual_seed(settings.seed)
    encoder = Encoder.start(find_base(settings.base), ["ai"], settings.max_tokens, find("cpu", "float32"))
    texts, truth = encoder.tokenize(dataset.train.texts.to_list()), dataset.train.truth
    rows = [{"input_ids": ids, "labels": labels} for ids, labels in zip(texts, truth.tolist(), strict=True)]
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=settings.batch_size,
        num_train_epochs=1,
        learning_rate=chosen.learning_rate,
        warmup_steps=chosen.warmup,
        seed=settings.seed,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
    )
    trainer = Trainer(encoder.model, arguments, DataCollatorWithPadding(encoder.tokenizer), rows)
    rate = trainer.train().metrics["train_samples_per_second"]
    encoder = replace(encoder, device=find("cpu"))
    return rate, encoder.logits(encoder.tokenize(dataset.validation.texts.to_list()))


def main(path: str, papers: str = "4000", tokens: str = "512", validation: str | None = None) -> None:
    transformers_logging.set_verbosity_error()
    max_tokens = int(tokens)
    settings = TrainSettings(
        (path,), clean="cset2020", max_papers=int(papers), max_tokens=max_tokens, epochs=1.0, validation=validation
    )
    with RejectsFile(None) as rejects:
        dataset = collect(settings, Task.load(settings.task), rejects, Watcher())
    base = Encoder.start(find_base(settings.base), ["ai"], max_tokens, find("cpu"))
    chosen = choose(settings, base, len(dataset.train))
    print(
        f"{len(dataset.train):,} papers to train, {len(dataset.validation):,} to validate, {max_tokens} tokens at most,"
        f" {torch.get_num_threads()} threads"
    )
    truth = dataset.validation.truth[:, 0] > 0.5
    rates = []
    peers: dict[str, Callable[[Dataset, TrainSettings, Chosen, Path], tuple[float, Scores]]] = {
        "arxivclf": ours,
        "plain Trainer": plain_trainer,
    }
    for name, train in peers.items():
        with TemporaryDirectory() as folder:
            rate, logits = train(dataset, settings, chosen, Path(folder))
        given = logits[:, 0] >= np.float32(best_threshold(truth, logits[:, 0]))
        print(f"{name:<14} {rate:6.1f} papers/s   validation F1 {Confusion.count(truth, given).f1:.4f}", flush=True)
        rates.append(rate)
    print(f"ratio {rates[0] / rates[1]:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
