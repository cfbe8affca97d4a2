"""Reports, comparisons and drifts as plain dictionaries, the way docs/report-json.md describes them."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from arxivclf.corpus.seen import FITTED, LEARNT
from arxivclf.reporting.compare import FIGURES, Change, Comparison, LabelComparison
from arxivclf.reporting.drift import Drift, LabelDrift
from arxivclf.reporting.intervals import Interval
from arxivclf.reporting.overall import NAMES, Overall
from arxivclf.reporting.report import LabelReport, Report
from arxivclf.reporting.slices import Slice
from arxivclf.reporting.targets import Target
from arxivclf.reporting.unjudged import Share, Unjudged

# To be raised when a name goes or means something else; new names may come without.
SCHEMA = 1


def content_of(found: Report | Comparison | Drift) -> dict[str, Any]:
    """Everything there is, with None where there is no number."""
    if isinstance(found, Report):
        of = _of_report(found)
    else:
        of = _of_comparison(found) if isinstance(found, Comparison) else _of_drift(found)
    return {"schema": SCHEMA, **of}


def _of_report(report: Report) -> dict[str, Any]:
    return {
        "kind": "report",
        "source": report.source,
        "labels": [_of_label(label) for label in report.labels],
        "overall": _of_overall(report.overall) if report.overall is not None else None,
        "unjudged": [_of_unjudged(one) for one in report.unjudged],
        "match": asdict(report.match) if report.match is not None else None,
        "seen": {name: report.seen.get(name, 0) for name in (LEARNT, FITTED)} if report.seen else None,
        "left_out": asdict(report.left_out) if report.left_out is not None else None,
    }


def _of_label(label: LabelReport) -> dict[str, Any]:
    thresholds, papers = label.thresholds, label.disagreements
    return {
        "label": label.name,
        "papers": label.papers,
        "labelled": label.labelled,
        "without_truth": label.unknown,
        "assumed": label.assumed,
        "confusion": label.confusion.counts(),
        "figures": {
            key(one.name): bounds(one.interval)
            | {
                "method": one.method,
                "larger_class": number(one.larger_class),
                "gate_alone": number(one.gate_alone),
                "without_gate": number(one.without_gate),
                "by_chance": number(one.by_chance),
            }
            for one in label.figures
        },
        "thresholds": None
        if thresholds is None
        else [
            {
                "threshold": cut.threshold,
                "why": cut.why or None,
                "labelled": cut.labelled,
                **{name: number(getattr(cut.confusion, name)) for name in ("precision", "recall", "f1")},
            }
            for cut in thresholds.cuts
        ],
        "targets": None if thresholds is None else [_of_target(target) for target in thresholds.targets],
        "where_errors": None
        if label.where is None
        else {
            which: [{"primary": part.value, "confusion": part.confusion.counts()} for part in of]
            for which, of in (
                ("false_positives", label.where.false_positives),
                ("false_negatives", label.where.false_negatives),
            )
        },
        "slices": {one.by: [_of_slice(part) for part in one.slices] for one in label.slices},
        "disagreements": None
        if papers is None
        else {
            side: [
                {"id": one.id, "score": one.score, "categories": one.categories, "title": one.title, "link": one.link}
                for one in of
            ]
            for side, of in (("labelled", papers.labelled), ("missed", papers.missed))
        },
    }


def _of_target(target: Target) -> dict[str, Any]:
    return {
        "figure": target.figure,
        "target": target.target,
        "threshold": target.threshold,
        "observed": number(target.observed),
        "lower_bound": number(target.lower_bound),
        "papers": target.papers,
        "needed": target.needed,
    }


def _of_slice(part: Slice) -> dict[str, Any]:
    figures = {"precision": part.precision, "recall": part.recall, "f1": part.f1}
    return {
        "value": part.value,
        "confusion": part.confusion.counts(),
        "prevalence": part.prevalence,
        "labelled_share": part.labelled_share,
        "judged": part.judged,
        **{name: bounds(interval) for name, interval in figures.items()},
    }


def _of_overall(overall: Overall) -> dict[str, Any]:
    return {
        "papers": overall.papers,
        **{
            which: {key(name): bounds(one) for name, one in zip(NAMES, intervals, strict=True)}
            for which, intervals in (("micro", overall.micro), ("macro", overall.macro))
        },
    }


def _of_unjudged(found: Unjudged) -> dict[str, Any]:
    return {
        "label": found.name,
        **_of_unjudged_share(found, found.whole),
        "error_rates": None if found.rates is None else found.rates.confusion.counts(),
        "scores": list(found.scores),
        "slices": {
            by: [{"value": one.value, **_of_unjudged_share(found, one)} for one in shares]
            for by, shares in found.slices
        },
    }


def _of_unjudged_share(found: Unjudged, share: Share) -> dict[str, Any]:
    adjusted = found.adjusted(share)
    return {**_of_share(share), "adjusted_share": None if adjusted is None else bounds(adjusted)}


def _of_share(found: Share) -> dict[str, Any]:
    return {"papers": found.papers, "labelled": found.labelled, "share": bounds(found.share)}


def _of_drift(found: Drift) -> dict[str, Any]:
    words = found.words
    return {
        "kind": "drift",
        "before": found.first,
        "now": found.second,
        "papers_before": found.papers_before,
        "papers_now": found.papers_now,
        "shared": found.shared,
        "unlike": found.unlike,
        "labels": [_of_drifted(label) for label in found.labels],
        "words": None
        if words is None
        else {
            "papers_before": words.before,
            "papers_now": words.now,
            "unseen_before": words.unseen_before,
            "unseen_now": words.unseen_now,
            "welch_p": number(words.p),
            "new": [{"word": word, "papers": papers} for word, papers in words.new],
        },
    }


def _of_drifted(label: LabelDrift) -> dict[str, Any]:
    return {
        "label": label.name,
        "before": _of_share(label.before),
        "now": _of_share(label.now),
        "difference": bounds(label.difference),
        "within_years": None
        if label.within_years is None
        else bounds(label.within_years) | {"papers": label.papers_within_years},
        "years": [
            {"year": before.value, "before": _of_share(before), "now": _of_share(now)} for before, now in label.years
        ],
        "kolmogorov_smirnov": label.distance,
        "kolmogorov_smirnov_p": label.p,
        "stability": label.stability,
        "f1": None
        if label.f1 is None
        else dict(zip(("before", "now", "difference"), map(bounds, label.f1), strict=True)),
        "verdict": label.verdict,
    }


def _of_comparison(both: Comparison) -> dict[str, Any]:
    return {
        "kind": "comparison",
        "before": both.first,
        "now": both.second,
        "papers": both.papers,
        "before_alone": both.first_alone,
        "now_alone": both.second_alone,
        "left_out": asdict(both.left_out) if both.left_out is not None else None,
        "labels": [_of_compared(label) for label in both.labels],
    }


def _of_compared(label: LabelComparison) -> dict[str, Any]:
    judged = label.judgement
    return {
        "label": label.name,
        **_of_change(label.whole),
        "agreement": bounds(label.agreement),
        "truths_differ": label.truths_differ,
        "kappa": number(label.kappa),
        "judgement": None
        if judged is None
        else {
            "before": judged.first.counts(),
            "now": judged.second.counts(),
            "differences": {key(name): bounds(one) for name, one in zip(FIGURES, judged.differences, strict=True)},
            "right_before_alone": judged.first_alone,
            "right_now_alone": judged.second_alone,
            "mcnemar_p": judged.p,
        },
        "slices": {by: [{"value": one.value, **_of_change(one)} for one in changes] for by, changes in label.slices},
        "changed": [
            {
                "id": paper.id,
                "score_before": paper.first_score,
                "score_now": paper.second_score,
                "gained": paper.gained,
                "link": paper.link,
            }
            for paper in label.papers
        ],
    }


def _of_change(change: Change) -> dict[str, Any]:
    return {"papers": change.papers, "gained": change.gained, "lost": change.lost}


def bounds(interval: Interval) -> dict[str, Any]:
    return dict(zip(("value", "low", "high"), interval.as_list(), strict=True))


def number(value: float) -> float | None:
    return None if math.isnan(value) else value


def key(name: str) -> str:
    return name.lower().replace(" ", "_")
