"""Settings: what a job is asked to do, as frozen values, and the settings file that holds them.

The names are those of the command line's options; `arxivclf.toml` uses them too, with `_` for `-`.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from arxivclf.errors import DataError, UsageError

CONFIG_FILE = "arxivclf.toml"

DeviceName = Literal["auto", "cpu", "cuda", "tpu"]
Cleaning = Literal["none", "cset2020", "cset2023"]
Tracker = Literal["tensorboard", "wandb"]


@dataclass(frozen=True)
class TrainSettings:
    """Everything that decides what model comes out of a training.

    Papers: `since` is the first year taken, `sample` a percentage of papers, `undersample` the count of negatives for
    each positive in the training part, others in each pass, `weak_negative_share` the share of weak negatives in it.
    `balance` weights the training papers so that years count as arXiv's own numbers tell (`years`), and primary
    categories as in a CSV file with the columns primary and papers, if it names one; `none` weights all papers alike.
    `epochs`, `learning_rate` and `warmup` are chosen by the data and the base where they are None. `resume` goes on
    with a training that was cut off. `loss` is binary cross-entropy, the same with positives `weighted` to count as
    much as negatives, or focal; `tune` says what is trained: all weights, the head alone, or LoRA updates.
    `gate` fits a linear model, mixes it with the encoder where that is better, and lets it decide what it is sure of:
    of the papers that the model labels without its gate, at most a share `gate_risk` may get another label because of
    the gate, for each label, with 95 % confidence. The base `none` is no encoder, the linear model alone; 0
    epochs leave the base's weights as they are. `exclude` is a dump whose papers take no part in anything. `push` names
    the repository on the hub that the finished model goes to.

    The second half has no option on the command line: `validation_label` is the label, of several, that a yes or no in
    a validation set answers, the validation split serving labels that no set answers; `balance_since` is the first year
    that is brought towards the mix of categories in `balance`, in equal steps up to the newest; `warmup` is the share
    of steps in which the learning rate rises from zero, after which `schedule` holds; `patience` the count of passes
    without a better validation F1 after which training stops, the weights of the best pass being kept (0: it never
    stops, and keeps the last); `dropout` turns the base's own dropout on (off, training is faster and, in a single
    pass, no worse); `adam_betas`, `adam_epsilon`, `weight_decay` and `max_gradient_norm` are those of the optimiser;
    `focal_gamma` is that of the focal loss, `lora_rank` that of the updates; `precision` is that of matrix products;
    `compile` uses torch.compile; `calibration` makes probabilities of logits, by validation papers;
    `checkpoint_minutes` lie between two checkpoints within a pass.
    """

    snapshots: tuple[str, ...] = ()
    task: tuple[str, ...] = ("ai",)
    base: str = "minilm"
    output: str = "model"
    since: int = 2010
    max_papers: int | None = None
    sample: float | None = None
    undersample: float | None = None
    weak_negatives: str | None = None
    weak_negative_share: float = 0.10
    validation: tuple[str, ...] = ()
    exclude: str | None = None
    split: Literal["hash", "time"] = "hash"
    balance: str = "none"
    clean: Cleaning = "none"
    epochs: float | None = None
    learning_rate: float | None = None
    batch_size: int = 32
    max_tokens: int = 512
    resume: bool = False
    loss: Literal["cross-entropy", "weighted", "focal"] = "cross-entropy"
    tune: Literal["all", "head", "lora"] = "all"
    track: tuple[Tracker, ...] = ()
    device: DeviceName = "auto"
    seed: int = 0
    id_column: str | None = None
    text_column: str | None = None
    label_column: str | None = None
    gate: bool = True
    gate_risk: float = 0.02
    push: str | None = None

    validation_label: str | None = None
    balance_since: int | None = None
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float | None = None
    patience: int = 2
    adam_betas: tuple[float, float] = (0.9, 0.999)
    adam_epsilon: float = 1e-8
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    dropout: bool = False
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False
    focal_gamma: float = 2.0
    lora_rank: int = 16
    calibration: Literal["auto", "none", "temperature", "platt", "beta", "isotonic"] = "auto"
    checkpoint_minutes: float = 10.0

    def __post_init__(self) -> None:
        _settle(self)
        _check(
            self,
            ("max_papers", self.max_papers is None or self.max_papers > 0, "above 0"),
            ("sample", self.sample is None or 0 < self.sample <= 100, "a percentage above 0, 100 at most"),
            ("undersample", self.undersample is None or 0 < self.undersample < inf, "above 0"),
            ("weak_negative_share", 0 <= self.weak_negative_share < 1, "at least 0 and below 1"),
            ("epochs", self.epochs is None or 0 <= self.epochs < inf, "at least 0"),
            ("gate_risk", 0 < self.gate_risk < 1, "above 0 and below 1"),
            ("base", self.base != "none" or self.gate, "an encoder where there is no gate"),
            ("learning_rate", self.learning_rate is None or 0 < self.learning_rate < inf, "above 0"),
            ("seed", 0 <= self.seed < 2**32, "at least 0 and below 2**32"),
            ("adam_betas", all(0 <= beta < 1 for beta in self.adam_betas), "at least 0 and below 1"),
            ("adam_epsilon", 0 < self.adam_epsilon < inf, "above 0"),
            ("weight_decay", 0 <= self.weight_decay < inf, "at least 0"),
            ("max_gradient_norm", 0 < self.max_gradient_norm < inf, "above 0"),
            ("batch_size", self.batch_size > 0, "above 0"),
            ("max_tokens", self.max_tokens >= 8, "8 at least"),
            ("warmup", self.warmup is None or 0 <= self.warmup < 1, "at least 0 and below 1"),
            ("patience", self.patience >= 0, "at least 0"),
            ("focal_gamma", 0 <= self.focal_gamma < inf, "at least 0"),
            ("lora_rank", self.lora_rank > 0, "above 0"),
            ("checkpoint_minutes", 0 <= self.checkpoint_minutes < inf, "at least 0"),
            ("task", bool(self.task), "at least one task"),
        )

    def as_dict(self) -> dict[str, Any]:
        """The settings as JSON and TOML hold them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class LabelSettings:
    """Everything that decides what labels come out of a dump.

    `model` names one model or several, whose labels stand side by side; none of them means ./model, and where that is
    absent the bundled model. Without `gate` an encoder sees every paper. `task` names the labels of one that has no
    names of its own. `output` is a file or `-`; None names it after the first snapshot. `reuse` are an earlier dump's
    labels. `keep` are columns of the dump that stand beside the labels. `limit` ends after so many papers, of which
    `chunk_rows` rows are read at a time. `threshold` replaces those of the models. `prevalence` shifts the
    scores to a dump in which labels have these shares (LABEL=SHARE, or SHARE for the only label), or to shares that are
    estimated from the dump (`auto`). `rejects` is the file of rejected
    rows, named after the output if None, and `max_rejects` the share of rejected rows above which the run fails,
    repeated ids apart; `keep_duplicates` labels every row of an id, and not just the last; `overwrite` replaces labels
    that are there. `engine` says where it is done: on this machine, or on a Ray cluster, that at `ray_address` or else
    one started for the run; `workers` are the processes there, as many as fit if None. `shard` ("0/3") labels one of
    several stretches of the dump, while other runs label the others.
    """

    snapshots: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    task: tuple[str, ...] = ()
    output: str | None = None
    rejects: str | None = None
    reuse: str | None = None
    keep: tuple[str, ...] = ()
    limit: int | None = None
    chunk_rows: int = 16_384
    gate: bool = True
    engine: Literal["local", "ray"] = "local"
    ray_address: str | None = None
    workers: int | None = None
    shard: str | None = None
    threshold: float | None = None
    prevalence: tuple[str, ...] = ()
    max_rejects: float = 0.01
    keep_duplicates: bool = False
    overwrite: bool = False
    device: DeviceName = "auto"
    seed: int = 0
    id_column: str | None = None
    text_column: str | None = None
    label_column: str | None = None

    def __post_init__(self) -> None:
        _settle(self)
        _check(
            self,
            ("keep", len(set(self.keep)) == len(self.keep), "columns that differ"),
            ("limit", self.limit is None or self.limit > 0, "above 0"),
            ("chunk_rows", self.chunk_rows > 0, "above 0"),
            ("threshold", self.threshold is None or 0 <= self.threshold <= 1, "at least 0 and at most 1"),
            ("ray_address", self.ray_address is None or self.engine == "ray", "for --engine ray alone"),
            ("workers", self.workers is None or self.workers > 0, "above 0"),
            ("shard", self.shard is None or _is_shard(self.shard), "I/N, I from 0 and below N, as 0/3"),
            ("max_rejects", 0 <= self.max_rejects <= 1, "at least 0 and at most 1"),
        )


