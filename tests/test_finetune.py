"""The training loop's parts: attention, losses, what is trained, early stopping, figures kept and told elsewhere."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from click.testing import Result
from conftest import PAPERS, error_line, papers, read_jsonl, write_jsonl
from safetensors.torch import load_file
from torch.nn.functional import binary_cross_entropy_with_logits

from arxivclf import TrainSettings, train
from arxivclf.corpus.rejects import RejectsFile
from arxivclf.corpus.tasks import Task
from arxivclf.errors import ArxivclfError
from arxivclf.model.attention import by_matrices, matrices
from arxivclf.model.devices import find
from arxivclf.model.encoder import Encoder
from arxivclf.model.first_token import FirstToken
from arxivclf.progress import Watcher
from arxivclf.training.dataset import Dataset, collect
from arxivclf.training.finetune import logits_of
from arxivclf.training.hyperparameters import choose
from arxivclf.training.loss import loss_of
from arxivclf.training.processes import Processes


def settings(base: Path, folder: Path, **how: Any) -> TrainSettings:
    plain: dict[str, Any] = {"since": 1990, "epochs": 1.0, "max_tokens": 24, "learning_rate": 3e-3}
    return TrainSettings((str(PAPERS),), base=str(base), output=str(folder / "model"), **{**plain, **how})


def info(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "model/arxivclf.json").read_text())
    return found


@pytest.mark.parametrize(("precision", "off_by"), [("float32", 2e-6), ("bfloat16", 0.03)])
@pytest.mark.parametrize("widths", [(7, 7, 7), (24, 9, 3)])
def test_attention_by_matrices_is_attention(
    tiny_base: Path, precision: str, off_by: float, widths: tuple[int, ...]
) -> None:
    """Logits and gradients are those of transformers' own attention, with padding and without."""
    token_ids = [list(range(5, 5 + width)) for width in widths]
    found: list[tuple[torch.Tensor, dict[str, torch.Tensor]]] = []
    for implementation in ("eager", "matrices"):
        torch.manual_seed(0)
        encoder = Encoder.start(tiny_base, ["ai"], 32, find("cpu", precision))
        if implementation == "eager":
            encoder.model.set_attn_implementation("eager")
        with matrices(encoder.model):
            used = encoder.model.config._attn_implementation
            logits = encoder.forward(token_ids, np.arange(len(widths)))
            (logits * torch.arange(1.0, 1.0 + len(widths))[:, None]).sum().backward()
        assert used != "sdpa"
        assert (used == "eager") == (implementation == "eager")
        assert encoder.model.config._attn_implementation == ("eager" if implementation == "eager" else "sdpa")
        named = encoder.model.named_parameters()
        found.append((logits.detach(), {name: one.grad for name, one in named if one.grad is not None}))
    (logits, gradients), (ours, our_gradients) = found
    assert torch.allclose(logits, ours, atol=off_by)
    assert gradients.keys() == our_gradients.keys()
    for name, gradient in gradients.items():
        # The bias of a key moves all scores of a query alike: its gradient is zero but for rounding.
        if "key.bias" not in name:
            assert (gradient - our_gradients[name]).norm() <= 2 * off_by * gradient.norm() + 1e-6, name


@pytest.mark.parametrize("by_hand", [True, False])
@pytest.mark.parametrize(("precision", "off_by"), [("float32", 2e-6), ("bfloat16", 0.03)])
def test_the_first_token_alone_gives_the_gradients_of_the_whole(
    tiny_base: Path, precision: str, off_by: float, by_hand: bool
) -> None:
    """Logits and all gradients are those of transformers' own code, of papers with padding."""
    token_ids = [list(range(5, 5 + width)) for width in (24, 9, 3)]
    found: list[tuple[torch.Tensor, dict[str, torch.Tensor]]] = []
    for first_token in (False, True):
        torch.manual_seed(0)
        encoder = Encoder.start(tiny_base, ["ai"], 32, find("cpu", precision))
        network: Any = FirstToken(encoder.model, by_matrices if by_hand else None) if first_token else encoder.model
        logits = replace(encoder, model=network).forward(token_ids, np.arange(3))
        (logits * torch.arange(1.0, 4.0)[:, None]).sum().backward()
        gradients = {name: weights.grad for name, weights in encoder.model.named_parameters()}
        assert all(gradient is not None for gradient in gradients.values())
        found.append((logits.detach(), {name: one for name, one in gradients.items() if one is not None}))
    (logits, gradients), (ours, own) = found
    torch.testing.assert_close(ours, logits, atol=off_by, rtol=off_by)
    largest = max(float(one.abs().max()) for one in gradients.values())
    for name, gradient in gradients.items():
        torch.testing.assert_close(own[name], gradient, atol=off_by * largest, rtol=0.0, msg=name)


