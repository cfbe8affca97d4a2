"""Bad input from the command line: one clear line, the exit code of the contract, no traceback, nothing lost."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from conftest import PAPERS, error_line, paper, papers, read_jsonl, write_jsonl, write_parquet

from arxivclf.errors import ArxivclfError, DataError, UsageError
from arxivclf.model.folder import whole_folder


def half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def make(path: Path, what: str) -> None:
    if what == "empty":
        path.touch()
    elif what == "folder":
        path.mkdir()
    elif what == "half a Parquet file":
        write_parquet(path, papers(300))
        half(path)
    elif what == "no abstract":
        write_parquet(path, [{"id": row["id"], "title": row["title"], "topic": "x"} for row in papers(3)])
    elif what == "no categories":
        write_parquet(path, [{"id": row["id"], "title": row["title"], "abstract": "x"} for row in papers(3)])


@pytest.mark.parametrize("command", ["train", "label"])
@pytest.mark.parametrize(
    ("what", "exit_code", "says"),
    [
        ("missing", 2, "dump.parquet: no such file"),
        ("empty", 1, "dump.parquet: an empty file"),
        ("folder", 1, "dump.parquet: no dump in this folder"),
        ("half a Parquet file", 1, "dump.parquet: no whole Parquet file (cut short?)"),
        (
            "no abstract",
            1,
            'dump.parquet: no column "abstract"; there are id, title, topic. --text-column names another.',
        ),
    ],
)
def test_dumps_that_cannot_be_read(
    cli: Callable[..., Result], model: Path, command: str, what: str, exit_code: int, says: str
) -> None:
    make(Path("dump.parquet"), what)
    before = sorted(Path().rglob("*"))
    result = cli(command, "dump.parquet", *(["--model", model] if command == "label" else []))
    assert says in error_line(result, exit_code)
    assert len(result.stderr.splitlines()) == 1
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (json.dumps(paper("2102.00001")).encode()[:150], "not JSON"),
        (json.dumps(paper("2102.00001", title="caf~")).replace("~", "\xe9").encode("latin-1"), "not UTF-8"),
    ],
)
def test_a_broken_line_is_rejected_with_its_place(
    cli: Callable[..., Result], model: Path, bad: bytes, reason: str
) -> None:
    dump = write_jsonl(Path("dump.jsonl"), papers(200))
    dump.write_bytes(dump.read_bytes() + bad)
    result = cli("label", "dump.jsonl", "--model", model)
    assert result.exit_code == 0, result.output
    (reject,) = read_jsonl(Path("dump.labels.rejects.jsonl"))
    assert (reject["source"], reject["line"], reject["reason"]) == ("dump.jsonl", 201, reason)


def test_rejects_of_a_training_are_kept_beside_the_model(cli: Callable[..., Result], tiny_base: Path) -> None:
    write_jsonl(Path("dump.jsonl"), [*papers(300), paper(704.0001)])
    result = cli("train", "dump.jsonl", "--base", tiny_base, "--epochs", 0.1, "--max-tokens", 16)
    assert result.exit_code == 0, result.output
    (reject,) = read_jsonl(Path("model.rejects.jsonl"))
    assert (reject["line"], reject["reason"]) == (301, "numeric id")
    assert "model.rejects.jsonl" in result.stdout


def test_no_truth_to_train_on(cli: Callable[..., Result], tiny_base: Path) -> None:
    make(Path("dump.parquet"), "no categories")
    line = error_line(cli("train", "dump.parquet", "--base", tiny_base), 1)
    assert "no papers to train on in dump.parquet: 3 without categories or label" in line
    write_jsonl(Path("dump.jsonl"), [paper(7), paper("wrong")])
    line = error_line(cli("train", "dump.jsonl", "--base", tiny_base), 1)
    assert "dump.jsonl: 2 rejected (1 numeric id, 1 malformed id, see model.rejects.jsonl)" in line
    assert len(read_jsonl(Path("model.rejects.jsonl"))) == 2


def test_an_unknown_category_in_a_task_file(cli: Callable[..., Result], tiny_base: Path) -> None:
    write_jsonl(Path("dump.jsonl"), papers(30))
    Path("mine.toml").write_text('[labels.mine]\ncategories = ["cs.LG", "cs.AJ"]\n')
    line = error_line(cli("train", "dump.jsonl", "--task", "mine.toml", "--base", tiny_base), 1)
    assert "mine.toml: unknown category 'cs.AJ' in [labels.mine]; nearest: cs.A" in line


@pytest.mark.parametrize(("categories", "which"), [("cs.LG", "positive"), ("hep-th", "negative")])
def test_a_training_set_of_one_class(cli: Callable[..., Result], tiny_base: Path, categories: str, which: str) -> None:
    write_jsonl(Path("dump.jsonl"), [row | {"categories": categories} for row in papers(100)])
    line = error_line(cli("train", "dump.jsonl", "--base", tiny_base), 1)
    assert f"in the train part are {which} for 'ai'" in line
    assert not Path("model").exists()


def break_info(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    info = json.loads((folder / "arxivclf.json").read_text())
    change(info)
    (folder / "arxivclf.json").write_text(json.dumps(info))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "an empty folder": (lambda folder: [path.unlink() for path in folder.iterdir()], "not the folder of a model"),
    "a bare encoder": (
        lambda folder: (
            (folder / "arxivclf.json").unlink(),
            (folder / "config.json").write_text(
                (folder / "config.json").read_text().replace("BertForSequenceClassification", "BertModel")
            ),
        ),
        "no arxivclf.json there and no sequence classifier",
    ),
    "pickled weights": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        "its weights are pickled (pytorch_model.bin)",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no weights there"),
    "half of the weights": (lambda folder: half(folder / "model.safetensors"), "cannot be loaded"),
    "code of its own": (
        lambda folder: (folder / "modeling_own.py").write_text("boom"),
        "code of its own (modeling_own.py)",
    ),
    "asks for code": (
        lambda folder: (folder / "config.json").write_text(
            json.dumps(json.loads((folder / "config.json").read_text()) | {"auto_map": {"AutoModel": "own.Model"}})
        ),
        "config.json asks for code of the model's own",
    ),
    "an adapter": (
        lambda folder: (folder / "adapter_config.json").write_text("{}"),
        "refused, for it is an adapter (adapter_config.json)",
    ),
    "weights by another name": (
        lambda folder: (folder / "config.json").write_text(
            json.dumps(json.loads((folder / "config.json").read_text()) | {"transformers_weights": "adapter_model.bin"})
        ),
        "config.json names files of its own",
    ),
    "no config": (lambda folder: (folder / "config.json").unlink(), "cannot be loaded"),
    "half of the info": (lambda folder: half(folder / "arxivclf.json"), "arxivclf.json: cannot be read"),
    "a later format": (lambda folder: break_info(folder, lambda info: info.update(format=99)), "format 99"),
    "a threshold of 7": (
        lambda folder: break_info(folder, lambda info: info["thresholds"].update(ai=7)),
        "a threshold outside [0, 1]",
    ),
    "no task": (lambda folder: break_info(folder, lambda info: info.pop("task")), "not as `arxivclf train` writes it"),
    "another label": (
        lambda folder: (folder / "config.json").write_text(
            (folder / "config.json").read_text().replace('"0": "ai"', '"0": "cv"')
        ),
        "has the labels ['cv'], not ['ai']",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_models_that_cannot_be_used(cli: Callable[..., Result], model: Path, fault: str) -> None:
    shutil.copytree(model, "model")
    breaks, says = BROKEN[fault]
    breaks(Path("model"))
    write_jsonl(Path("dump.jsonl"), papers(3))
    result = cli("label", "dump.jsonl")
    assert says in error_line(result, 1)
    assert len(result.stderr.splitlines()) == 1
    assert not Path("dump.labels.parquet").exists()


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("pickled weights", "its weights are pickled"),
        ("code of its own", "code of its own"),
        ("asks for code", "asks for code"),
        ("an adapter", "it is an adapter"),
        ("weights by another name", "names files of its own"),
    ],
)
def test_bases_that_could_run_code_are_refused(
    cli: Callable[..., Result], tiny_base: Path, fault: str, says: str
) -> None:
    shutil.copytree(tiny_base, "base")
    BROKEN[fault][0](Path("base"))
    write_jsonl(Path("dump.jsonl"), papers(100))
    assert says in error_line(cli("train", "dump.jsonl", "--base", "base"), 1)


def test_a_model_that_is_nowhere(cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    write_jsonl(Path("dump.jsonl"), papers(3))
    assert "no ./model here; `arxivclf train` makes one" in error_line(
        cli("label", "dump.jsonl", "--model", "model"), 1
    )
    assert "no such model folder" in error_line(cli("label", "dump.jsonl", "--model", "./nowhere"), 1)
    assert "no such model folder" in error_line(cli("label", "dump.jsonl", "--model", "owner/nowhere"), 1)
    assert "no such model folder" in error_line(cli("train", "dump.jsonl", "--base", "/no/where"), 1)


@pytest.mark.parametrize("device", ["cuda", "tpu"])
@pytest.mark.parametrize("command", ["train", "label"])
def test_no_such_device(
    cli: Callable[..., Result], model: Path, monkeypatch: pytest.MonkeyPatch, device: str, command: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    write_jsonl(Path("dump.jsonl"), papers(3))
    result = cli(command, "dump.jsonl", "--device", device, *(["--model", model] if command == "label" else []))
    assert f"no such device: {device}" in error_line(result, 1)


def test_a_folder_that_cannot_be_written(cli: Callable[..., Result], model: Path) -> None:
    write_jsonl(Path("dump.jsonl"), papers(3))
    Path("file").touch()
    assert "file/out.parquet: cannot be written" in error_line(
        cli("label", "dump.jsonl", "--model", model, "-o", "file/out.parquet"), 1
    )
    assert "events" in error_line(cli("label", "dump.jsonl", "--model", model, "--log-json", "file/events"), 2)


def test_a_full_disk(cli: Callable[..., Result], model: Path) -> None:
    write_jsonl(Path("dump.jsonl"), papers(3))
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    result = cli("label", "dump.jsonl", "--model", model, "--log-json", "/dev/full")
    assert "no space left on the disk" in error_line(result, 1)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory.\nTried"), MemoryError()])
def test_too_little_memory_is_one_line(
    cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("arxivclf.training.train.train", fail)
    line = error_line(cli("train", "dump.jsonl"), 1)
    assert "memory" in line
    assert "--batch-size" in line


def test_a_model_that_a_full_disk_cuts_short(tmp_path: Path) -> None:
    """safetensors has an error of its own for it."""
    from safetensors.numpy import save_file

    with pytest.raises(DataError, match="model: cannot be written"), whole_folder(tmp_path / "model") as folder:
        save_file({"a": np.zeros(3, np.float32)}, folder / "absent" / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_errors_cross_process_borders() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(UsageError("a line")))
    assert isinstance(error, ArxivclfError)
    assert (str(error), error.exit_code) == ("a line", 2)


def test_the_process_itself_prints_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "arxivclf", "train", "absent.parquet"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "Error: absent.parquet: no such file\n"
    assert done.stdout == ""


def foreign(base: Path, folder: Path, **changes: Any) -> Path:
    """A classifier that was not made here, with another configuration."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(3)
    positions = changes.pop("max_position_embeddings", 128)
    config = BertConfig.from_pretrained(base, num_labels=2, max_position_embeddings=positions)
    BertForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


