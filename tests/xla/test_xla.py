"""Training and labelling through XLA, for real, on its CPU device: all that a TPU does but its speed.

torch-xla wants a torch of its own, so that these tests have an environment of their own; .ci/run makes it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from click.testing import Result
from conftest import ROOT, error_line, paper, write_jsonl
from observed import CRASH_AT, SMALL_BATCHES, Observed, counter, observe, observe_resumed
from safetensors.torch import load_file
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
)

from arxivclf import Classifier, TrainSettings
from arxivclf.model.devices import find
from arxivclf.model.encoder import Encoder
from arxivclf.model.xla import XlaDevice

if find_spec("torch_xla") is None:
    pytest.skip("torch-xla is not installed; .ci/run makes an environment with it", allow_module_level=True)

# Read when XLA starts. To optimise code for a CPU takes it most of the time, and proves nothing here.
XLA_ON_CPU = {"PJRT_DEVICE": "CPU", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
os.environ.update(XLA_ON_CPU)

# 120 papers, short and long: batches of both widths, in training and in validation.
SHAPES = {"train 8x128 8x128", "train 8x128 8x64", "score 32x64", "score 16x128"}
CLOSE = 1e-4


@pytest.fixture(scope="session")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Papers that a tiny encoder can tell apart, half of them longer than 64 tokens."""
    rows = [
        paper(
            f"2101.{number:05d}",
            title=f"Number {number}",
            abstract=("learning agents " if number % 3 else "gluons and quarks ") * (30 if number % 2 else 4),
            categories="cs.LG" if number % 3 else "hep-th",
        )
        for number in range(1, 121)
    ]
    return write_jsonl(tmp_path_factory.mktemp("dump") / "dump.jsonl", rows)