def test_the_losses_by_hand(tiny_base: Path, tmp_path: Path) -> None:
    dataset = gather(tmp_path)
    share = float(dataset.train.truth.mean())
    logits, truth = torch.tensor([[2.0], [-1.0], [0.5]]), torch.tensor([[1.0], [1.0], [0.0]])

    def loss(**how: Any) -> torch.Tensor:
        return loss_of(TrainSettings(**how), dataset.train, torch.device("cpu"))(logits, truth)

    plain = -torch.log(torch.tensor([[0.880797], [0.268941], [1 - 0.622459]]))
    assert torch.allclose(loss(), plain, atol=1e-5)
    balance = torch.tensor([[(1 - share) / share], [(1 - share) / share], [1.0]])
    assert torch.allclose(loss(loss="weighted"), plain * balance, atol=1e-4)
    off = torch.tensor([[1 - 0.880797], [1 - 0.268941], [0.622459]])
    assert torch.allclose(loss(loss="focal"), off**2 * plain, atol=1e-5)
    assert torch.allclose(loss(loss="focal", focal_gamma=0.0), plain, atol=1e-5)
    # A power below 1 has a slope where a paper is surely right, too.
    sure = torch.tensor([[-120.0], [-18.0]], requires_grad=True)
    half = loss_of(TrainSettings(loss="focal", focal_gamma=0.5), dataset.train, torch.device("cpu"))
    half(sure, torch.zeros(2, 1)).sum().backward()
    assert sure.grad is not None
    assert torch.isfinite(sure.grad).all()


def gather(folder: Path) -> Dataset:
    dump = write_jsonl(folder / "dump.jsonl", papers(300))
    with RejectsFile(None) as rejects:
        return collect(TrainSettings((str(dump),)), Task.load(("ai",)), rejects, Watcher())


@pytest.mark.parametrize("loss", ["weighted", "focal"])
def test_each_loss_trains(tiny_base: Path, tmp_path: Path, loss: str) -> None:
    result = train(settings(tiny_base, tmp_path, loss=loss, epochs=6.0, max_tokens=48, patience=0))
    table = pl.read_csv(tmp_path / "model/training.csv")
    assert table.get_column("training_loss")[-1] < 0.85 * table.get_column("training_loss")[0]
    assert result.test.labels[0].confusion.f1 > 2 * 0.36 / 1.36
    assert info(tmp_path)["settings"]["loss"] == loss


def test_a_frozen_body_stays_as_it_was(tiny_base: Path, tmp_path: Path) -> None:
    train(settings(tiny_base, tmp_path, tune="head"))
    before, after = load_file(tiny_base / "model.safetensors"), load_file(tmp_path / "model/model.safetensors")
    body = {name.removeprefix("bert."): weights for name, weights in after.items() if name.startswith("bert.")}
    assert len(body) > 20
    for name, weights in body.items():
        if name in before and not name.startswith("pooler"):
            assert torch.equal(weights, before[name]), name
    torch.manual_seed(0)
    fresh = Encoder.start(tiny_base, ["ai"], 24, find("cpu")).model
    assert not torch.equal(after["classifier.weight"], fresh.state_dict()["classifier.weight"])