@pytest.mark.parametrize("positions", [40, 41, 128])
def test_a_model_may_have_any_count_of_places(
    cli: Callable[..., Result], tiny_base: Path, tmp_path: Path, positions: int
) -> None:
    """Batches are a little wider than their longest paper, and no wider than the model has places for."""
    folder = foreign(tiny_base, tmp_path / "short", max_position_embeddings=positions)
    done = cli("label", PAPERS, "--model", folder, "-o", "x.parquet", "--limit", 50)
    assert done.exit_code == 0, done.output
    trained = cli("train", PAPERS, "--base", folder, "--epochs", 0.1, "-o", "m", "--since", 1990, "-q")
    assert trained.exit_code == 0, trained.output


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"id2label": {"1": "a", "2": "b"}}, "the labels of its id2label are not numbered from 0 on"),
        ({"max_position_embeddings": 8}, "reads 0 tokens of a paper, but 8 at least are needed"),
        ({"attn_implementation": "some-org/some-kernel"}, "refused, for config.json asks for code from a hub"),
        ({"_experts_implementation": "some-org/some-kernel"}, "refused, for config.json asks for code from a hub"),
    ],
    ids=str,
)
def test_a_model_that_cannot_be_used_says_why(
    cli: Callable[..., Result], tiny_base: Path, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    folder = foreign(tiny_base, tmp_path / "odd", **changes)
    assert says in error_line(cli("label", PAPERS, "--model", folder, "-o", "x.parquet"), 1)


@pytest.mark.parametrize("target", ["empty", "nothing"])
def test_a_link_to_no_model_fails_before_the_training(cli: Callable[..., Result], target: str) -> None:
    Path("empty").mkdir()
    Path("link").symlink_to(target)
    said = error_line(cli("train", PAPERS, "--base", "none", "-o", "link", "--since", 1990), 2)
    assert "link: a link, and to no model of ours" in said
    assert Path("link").is_symlink()


def test_a_model_in_the_place_of_a_dump(cli: Callable[..., Result], model: Path) -> None:
    assert f"is a model, and no dump; --model {model} labels with it" in error_line(cli("label", model), 2)


@pytest.mark.parametrize("file", ["arxivclf.toml", "mine.toml"])
def test_a_settings_file_may_begin_with_a_byte_order_mark(cli: Callable[..., Result], file: str) -> None:
    """As Windows' editors write it."""
    text = "[train]\nseed = 3\n" if file == "arxivclf.toml" else '[labels.mine]\ncategories = ["cs.LG"]\n'
    Path(file).write_text("\ufeff" + text, encoding="utf-8")
    how = () if file == "arxivclf.toml" else ("--task", file)
    done = cli("train", PAPERS, "--base", "none", "--since", 1990, "-q", *how)
    assert done.exit_code == 0, done.output
