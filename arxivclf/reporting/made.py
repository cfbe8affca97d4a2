"""What labels tell of how they were made: thresholds, what is true, how many papers the models had seen before."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from arxivclf.corpus.seen import LEARNT
from arxivclf.corpus.sources import Source
from arxivclf.reporting.adjusted import ErrorRates
from arxivclf.reporting.metrics import Confusion

# The names are those of model.folder and of labelling.job: reports know labels as files, and not who makes them.
_INFO = "arxivclf.json"
_JOB_KEY, _JOB_FILE = "arxivclf", ".job.json"

_TELLS_NOTHING = (OSError, pl.exceptions.PolarsError, ValueError, KeyError, TypeError, AttributeError)


@dataclass(frozen=True)
class Made:
    """By label its threshold, and the categories that make it true; how many papers the models had `seen` in training
    (`corpus.seen`); by label and figure what the linear model `alone` has on the test split of a model, and what the
    model has there `without_gate`; the fingerprints of the `models` of a file of labels, and by label the error `rates`
    that these models have with the thresholds that gave the labels.

    All are empty where nothing tells.
    """

    thresholds: Mapping[str, float] = field(default_factory=dict)
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seen: Mapping[str, int] = field(default_factory=dict)
    alone: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    without_gate: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    models: Sequence[Mapping[str, str]] = ()
    rates: Mapping[str, ErrorRates] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> Made:
        """That of a model folder, or of a file of labels."""
        try:
            return cls._of_model(json.loads((path / _INFO).read_bytes())) if path.is_dir() else cls._of_labels(path)
        except _TELLS_NOTHING:
            return cls()

    @classmethod
    def _of_model(cls, told: Any) -> Made:
        alone, labels = told.get("metrics", {}).get("alone", {}), told.get("task", {}).get("labels", {})
        return cls(
            _numbers(told.get("thresholds", {})),
            _lists({name: label["categories"] for name, label in labels.items()}),
            {LEARNT: met} if (met := int(told.get("papers", {}).get("test_papers_seen_by_base", 0))) else {},
            dict(alone["linear"]["test"]) if "encoder" in alone and "linear" in alone else {},
            dict(told.get("metrics", {}).get("test_without_gate", {})),
        )

    @classmethod
    def _of_labels(cls, path: Path) -> Made:
        beside = path.with_name(f"{path.name}{_JOB_FILE}")
        told = json.loads(beside.read_bytes() if beside.exists() else pl.read_parquet_metadata(path)[_JOB_KEY])
        if beside.exists() and told["output"] != Source(str(path), path).fingerprint():
            # Of other labels, which were there before.
            return cls()
        seen: Counter[str] = Counter()
        for part in told["parts"]:
            seen.update({str(name): int(count) for name, count in part.get("seen", {}).items()})
        job = told["job"]
        return cls(
            _numbers(job["labels"]),
            _lists(job.get("categories", {})),
            dict(seen),
            models=tuple(job.get("models", ())),
            rates={name: ErrorRates(Confusion(**counts)) for name, counts in job.get("evaluation", {}).items()},
        )


def unlike(first: Made, second: Made, names: Sequence[str]) -> str:
    """How two files of labels were made otherwise, in words; "" where these labels were made alike, or nobody tells."""
    if first.models and second.models and first.models != second.models:
        return "by different models, or on different processors"
    pairs = [(first.thresholds.get(name), second.thresholds.get(name), name) for name in names]
    others = [f"{name} from {one:g}, then {other:g} on" for one, other, name in pairs if one and other and one != other]
    return f"by different thresholds ({', '.join(others)})" if others else ""


def _numbers(told: Mapping[str, Any]) -> Mapping[str, float]:
    return {str(name): float(value) for name, value in told.items()}


def _lists(told: Mapping[str, Any]) -> Mapping[str, tuple[str, ...]]:
    return {str(name): tuple(map(str, of)) for name, of in told.items()}