def test_lora_ends_in_a_plain_model(tiny_base: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    train(settings(tiny_base, tmp_path, tune="lora", lora_rank=4, epochs=6.0, max_tokens=48))
    before, after = load_file(tiny_base / "model.safetensors"), load_file(tmp_path / "model/model.safetensors")
    assert not [name for name in after if "lora" in name]
    assert not list((tmp_path / "model").glob("adapter*"))
    name = "encoder.layer.0.attention.self.query.weight"
    change = after[f"bert.{name}"] - before[name]
    assert torch.linalg.matrix_rank(change, rtol=1e-3) <= 4
    assert change.abs().max() > 0
    assert torch.equal(after["bert.embeddings.word_embeddings.weight"], before["embeddings.word_embeddings.weight"])
    losses = pl.read_csv(tmp_path / "model/training.csv").get_column("training_loss")
    assert losses[-1] < losses[0] - 0.02


@pytest.mark.parametrize(
    ("module", "options", "extra"),
    [
        ("peft", ["--tune", "lora"], "lora"),
        ("wandb", ["--track", "wandb"], "wandb"),
        ("torch.utils.tensorboard", ["--track", "tensorboard"], "tensorboard"),
    ],
)
def test_an_extra_that_is_missing_is_named(
    cli: Callable[..., Result],
    tiny_base: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    options: list[str],
    extra: str,
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    line = error_line(cli("train", PAPERS, "--base", tiny_base, "--since", 1990, "-q", *options), 1)
    assert f"pip install 'arxivclf[{extra}]'" in line
    assert not Path("model").exists()


def test_training_stops_when_it_gets_no_better_and_keeps_the_best_pass(tiny_base: Path, tmp_path: Path) -> None:
    result = train(settings(tiny_base, tmp_path, epochs=40.0, patience=2, max_tokens=48))
    table = pl.read_csv(tmp_path / "model/training.csv")
    f1 = table.get_column("validation_f1").to_list()
    assert len(f1) < 40
    loss = table.get_column("validation_loss").to_list()
    best = max(range(len(f1)), key=lambda number: (f1[number], -loss[number]))
    assert len(f1) == best + 3
    assert info(tmp_path)["chosen"]["kept_pass"] == best + 1
    # The weights that were written are those of the best pass: they give its figures again.
    assert result.info.metrics["alone"]["encoder"]["validation"]["ai"]["f1"] == pytest.approx(f1[best], abs=1e-9)


def test_without_patience_the_last_pass_is_kept(tiny_base: Path, tmp_path: Path) -> None:
    result = train(settings(tiny_base, tmp_path, epochs=12.0, patience=0, learning_rate=1e-2))
    f1 = pl.read_csv(tmp_path / "model/training.csv").get_column("validation_f1").to_list()
    assert len(f1) == 12
    assert info(tmp_path)["chosen"]["kept_pass"] == 12
    assert result.info.metrics["alone"]["encoder"]["validation"]["ai"]["f1"] == pytest.approx(f1[-1], abs=1e-9)


def test_small_and_large_bases_are_given_other_rates(tiny_base: Path) -> None:
    encoder = Encoder.start(tiny_base, ["ai"], 24, find("cpu"))
    rates = {}
    for width in (384, 768, 1024):
        encoder.model.config.hidden_size = width
        chosen = choose(TrainSettings(), encoder, 100_000)
        rates[width] = (chosen.learning_rate, chosen.warmup)
        assert choose(TrainSettings(learning_rate=1e-3, warmup=0.0), encoder, 1_000).learning_rate == 1e-3
    assert rates[384] > rates[768] > rates[1024]
    assert rates[1024][1] > rates[768][1]
    assert choose(TrainSettings(), encoder, 160_000).epochs == 1
    assert choose(TrainSettings(), encoder, 400).epochs == 6
    assert choose(TrainSettings(tune="head"), encoder, 400).learning_rate > 10 * rates[384][0] / 2


def test_compiled_training_is_the_same_training(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the compiler's front end alone: what it makes of the graph needs a C++ compiler at run time."""
    calls = []
    real = torch.compile

    def compiled(model: Any, **how: Any) -> Any:
        calls.append(how)
        return real(model, backend="eager", **how)

    monkeypatch.setattr(torch, "compile", compiled)
    losses = []
    for name, compile_ in (("plain", False), ("compiled", True)):
        train(settings(tiny_base, tmp_path / name, compile=compile_, precision="float32"))
        losses.append(pl.read_csv(tmp_path / name / "model/training.csv").get_column("training_loss")[0])
    assert len(calls) == 1
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_figures_of_each_pass_are_kept(tiny_base: Path, tmp_path: Path) -> None:
    result = train(settings(tiny_base, tmp_path, epochs=2.0, task=("ai", "nlp"), patience=0, gate=False))
    with open(tmp_path / "model/training.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1.0", "2.0"]
    assert int(rows[0]["step"]) * 2 == int(rows[1]["step"])
    last = rows[-1]
    f1 = [float(last[f"{label}_f1"]) for label in ("ai", "nlp")]
    assert float(last["validation_f1"]) == pytest.approx(sum(f1) / 2)
    for one in result.validation.labels:
        assert float(last[f"{one.name}_f1"]) == pytest.approx(one.confusion.f1)
    assert result.info.metrics["training_loss"] == pytest.approx(float(last["training_loss"]))


def test_the_validation_loss_is_the_mean_entropy(model: Path) -> None:
    """Of the example model, against torch, on the validation part that the split gives."""
    from arxivclf import Classifier
    from arxivclf.corpus.splits import VALIDATION, split_by_hash

    rows = read_jsonl(PAPERS)
    sides = split_by_hash(pl.Series([row["id"] for row in rows]))
    chosen = [row for row, side in zip(rows, sides, strict=True) if side == VALIDATION]
    (loaded,) = Classifier.load(model, device="cpu").models
    texts = [" ".join(f"{row['title']}. {row['abstract']}".split()) for row in chosen]
    logits = torch.from_numpy(logits_of(loaded.encoder, loaded.tokenize(texts), Processes(), Watcher())[:, 0])
    ai = {"cs.AI", "cs.CL", "cs.CV", "cs.LG", "cs.MA", "cs.RO", "stat.ML"}
    truth = torch.tensor([float(bool(ai & set(row["categories"].split()))) for row in chosen])
    table = pl.read_csv(model / "training.csv")
    kept = json.loads((model / "arxivclf.json").read_text())["chosen"]["kept_pass"]
    loss = table.filter(pl.col("epoch") == kept).get_column("validation_loss").item()
    assert loss == pytest.approx(float(binary_cross_entropy_with_logits(logits, truth)), rel=1e-5)


def test_a_batch_in_groups_is_that_batch(tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of like length spare padding and change nothing: weights and losses are those of whole batches."""
    found = []
    for tokens in (1, 100, 1_000_000):
        monkeypatch.setattr("arxivclf.training.finetune._TOKENS_PER_GROUP", {"cpu": tokens})
        made = train(settings(tiny_base, tmp_path / str(tokens), precision="float32", max_tokens=48, epochs=0.5))
        found.append((made.info.metrics["training_loss"], load_file(made.folder / "model.safetensors")))
    (loss, weights), *others = found
    for other_loss, other_weights in others:
        assert other_loss == pytest.approx(loss, rel=1e-4)
        for name, one in weights.items():
            torch.testing.assert_close(other_weights[name], one, rtol=1e-3, atol=1e-4)


def test_tensorboard_has_the_figures(cli: Callable[..., Result], tiny_base: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    result = cli("train", PAPERS, "--base", tiny_base, "--since", 1990, "--max-tokens", 24, "--track", "tensorboard")
    assert result.exit_code == 0, result.output
    events = accumulator.EventAccumulator("model.runs")
    events.Reload()
    table = pl.read_csv("model/training.csv")
    validated = [event.value for event in events.Scalars("validation_loss")]
    assert validated == pytest.approx(table.get_column("validation_loss").to_list(), rel=1e-6)
    assert len(events.Scalars("loss")) == table.get_column("step")[-1]


def test_weights_and_biases_has_the_figures(
    cli: Callable[..., Result], tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own library, offline, writes a run to disk."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    result = cli("train", PAPERS, "--base", tiny_base, "--since", 1990, "--max-tokens", 24, "--track", "wandb")
    assert result.exit_code == 0, result.output
    (run,) = Path("model.runs/wandb").glob("offline-run-*/run-*.wandb")
    assert b"validation_f1" in run.read_bytes()


def test_a_loss_that_is_not_finite_stops_the_training(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(ArxivclfError, match=r"loss became (nan|inf); a lower --learning-rate \(now 1e\+30\)"):
        train(settings(tiny_base, tmp_path, learning_rate=1e30))
    assert not (tmp_path / "model").exists()