def _settle(settings: Any) -> None:
    """Paths as text, one name for several as several; UsageError where a choice is none of those there are."""
    for name, kind in get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        of_many = get_origin(kind) is tuple
        if of_many and get_args(kind)[-1] is Ellipsis:
            values = (value,) if isinstance(value, str | os.PathLike) else value
            value = tuple(os.fspath(one) if isinstance(one, os.PathLike) else one for one in values)
        elif isinstance(value, os.PathLike):
            value = os.fspath(value)
        object.__setattr__(settings, name, value)
        if choices := choices_of(kind):
            for one in value if of_many else [value]:
                if one not in choices:
                    raise UsageError(f"{name.replace('_', '-')} must be one of {', '.join(choices)}, not {one}")


def choices_of(kind: Any) -> tuple[str, ...]:
    """What a setting of this type may be, or each of its values; nothing where it is not one of a few."""
    one = get_args(kind)[0] if get_origin(kind) is tuple else kind
    return get_args(one) if get_origin(one) is Literal else ()


def _is_shard(text: str) -> bool:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    return found is not None and int(found[1]) < int(found[2])


def _check(settings: object, *rules: tuple[str, bool, str]) -> None:
    """Raise UsageError for the first rule (a setting, whether it holds, what it must be) that does not hold."""
    for name, holds, rule in rules:
        if not holds:
            raise UsageError(f"{name.replace('_', '-')} must be {rule}, not {getattr(settings, name)}")


