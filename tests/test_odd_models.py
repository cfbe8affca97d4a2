"""Models and settings as they come: each case here was once read wrongly, or crashed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from conftest import PAPERS, error_line, papers, write_jsonl
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from arxivclf import Classifier, TrainSettings, train
from arxivclf.config import read_train_settings
from arxivclf.errors import ArxivclfError, DataError, ModelError, UsageError
from arxivclf.model.classifier import _plain_label
from arxivclf.model.folder import fingerprint, whole_folder


@pytest.mark.parametrize("folder", [".", "..", "file/model"])
def test_a_model_folder_that_cannot_be_is_refused_before_any_work(
    cli: Callable[..., Result], tiny_base: Path, folder: str
) -> None:
    Path("file").touch()
    write_jsonl(Path("dump.jsonl"), papers(300))
    result = cli("train", "dump.jsonl", "--base", tiny_base, "-o", folder)
    assert result.exit_code in (1, 2)
    assert "Training" not in error_line(result, result.exit_code)
    assert len(result.stderr.splitlines()) == 1


def test_a_fault_of_the_dump_is_not_the_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"dump\.jsonl"), whole_folder(Path("model")):
        open("dump.jsonl").close()
    with pytest.raises(DataError, match="model: cannot be written"), whole_folder(Path("model")) as folder:
        open(folder / "absent" / "x").close()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_among_the_files_of_a_model(tmp_path: Path) -> None:
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer.json").write_text("{}")
    assert fingerprint(tmp_path, ("tokenizer*",)) != fingerprint(tmp_path, ("vocab*",))


def test_what_lies_where_the_old_model_would_go_is_safe(cli: Callable[..., Result], tiny_base: Path) -> None:
    Path("model.previous").mkdir()
    Path("model.previous/thesis.tex").write_text("years of work")
    assert "model.previous: there already" in error_line(cli("train", PAPERS, "--base", tiny_base), 2)
    assert Path("model.previous/thesis.tex").exists()


@pytest.mark.parametrize(
    "wrong",
    [{"seed": -1}, {"seed": 2**33}, {"epochs": float("inf")}, {"undersample": float("inf")}, {"adam_betas": (0.9, 1.5)},
     {"adam_epsilon": -1.0}, {"weight_decay": -1.0}, {"max_gradient_norm": 0.0},
     {"learning_rate": float("nan")}],
)  # fmt: skip
def test_settings_that_no_training_can_have(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong)).replace("_", "-")):
        TrainSettings(**wrong)


def test_names_in_a_settings_file_are_relative_to_it_unless_they_are_remote(tmp_path: Path) -> None:
    names = ("weak_negatives", "balance", "exclude", "output")
    for where, prefix in (("s3://b/", "s3://b/"), ("", f"{tmp_path}/")):
        lines = [f'snapshots = ["{where}x"]', f'validation = ["{where}x"]', *(f'{name} = "{where}x"' for name in names)]
        (tmp_path / "a.toml").write_text("[train]\n" + "\n".join(lines))
        settings = read_train_settings(tmp_path / "a.toml", {})
        assert settings.snapshots == settings.validation == (f"{prefix}x",)
        assert [getattr(settings, name) for name in names] == [f"{prefix}x"] * 4


def test_a_bad_value_in_a_settings_file_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[train]\nepochs = -1")
    with pytest.raises(DataError, match=r"mine\.toml: epochs must be at least 0"):
        read_train_settings(tmp_path / "mine.toml", {})


def test_a_model_of_weights_that_are_no_numbers_is_not_saved(tiny_base: Path, tmp_path: Path) -> None:
    settings = TrainSettings(
        (str(PAPERS),), base=str(tiny_base), output=str(tmp_path / "m"), epochs=0.01, learning_rate=1e38, max_tokens=16
    )
    with pytest.raises(ModelError, match=r"finite|loss became"):
        train(settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change", [{"task": [1]}, {"task": "ai"}, {"max_tokens": -5}, {"max_tokens": 0}, {"thresholds": []}]
)
def test_every_broken_info_is_a_clear_error(model: Path, tmp_path: Path, change: dict[str, Any]) -> None:

    shutil.copytree(model, tmp_path / "model")
    info = tmp_path / "model/arxivclf.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | change))
    with pytest.raises(ArxivclfError, match=r"arxivclf\.json"):
        Classifier.load(tmp_path / "model")


@pytest.mark.parametrize("name", ["id", "Created", "text_hash", "x_score", "y truth", "7"])
def test_labels_of_foreign_models_are_no_columns_of_ours(name: str) -> None:
    found = _plain_label(name, 3).name
    assert found.startswith("label_")
    assert not found.endswith(("_score", "_truth"))


def test_scores_that_are_no_numbers_are_no_labels(cli: Callable[..., Result], tiny_base: Path) -> None:
    """NaN is above every threshold for polars."""
    made = AutoModelForSequenceClassification.from_pretrained(tiny_base, num_labels=1)
    with torch.no_grad():
        made.classifier.bias.fill_(torch.nan)
    made.save_pretrained("broken")
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained("broken")
    write_jsonl(Path("dump.jsonl"), papers(4))
    assert "scores that are no numbers" in error_line(cli("label", "dump.jsonl", "--model", "broken"), 1)
    assert not Path("dump.labels.parquet").exists()
