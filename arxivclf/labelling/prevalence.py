"""Labelling a dump in which labels have another prevalence than among the papers that calibration was fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from arxivclf.corpus.snapshot import Snapshot
from arxivclf.corpus.sources import Source
from arxivclf.errors import UsageError
from arxivclf.labelling.classifier import Classifier
from arxivclf.labelling.sampling import count_rows, sample

AUTO = "auto"
SAMPLED = 4_096
_STEPS = 1_000
_CONVERGED = 1e-9


def parse(given: Sequence[str], labels: Sequence[str]) -> dict[str, float]:
    """The shares of `--prevalence` by label: from LABEL=SHARE, or SHARE where there is one label; `auto` is left out.

    Raises UsageError for an unknown label, a label with two shares, and a share outside (0, 1).
    """
    shares: dict[str, float] = {}
    for text in given:
        if text == AUTO:
            continue
        label, equals, number = (part.strip() for part in text.rpartition("="))
        if not equals and len(labels) > 1:
            raise UsageError(f"--prevalence {text}: there are several labels; LABEL=SHARE names one, or auto")
        label = label if equals else labels[0]
        if label not in labels:
            raise UsageError(f"--prevalence {text}: no label {label!r}, only {', '.join(labels)}")
        if label in shares:
            raise UsageError(f"--prevalence {text}: {label} has a share already")
        try:
            shares[label] = float(number)
        except ValueError:
            raise UsageError(f"--prevalence {text}: {number!r} is not a number") from None
        if not 0 < shares[label] < 1:
            raise UsageError(f"--prevalence {text}: a share is above 0 and below 1")
    return shares


def targets(given: Sequence[str], classifier: Classifier, snapshot: Snapshot | None) -> dict[str, float]:
    """By label the prevalence that scores shall hold for; with `auto` those of a dump, for labels without a share.

    Raises UsageError as `parse` does, or where a model has no record of the prevalence that its scores hold for.
    """
    labels = list(classifier.thresholds)
    shares, fitted = parse(given, labels), classifier.prevalence
    wanted = labels if AUTO in given else list(shares)
    if unknown := [label for label in wanted if label not in fitted]:
        raise UsageError(f"--prevalence: no record of the prevalence that scores for {', '.join(unknown)} hold for")
    if len(shares) == len(wanted):
        return shares
    if snapshot is None:
        raise UsageError("--prevalence auto: only for --engine local; give the shares as LABEL=SHARE")
    scores = _sampled_scores(classifier, snapshot)
    if not len(scores):
        raise UsageError("--prevalence auto: no paper in the sample of the dump; give the shares as LABEL=SHARE")
    # Four digits are more than a sample can tell.
    estimated = {name: float(f"{estimate(scores[:, at], fitted[name]):.4g}") for at, name in enumerate(labels)}
    return {name: shares.get(name, estimated[name]) for name in labels}


def estimate(scores: npt.ArrayLike, fitted: float) -> float:
    """The prevalence of a label among papers with these scores (papers,), calibrated where it was `fitted`.

    The maximum likelihood estimate under label shift, by the EM algorithm of Saerens, Latinne and Decaestecker (2002).
    It is at least half a paper, and at most all but half of one.
    """
    known = np.asarray(scores, dtype=np.float64)
    least = 0.5 / len(known)
    share = fitted
    for _ in range(_STEPS):
        positive, negative = known * share / fitted, (1 - known) * (1 - share) / (1 - fitted)
        before, share = share, float(np.clip((positive / (positive + negative)).mean(), least, 1 - least))
        if abs(share - before) < _CONVERGED:
            break
    return share


def record(classifier: Classifier) -> dict[str, dict[str, float]]:
    """What a run records by label: the `target` prevalence of its scores, and the one that they were `fitted` at."""
    return {
        label: {"fitted": model.prevalence[label], "target": share}
        for model in classifier.models
        for label, share in model.target_prevalence.items()
    }


def _sampled_scores(classifier: Classifier, snapshot: Snapshot) -> npt.NDArray[np.float32]:
    """The scores of up to SAMPLED papers from all over a dump, the same ones each time, float32 (papers, labels)."""
    rows = [count_rows(source)[0] for source in snapshot.sources]
    found = [np.empty((0, len(classifier.thresholds)), np.float32)]
    if sum(rows):
        with TemporaryDirectory() as folder:
            paths = sample(snapshot.sources, rows, min(SAMPLED, sum(rows)), Path(folder))
            sources = tuple(Source(str(path), path) for path in paths)
            chunks = Snapshot(sources, snapshot.naming).chunks()
            found += [classifier.scores(chunk.papers) for chunk in chunks if len(chunk.papers)]
    return np.concatenate(found)