def read_train_settings(path: Path, given: Mapping[str, Any]) -> TrainSettings:
    """The settings of a file's [train] table, with those `given` (by option) in their place.

    File names in it are relative to the file's own folder, task and base names excepted where they name no file there.
    Raises DataError naming the key that is unknown or of the wrong type.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such settings file") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{path}: cannot be read as settings: {error}") from None
    if set(tables) - {"train"} or not isinstance(tables.get("train", {}), dict):
        raise DataError(f"{path}: settings stand in one table, [train]; found {', '.join(sorted(tables))}")
    hints = get_type_hints(TrainSettings)
    read: dict[str, Any] = {}
    for name, value in tables.get("train", {}).items():
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=1)
            raise DataError(f"{path}: unknown setting {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        read[name] = _relative(name, _converted(value, hints[name], f"{path}: {name}"), path.parent)
    try:
        settings = TrainSettings(**read)
    except UsageError as error:
        raise DataError(f"{path}: {error}") from None
    return replace(settings, **given)


def _relative(name: str, value: Any, folder: Path) -> Any:
    if name == "snapshots":
        return tuple(_relative("weak_negatives", text, folder) for text in value)
    if name == "validation":
        return tuple(_relative("weak_negatives", text, folder) for text in value)
    if name == "balance":
        return value if value in ("none", "years") else _relative("weak_negatives", value, folder)
    if name in ("weak_negatives", "exclude", "output"):
        return value if "://" in value or value == "-" else str(folder / value)
    if name == "task":
        return tuple(str(folder / text) if text.endswith(".toml") else text for text in value)
    if name == "base" and (folder / value).is_dir():
        return str(folder / value)
    return value


def _converted(value: Any, wanted: Any, where: str) -> Any:
    origin, choices = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        return _converted(value, next(choice for choice in choices if choice is not type(None)), where)
    if origin is Literal:
        return value  # The settings themselves tell whether it is one of them.
    if origin is tuple:
        items = value if isinstance(value, list) else [value]
        if choices[-1] is not Ellipsis and len(items) != len(choices):
            raise DataError(f"{where} takes {len(choices)} values")
        return tuple(_converted(item, choices[0], where) for item in items)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is wanted:
        return value
    raise DataError(f"{where} must be {_WORDS[wanted]}, not {value!r}")


_WORDS = {int: "a whole number", float: "a number", str: "text in quotes", bool: "true or false"}