@pytest.fixture(scope="session")
def settings(dump: Path, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainSettings:
    return TrainSettings(
        (str(dump),),
        base=str(tiny_base),
        output=str(tmp_path_factory.mktemp("trained") / "model"),
        device="tpu",
        batch_size=16,
        max_tokens=128,
        learning_rate=1e-2,
        epochs=3.0,
        patience=0,
        precision="float32",
    )


@pytest.fixture(scope="session")
def trained(settings: TrainSettings) -> Observed:
    """A training on one device; its model is in the folder that the settings name. Do not write into it."""
    return observe(settings)


def far(one: Observed | dict[str, Any], other: Observed | dict[str, Any]) -> float:
    """The largest difference between the losses of two trainings."""
    losses = [found["losses"] if isinstance(found, dict) else found.losses for found in (one, other)]
    assert len(losses[0]) == len(losses[1]) > 1
    return float(np.abs(np.array(losses[0]) - np.array(losses[1])).max())


def test_xla_compiles_once_for_each_shape(trained: Observed) -> None:
    assert trained.shapes == SHAPES
    assert trained.compiled == [len(SHAPES)] * 3
    assert trained.compiled_at_end == len(SHAPES)
    assert "XLA compiled 4 times for 4 shapes of batches" in trained.said


def test_the_host_reads_nothing_within_a_step(trained: Observed) -> None:
    assert trained.steps > 12
    assert trained.reads == 0


def test_the_losses_are_those_of_the_cpu(trained: Observed, settings: TrainSettings, tmp_path: Path) -> None:
    cpu = observe(replace(settings, device="cpu", output=str(tmp_path / "model")))
    assert cpu.compiled_at_end == 0
    assert far(trained, cpu) < CLOSE
    assert trained.losses[2][1] < trained.losses[0][1] - 0.1


def test_logits_are_those_of_the_cpu(trained: Observed, settings: TrainSettings) -> None:
    devices = [find("cpu", "float32"), find("tpu", "float32")]
    encoders = [Encoder.load(Path(settings.output), 128, device) for device in devices]
    texts = ["agents " * length for length in range(1, 140)] + ["gluons and quarks of a lattice"] * 200
    token_ids = encoders[0].tokenize(texts)
    assert {len(paper) <= 64 for paper in token_ids} == {True, False}
    before = counter("UncachedCompile")
    with SMALL_BATCHES:
        cpu, xla = (encoder.logits(token_ids) for encoder in encoders)
    assert cpu.std() > 0.1
    assert np.abs(cpu - xla).max() < CLOSE
    # The shapes are those of the validation, so that nothing is left to compile.
    assert counter("UncachedCompile") == before


def test_a_saved_model_opens_on_a_cpu(trained: Observed, settings: TrainSettings, dump: Path) -> None:
    judged = pl.read_parquet(Path(settings.output) / "test.labels.parquet").select("id", "ai_score")
    here = Classifier.load(settings.output, device="cpu").label(dump).select("id", cpu="ai_score")
    both = judged.join(here, on="id")
    assert len(both) == len(judged) > 10
    assert both.get_column("cpu").std() > 0.05
    # The scores that the trained weights gave on XLA, and those of the saved ones; a processor with bfloat16 uses it.
    close = CLOSE if find("cpu").precision == torch.float32 else 0.02
    assert both.select((pl.col("cpu") - pl.col("ai_score")).abs().max()).item() < close


def test_labelling_is_that_of_the_cpu(
    trained: Observed, settings: TrainSettings, dump: Path, cli: Callable[..., Result]
) -> None:
    scores, before = {}, counter("UncachedCompile")
    for device in ("cpu", "tpu"):
        with SMALL_BATCHES:
            done = cli("label", dump, "--model", settings.output, "--device", device, "-o", f"{device}.parquet")
        assert done.exit_code == 0, done.output
        scores[device] = pl.read_parquet(f"{device}.parquet").get_column("ai_score").to_numpy()
    assert "XLA on a CPU, for tests, in float32: 1 core" in " ".join(done.stderr.split())
    assert "XLA compiled 0 times for 2 shapes of batches" in done.stderr
    assert counter("UncachedCompile") == before
    close = CLOSE if find("cpu").precision == torch.float32 else 0.02
    assert len(scores["tpu"]) == 120
    assert np.abs(scores["cpu"] - scores["tpu"]).max() < close


def test_a_training_that_was_cut_off_goes_on(trained: Observed, settings: TrainSettings, tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    cut_off = replace(settings, output=str(tmp_path / "model"))
    observe(cut_off, crash_at=CRASH_AT)
    shutil.copy(tmp_path / ".model.checkpoint.safetensors", tmp_path / "cpu" / ".model.checkpoint.safetensors")
    resumed = observe(replace(cut_off, resume=True))
    assert resumed.said[2].startswith(f"Going on from step {CRASH_AT} ")
    assert far(trained, resumed) < 1e-6
    assert resumed.compiled_at_end == 0
    elsewhere = observe(replace(cut_off, resume=True, device="cpu", output=str(tmp_path / "cpu" / "model")))
    assert elsewhere.steps == resumed.steps == trained.steps - CRASH_AT
    assert far(trained, elsewhere) < CLOSE


def test_dropout_goes_on_with_its_own_random_numbers(settings: TrainSettings, tmp_path: Path) -> None:
    short = replace(settings, max_tokens=64, epochs=2.0)
    drops = replace(short, dropout=True)
    whole = observe(replace(drops, output=str(tmp_path / "whole")))
    assert far(whole, observe(replace(short, output=str(tmp_path / "cpu"), device="cpu"))) > CLOSE
    assert far(whole, observe_resumed(replace(drops, output=str(tmp_path / "resumed")), crash_at=CRASH_AT)) < 1e-6


def test_bfloat16_trains(settings: TrainSettings, tmp_path: Path) -> None:
    short = replace(settings, max_tokens=64, epochs=2.0)
    fast = observe(replace(short, precision="bfloat16", output=str(tmp_path / "model")))
    assert fast.compiled == [2, 2]
    assert fast.losses[1][1] < fast.losses[0][1]
    # Rounded, yet not another training.
    assert 1e-6 < far(fast, observe(replace(short, output=str(tmp_path / "cpu"), device="cpu"))) < 0.05
    saved = Encoder.load(tmp_path / "model", 64, find("cpu", "float32"))
    assert {weights.dtype for weights in saved.model.parameters()} == {torch.float32}


def test_four_cores_give_the_losses_of_one(trained: Observed, settings: TrainSettings, tmp_path: Path) -> None:
    four = settings.as_dict() | {"output": str(tmp_path / "model")}
    done = program(["tests/xla/observed.py", json.dumps(four)], CPU_NUM_DEVICES="4", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    whole, resumed = found["whole"], found["resumed"]
    assert found["cores"] == {
        "count": 4,
        "reason": "XLA on a CPU, for tests, in float32: 4 cores, torch-xla 2.9.0",
        "batch": "{devices=[4,1]0,1,2,3}",
        "weights": "{replicated}",
    }
    # Four times the papers to score at once, each core with as many as it alone would have.
    scoring = {"score 32x64": "score 128x64", "score 16x128": "score 64x128"}
    assert set(whole["shapes"]) == {scoring.get(shape, shape) for shape in SHAPES}
    assert whole["compiled"] == [len(SHAPES)] * 3
    assert whole["compiled_at_end"] == len(SHAPES)
    assert resumed["compiled_at_end"] == whole["reads"] == 0
    assert far(trained, whole) < CLOSE
    assert far(whole, resumed) < CLOSE


def test_a_base_with_attention_of_its_own(tiny_base: Path, tmp_path: Path) -> None:
    few = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 1)
    torch.manual_seed(0)
    config = ModernBertConfig(
        vocab_size=2_000, local_attention=8, max_position_embeddings=64, pad_token_id=0, num_labels=1, **few, **ids
    )
    ModernBertForSequenceClassification(config).save_pretrained(tmp_path)
    for path in tiny_base.glob("*token*"):
        shutil.copy(path, tmp_path)
    encoders = [Encoder.load(tmp_path, 64, find(device, "float32")) for device in ("cpu", "tpu")]
    token_ids = encoders[0].tokenize(["learning agents " * count for count in range(1, 20)])
    with SMALL_BATCHES:
        cpu, xla = (encoder.logits(token_ids) for encoder in encoders)
    assert np.abs(cpu - xla).max() < CLOSE
    assert np.ptp(cpu) > 10 * CLOSE


def test_weights_that_two_modules_share_stay_one(tiny_base: Path, tmp_path: Path) -> None:
    small = dict.fromkeys(("d_model", "encoder_ffn_dim", "decoder_ffn_dim"), 16)
    few = dict.fromkeys(("encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads"), 1)
    config = BartConfig(vocab_size=2_000, max_position_embeddings=64, num_labels=1, **small, **few)
    BartForSequenceClassification(config).save_pretrained(tmp_path / "base")
    for path in tiny_base.glob("*token*"):
        shutil.copy(path, tmp_path / "base")
    encoder = Encoder.load(tmp_path / "base", 64, find("tpu"))
    body: Any = encoder.model.model
    assert body.shared.weight is body.encoder.embed_tokens.weight is body.decoder.embed_tokens.weight
    assert body.shared.weight.device.type == "xla"
    encoder.save(tmp_path / "saved")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "saved"))
    assert set(first) == set(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_without_a_tpu_auto_takes_the_cpu(
    cli: Callable[..., Result], dump: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PJRT_DEVICE")
    assert find("auto").where.type == "cpu"
    assert not isinstance(find("auto"), XlaDevice)
    said = error_line(cli("train", dump, "--device", "tpu"), 1)
    assert said == "Error: no such device: tpu (this machine has none); --device cpu works everywhere"
    monkeypatch.setenv("PJRT_DEVICE", "CPU")
    assert not isinstance(find("auto"), XlaDevice)


def test_a_training_on_the_cpu_leaves_xla_alone(settings: TrainSettings, dump: Path, tmp_path: Path) -> None:
    code = f"""
import sys
from arxivclf import Classifier, TrainSettings, train
train(TrainSettings(({str(dump)!r},), base={settings.base!r}, output="model", max_tokens=32, epochs=1.0))
Classifier.load("model").label({str(dump)!r})
print([name for name in sys.modules if "torch_xla" in name])
"""
    done = program(["-c", code], PJRT_DEVICE=None, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"


def test_torchrun_is_refused(settings: TrainSettings, dump: Path, tmp_path: Path) -> None:
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "arxivclf", "train", str(dump)]
    done = program([*command, "--base", settings.base, "--device", "tpu"], cwd=tmp_path)
    assert done.returncode == 1
    assert "Error: tpu: one process drives all of its cores; start arxivclf without torchrun" in done.stderr
    assert not list(tmp_path.iterdir())


def program(
    arguments: list[str], cwd: Path | None = None, **environment: str | None
) -> subprocess.CompletedProcess[str]:
    """Python on its own, in an environment of XLA's CPU device with these changes; None takes a name away."""
    wanted = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={name: value for name, value in wanted.items() if value is not None},
    )
