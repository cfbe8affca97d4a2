"""The model folder: what a trained model keeps beside its weights, written whole or not at all.

Besides the files that transformers knows (config.json, model.safetensors, the tokenizer's) it holds arxivclf.json, the
labels of the test split (test.labels.parquet), the figures of each pass (training.csv), and the model card (README.md).
"""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from arxivclf.corpus.tasks import Task
from arxivclf.corpus.text import CLEANINGS
from arxivclf.errors import ArxivclfError, DataError, ModelError, UsageError, one_line
from arxivclf.files import cannot_write, is_about, sync_file, sync_folder
from arxivclf.model.calibration import Calibration
from arxivclf.model.gate import Blend, Gate
from arxivclf.model.safety import read_json

INFO_FILE = "arxivclf.json"
TEST_LABELS = "test.labels.parquet"
TRAINING_TABLE = "training.csv"
TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "*.model")
MODEL_FILES = ("config.json", "*.safetensors", *TOKENIZER_FILES)
FORMAT = 4
NO_BASE = "none"

_TABLES = ("settings", "chosen", "papers", "metrics", "environment")


@dataclass(frozen=True)
class ModelInfo:
    """What arxivclf.json says: all that is needed to label as the model was trained to, and how it came to be.

    `thresholds` are the scores from which each label is given, `calibrations` what makes scores of logits. Where
    there is a linear model, `linear_calibrations` make scores of its logits, `blends` mix them with the encoder's, and
    `gates`, if there are any, say what it decides alone; without an encoder it decides all. `settings`
    those of the training as asked for, `chosen` what it chose itself, `papers` its counts, `files` what it read,
    `metrics` its figures on validation and test. `prevalence` is the share of each label among the papers that its
    calibration was fitted on.
    """

    task: Task
    cleaning: str
    max_tokens: int
    thresholds: Mapping[str, float]
    calibrations: Mapping[str, Calibration]
    linear_calibrations: Mapping[str, Calibration]
    blends: Mapping[str, Blend]
    gates: Mapping[str, Gate]
    settings: Mapping[str, Any]
    chosen: Mapping[str, Any]
    papers: Mapping[str, Any]
    files: Sequence[Mapping[str, Any]]
    metrics: Mapping[str, Any]
    environment: Mapping[str, str]
    prevalence: Mapping[str, float]

    @property
    def has_encoder(self) -> bool:
        """Whether there is an encoder; else the linear model decides alone."""
        return bool(self.settings.get("base") != NO_BASE)

    def write(self, folder: Path) -> None:
        content = {
            "format": FORMAT,
            "task": self.task.as_dict(),
            "cleaning": self.cleaning,
            "max_tokens": self.max_tokens,
            "thresholds": dict(self.thresholds),
            "prevalence": dict(self.prevalence),
            "calibrations": {name: one.as_dict() for name, one in self.calibrations.items()},
            "linear_calibrations": {name: one.as_dict() for name, one in self.linear_calibrations.items()},
            "blends": {name: one.as_dict() for name, one in self.blends.items()},
            "gates": {name: one.as_dict() for name, one in self.gates.items()},
            "files": [dict(file) for file in self.files],
            **{name: dict(getattr(self, name)) for name in _TABLES},
        }
        text = json.dumps(content, indent=2, allow_nan=False)
        (folder / INFO_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> ModelInfo:
        """Raises ModelError where the folder is none of ours, or not as this version writes it."""
        if not (folder / INFO_FILE).exists():
            raise ModelError(f"{folder}: no {INFO_FILE} there; not a model that `arxivclf train` made")
        path = folder / INFO_FILE
        content = read_json(path)
        if content.get("format") != FORMAT:
            raise ModelError(f"{path}: format {content.get('format')!r}, but this version reads format {FORMAT}")
        try:
            task = Task.from_dict(content["task"], str(path))
            thresholds = {name: float(content["thresholds"][name]) for name in task.names}
            info = cls(
                task=task,
                cleaning=content["cleaning"],
                max_tokens=int(content["max_tokens"]),
                thresholds=thresholds,
                prevalence={name: float(content["prevalence"][name]) for name in task.names},
                calibrations={name: Calibration.from_dict(content["calibrations"][name]) for name in task.names},
                linear_calibrations={
                    name: Calibration.from_dict(one) for name, one in content["linear_calibrations"].items()
                },
                blends={name: Blend(**one) for name, one in content["blends"].items()},
                gates={name: Gate.from_dict(one) for name, one in content["gates"].items()},
                files=[dict(file) for file in content["files"]],
                **{name: dict(content[name]) for name in _TABLES},
            )
        except (KeyError, TypeError, ValueError, AttributeError, ArxivclfError) as error:
            raise ModelError(f"{path}: not as `arxivclf train` writes it: {error}") from None
        for part in ("linear_calibrations", "blends", "gates"):
            if getattr(info, part) and set(getattr(info, part)) != set(task.names):
                raise ModelError(f"{path}: {part} are not of the labels {', '.join(task.names)}")
        if not all(0 < share < 1 for share in info.prevalence.values()):
            raise ModelError(f"{path}: a prevalence that is not a share between 0 and 1")
        if info.max_tokens < 8:
            raise ModelError(f"{path}: max_tokens {info.max_tokens}, but 8 at least are needed")
        if info.cleaning not in CLEANINGS or not all(0 <= threshold <= 1 for threshold in thresholds.values()):
            raise ModelError(f"{path}: an unknown cleaning, or a threshold outside [0, 1]")
        return info


def refuse_foreign(folder: Path) -> None:
    """Raise UsageError if writing a model there would take the place of something that is no model of ours."""
    if folder.name in ("", ".."):
        raise UsageError(f"{folder}: a folder that the model can be written into as a whole, please; -o names one")
    for place in (folder, previous(folder)):
        if place.is_symlink() and not (place / INFO_FILE).exists():
            raise UsageError(f"{place}: a link, and to no model of ours; -o names the folder itself")
        free = not place.exists() or (place.is_dir() and not any(place.iterdir()))
        if not free and not (place / INFO_FILE).exists():
            raise UsageError(f"{place}: there already, and no model of ours; -o names another folder")


def previous(folder: Path) -> Path:
    """Where the model that a new one replaces is kept."""
    return folder.with_name(folder.name + ".previous")


def checkpoint_of(folder: Path) -> Path:
    """Where the checkpoint of a training lies that is to write this folder."""
    return folder.with_name(f".{folder.name}.checkpoint.safetensors")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write a model into, which takes the place of `folder` when the block ends well.

    A model that was there is kept as `previous(folder)`. Raises UsageError where something else is there, DataError
    where nothing can be written.
    """
    from safetensors import SafetensorError

    refuse_foreign(folder)
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        yield unfinished
        for path in [*unfinished.rglob("*"), unfinished]:
            if path.is_dir():
                sync_folder(path)
                continue
            # The library behind the weights keeps them from all but their owner.
            path.chmod(unfinished.stat().st_mode & 0o666)
            sync_file(path)
        if (folder / INFO_FILE).exists():
            shutil.rmtree(previous(folder), ignore_errors=True)
            folder.rename(previous(folder))
        elif folder.exists():
            folder.rmdir()
        unfinished.rename(folder)
        sync_folder(folder.parent)
    except OSError as error:
        # A training reads and fetches, too, while this is open; a full disk alone names no file.
        ours = is_about(error, unfinished, folder, previous(folder)) if error.filename else error.errno == errno.ENOSPC
        if not ours:
            raise
        raise cannot_write(folder, error) from None
    except SafetensorError as error:
        # What this library says of a full disk.
        raise DataError(f"{folder}: cannot be written: {one_line(error)}") from None
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def fingerprint(folder: Path, patterns: Sequence[str]) -> str:
    """XXH3 (128 bits, hexadecimal) of the names and bytes of the files of a folder that match any of the patterns."""
    digest = xxhash.xxh3_128()
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}):
        digest.update(f"{path.name} {path.stat().st_size} ".encode())
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return str(digest.hexdigest())
