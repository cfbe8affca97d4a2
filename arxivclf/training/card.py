"""The model card: what a model folder's README.md says to people and, in its header, to the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from arxivclf.corpus.splits import SHARES, TRAIN, VALIDATION
from arxivclf.model.calibration import LEAST_PAPERS
from arxivclf.model.folder import ModelInfo
from arxivclf.model.hub import name_on_hub
from arxivclf.model.training_range import ARCHIVES, YEARS
from arxivclf.reporting.metrics import Confusion

if TYPE_CHECKING:
    from arxivclf.training.finetune import Epoch

FILE = "README.md"

# The hub's name of each figure, and what the card calls it.
_FIGURES = {
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "accuracy": "accuracy",
    "average_precision": "average precision",
}
# How many years and archives of the training papers the card lists.
_LARGEST_SHARES = 5
_CLEANING = {
    "none": "title and abstract joined by `. `, white space folded",
    "cset2020": "title and abstract joined by `. `, then as CSET cleaned in 2020: no mathematics, no punctuation but"
    " the full stop, no currency signs, no accents, no numbers, lower case",
    "cset2023": "title and abstract joined by `. `, then as CSET cleaned in 2023: no mathematics, no punctuation but"
    " the full stop, currency signs as `_CUR_`, no accents, numbers as `_NUMBER_`",
}
_LOSSES = {
    "cross-entropy": "binary cross-entropy for each label",
    "weighted": "binary cross-entropy for each label, positives weighted to count as much as negatives",
    "focal": "focal loss for each label",
}
_ALONE = {"linear": "the linear model alone", "encoder": "the encoder alone"}
_TUNED = {"all": "all weights", "head": "the head alone, its body frozen", "lora": "LoRA updates, merged afterwards"}


def write(info: ModelInfo, history: Sequence[Epoch], labels: pl.DataFrame, name: str) -> str:
    """The card as Markdown with its YAML header; `labels` are those of the test split, `name` that of the model."""
    parts = [
        f"# {name}",
        _summary(info),
        "## What the labels mean",
        _table(("label", "meaning", "positive if the paper has"), map(_meaning, info.task.labels)),
        "## Results",
        _results(info),
        "### By year, on the test split",
        "A paper's year is that of its first version.",
        _by_year(info, labels),
        "## Labelling with it",
        f"```\npip install arxivclf\narxivclf label dump.parquet --model {name}\n```",
        "`dump.parquet` is a dump of arXiv's metadata, or any table with `id`, `title` and `abstract`, as Parquet or"
        " JSON lines. Text is cleaned as in training, scores are calibrated and thresholds applied; plain transformers"
        " gives the logits before all that.",
        "## Intended uses and limits",
        _limits(info),
        "## Training data",
        _data(info),
        "## Training",
        _training(info),
        *(("### By pass", _passes(history, info)) if history else ()),
        *(("## The linear model and its gate", _gate(info)) if info.settings["gate"] else ()),
        "## Calibration and thresholds",
        _calibration(info),
        "## Environment",
        _table(("", ""), info.environment.items()),
    ]
    return f"{_header(info, name)}\n\n" + "\n\n".join(parts) + "\n"


def _header(info: ModelInfo, name: str) -> str:
    results = [
        EvalResult(
            task_type="text-classification",
            task_name=f"{label} on {part}",
            dataset_type="arxiv",
            dataset_name=_set_name(info, part, label),
            dataset_split=part,
            metric_type=figure,
            metric_name=f"{words} ({label})",
            metric_value=round(values[figure], 4),
        )
        for part in ("validation", "test")
        for label, values in info.metrics[part].items()
        for figure, words in _FIGURES.items()
        if values.get(figure) is not None
    ]
    data = ModelCardData(
        language="en",
        library_name="transformers" if info.has_encoder else "arxivclf",
        pipeline_tag="text-classification",
        tags=["arxiv", "arxivclf", "scientometrics", *info.task.names],
        base_model=name_on_hub(str(info.settings["base"])) if info.has_encoder else None,
        model_name=name,
        eval_results=results,
    )
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n")).strip()


def _summary(info: ModelInfo) -> str:
    labels = ", ".join(f"`{label}`" for label in info.task.names)
    train, every = info.papers["train"]["papers"], info.papers.get("learnt_from", 0)
    made = f"fine-tuned from `{info.settings['base']}`"
    if not info.has_encoder:
        made = "made of hashed words, without an encoder,"
    elif info.settings["epochs"] == 0:
        made = f"made of the encoder of `{info.settings['base']}`, which was left as it is, and the rest fitted"
    more = f" (and its linear model on {every:,})" if info.has_encoder and every > train else ""
    return (
        f"Tells of a paper, from its title and abstract, whether it is {labels}. It was {made} by arxivclf"
        f" {info.environment['arxivclf']} on {train:,} papers{more}, with arXiv's own"
        " categories, or a label column, as the truth."
    )


def _meaning(label: Any) -> tuple[str, str, str]:
    return f"`{label.name}`", label.description, ", ".join(label.categories) or "a true `label`"


def _results(info: ModelInfo) -> str:
    gated, rows = bool(info.gates), []
    for part in ("validation", "test"):
        for label, values in info.metrics[part].items():
            papers = sum(values[f"{sign}_{side}"] for sign in ("true", "false") for side in ("positives", "negatives"))
            without_gate = info.metrics[f"{part}_without_gate"][label] if gated else {}
            figures = [
                _figure(by_name.get(name))
                for name in _FIGURES
                for by_name in (values, *([without_gate] if gated else []))
            ]
            rows.append((_set_name(info, part, label), f"`{label}`", f"{papers:,}", f"{values['support']:,}", *figures))
    names = [column for name in _FIGURES.values() for column in (name, *([f"{name}, no gate"] if gated else []))]
    notes = []
    if gated:
        shares = info.metrics["decided_by_gate"]
        notes.append(
            "The figures are those of the model as `arxivclf label` uses it: its gate decides"
            f" {shares['validation']:.1%} of the validation papers and {shares['test']:.1%} of the test papers, and the"
            " encoder the others. Columns with `no gate` are those of `--no-gate`, where the encoder sees every paper."
        )
    met = info.papers.get("test_papers_seen_by_base", 0)
    tested = f"`{info.settings['base']}` had met {met:,} papers of the test split before, and its figures flatter, too."
    notes.append(
        "The thresholds were chosen on the validation set, so that its figures flatter; "
        + (tested if met else "the test split was used for nothing else.")
    )
    return "\n\n".join([_table(("on", "label", "papers", "positive", *names), rows), *notes])


def _set_name(info: ModelInfo, part: str, label: str) -> str:
    other, answers = info.settings.get("validation"), info.settings.get("validation_label")
    if part != "validation" or not other or (len(other) == 1 and answers not in (None, label)):
        return f"the {part} split"
    return " and ".join(Path(name).name for name in other)


def _by_year(info: ModelInfo, labels: pl.DataFrame) -> str:
    rows: list[tuple[object, ...]] = []
    years = labels.with_columns(year=pl.col("created").dt.year())
    for label in info.task.names:
        for (year,), papers in years.group_by("year", maintain_order=True):
            found = Confusion.count(papers.get_column(f"{label}_truth"), papers.get_column(label))
            figures = found.as_dict()
            rows.append(
                (
                    f"`{label}`",
                    "unknown" if year is None else year,
                    f"{len(papers):,}",
                    f"{found.support:,}",
                    *(_figure(figures[one]) for one in ("precision", "recall", "f1")),
                )
            )
    rows.sort(key=lambda row: (str(row[0]), str(row[1])))
    return _table(("label", "year", "papers", "positive", "precision", "recall", "F1"), rows)


def _limits(info: ModelInfo) -> str:
    since = info.settings["since"]
    weak = info.papers.get("weak_negatives", 0)
    lines = [
        "It is for counting and finding papers in collections: trends, maps, reading lists. It is not for judging a"
        " paper, its quality or its authors.",
        "The truth is what authors and moderators of arXiv chose as categories. They differ in habit between fields and"
        " over the years, so a share of what counts here as wrong is a matter of opinion.",
        f"It learnt from papers of {since} and later. Fields move on: judge it anew on later papers (`arxivclf report`)"
        " before their counts are compared.",
        "It knows English titles and abstracts; of other languages it saw hardly any.",
        f"Of a text it reads the first {info.max_tokens} tokens."
        if info.has_encoder
        else "It counts words and pairs of words, and knows nothing of their order beyond.",
        f"It also saw {weak:,} papers of other sciences as negatives; on what is neither in arXiv nor like them its"
        " labels were not measured."
        if weak
        else "It saw papers of arXiv alone. On other sciences it gives more false positives than the table above shows;"
        " `--weak-negatives` is the remedy.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _data(info: ModelInfo) -> str:
    files = _table(
        ("read as", "file", "bytes", "papers", "SHA-256"),
        [
            (of["role"], f"`{Path(of['name']).name}`", f"{of['bytes']:,}", f"{of['papers']:,}", f"`{of['sha256']}`")
            for of in info.files
        ],
    )
    sides = _table(
        ("part", "papers", *(f"positive for `{label}`" for label in info.task.names)),
        [
            (side, f"{of['papers']:,}", *(f"{of['positive'][label]:,}" for label in info.task.names))
            for side, of in ((side, info.papers[side]) for side in ("train", "validation", "test"))
        ],
    )
    settings, papers = info.settings, info.papers
    parts = dict(SHARES)
    if settings["validation"] and not settings["validation_label"]:
        parts[TRAIN] += parts.pop(VALIDATION)
    shares = ", ".join(f"{share:.0%} {side}" for side, share in parts.items())
    split = {
        "hash": f"by a hash of the arXiv id, without its version ({shares}): a paper is always on the same side",
        "time": f"by date, the newest papers being the test split ({shares})",
    }[settings["split"]]
    told = [
        f"Left out: {papers['before_since']:,} papers from before {settings['since']},"
        f" {papers['without_truth']:,} without a truth, {papers['repeats']:,} repeats of an id,"
        f" {papers['rejects']:,} rows that are no papers"
        + (f", {papers['excluded']:,} papers that were to be (`--exclude`)." if "excluded" in papers else "."),
        f"Split {split}.",
        *_years_and_archives(papers),
    ]
    if papers.get("told_by_label"):
        told.append(f"The truth of {papers['told_by_label']:,} papers is what a label column says, not categories.")
    if papers.get("of_unknown_year"):
        told.append(f"Of {papers['of_unknown_year']:,} papers nothing told the year; they count as new enough.")
    if settings["validation"]:
        only = f", a yes or no for `{settings['validation_label']}`" if settings["validation_label"] else ""
        told.append(
            f"Validated on {' and '.join(f'`{Path(name).name}`' for name in settings['validation'])} instead{only};"
            f" {papers['shared_with_validation']:,} papers that stand in it, too, were taken out of training and test."
        )
    if settings["sample"] is not None:
        told.append(f"Of all papers {settings['sample']:g} % were taken, by a hash of the id and the seed.")
    if settings["max_papers"] is not None:
        told.append(f"At most {settings['max_papers']:,} papers were taken, by a hash of the id and the seed.")
    if settings["undersample"] is not None and info.has_encoder:
        told.append(
            f"The training part was undersampled to {settings['undersample']:g} negatives for each positive, others in"
            " each pass of an encoder."
        )
    if settings["weak_negatives"]:
        told.append(
            f"Weak negatives: {papers['weak_negatives']:,} papers of `{Path(settings['weak_negatives']).name}`, in the"
            " training part alone, counted as negative for every label."
        )
    else:
        told.append("No weak negatives.")
    cut = f"; cut to {info.max_tokens} tokens" if info.has_encoder else ""
    told.append(f"Text: {_CLEANING[info.cleaning]}{cut}.")
    return f"{files}\n\n{sides}\n\n" + "\n".join(f"- {line}" for line in told)


def _years_and_archives(papers: Mapping[str, Any]) -> Iterator[str]:
    """A line on the years, and one on the archives, of the training papers, each with its largest shares."""
    for name, what in ((YEARS, "Years"), (ARCHIVES, "Archives of the primary categories")):
        counts, total = papers[name], sum(papers[name].values())
        if total:
            largest = sorted(counts, key=lambda value: -counts[value])[:_LARGEST_SHARES]
            shares = ", ".join(f"{value} {counts[value] / total:.1%}" for value in largest)
            between = f" {min(counts)}-{max(counts)}" if name == YEARS else ""
            more = f", and {len(counts) - len(largest)} more" if len(counts) > len(largest) else ""
            yield f"{what} of the training papers{between}: {shares}{more}."


def _training(info: ModelInfo) -> str:
    settings, chosen = info.settings, info.chosen
    if not info.has_encoder:
        return (
            "Words, pairs of neighbours, and both once more for the title, hashed into 4,194,304 places; 1 + ln(count),"
            " weighted by rarity, length one; logistic regression by averaged stochastic gradient descent, in which a"
            " feature learns faster that positive papers have more often than negative ones, or less (NB-SVM);"
            " weights of 8 bits."
        )
    if settings["epochs"] == 0:
        return f"None of the encoder, which is that of `{settings['base']}`."
    rows = {
        "base": f"`{settings['base']}`",
        "trained": _TUNED[settings["tune"]],
        "loss": _LOSSES[settings["loss"]],
        "learning rate": f"{chosen['learning_rate']:g}",
        "schedule": f"{settings['schedule']}, warm-up over {chosen['warmup']:.0%} of the steps",
        "passes": f"{chosen['epochs']:g} at most; the weights are those after pass {chosen['kept_pass']:g}",
        "early stopping": f"after {settings['patience']} passes without a better F1"
        if settings["patience"]
        else "none",
        "batch": f"{settings['batch_size']} papers",
        "optimiser": f"AdamW, betas {', '.join(f'{beta:g}' for beta in settings['adam_betas'])}, epsilon"
        f" {settings['adam_epsilon']:g}, weight decay {settings['weight_decay']:g}",
        "gradient norm": f"at most {settings['max_gradient_norm']:g}",
        "dropout": "as in the base" if settings["dropout"] else "none",
        "precision": f"{chosen['precision']} matrix products, float32 weights",
        "seed": str(settings["seed"]),
    }
    return _table(("", ""), rows.items())


def _passes(history: Sequence[Epoch], info: ModelInfo) -> str:
    rows = [
        (
            f"{one.epoch:g}",
            f"{one.step:,}",
            f"{one.training_loss:.4f}",
            f"{one.validation_loss:.4f}",
            *(_figure(one.labels[label][figure]) for label in info.task.names for figure in _FIGURES),
        )
        for one in history
    ]
    many = len(info.task.names) > 1
    figures = [f"{label} {words}" if many else words for label in info.task.names for words in _FIGURES.values()]
    return _table(("pass", "step", "training loss", "validation loss", *figures), rows) + (
        "\n\nLosses are means over papers and labels, before calibration; figures are at the threshold of the best F1."
    )


def _gate(info: ModelInfo) -> str:
    rows = []
    for which, parts in info.metrics["alone"].items():
        for part, labels in parts.items():
            for label, of in labels.items():
                figures = [_figure(of.get(figure)) for figure in _FIGURES]
                rows.append((_ALONE[which], part, f"`{label}`", *figures))
    told = [_table(("baseline", "on", "label", *_FIGURES.values()), rows)]
    for label, blend in info.blends.items():
        told.append(
            f"`{label}`: logit = {blend.encoder:.3f} x encoder + {blend.linear:.3f} x linear model"
            if blend.linear
            else f"`{label}`: the encoder's logit alone"
        )
    if info.gates:
        told += _gate_evidence(info)
    elif info.has_encoder:
        told.append(
            f"No gate: for at least one label the validation papers are too few, or differ too often, to prove a"
            f" --gate-risk of {info.settings['gate_risk']:g}. The encoder sees every paper."
        )
    return "\n\n".join(told)


def _gate_evidence(info: ModelInfo) -> list[str]:
    """The thresholds of each gate, what the gate would change on the validation papers, and where the bound holds."""
    rows = [
        (
            f"`{label}`",
            f"{gate.low:.4f}",
            f"{gate.high:.4f}",
            f"{gate.decided:.1%} of {gate.papers:,}",
            f"{gate.labelled:,}",
            f"{gate.lost:,}",
            f"{gate.gained:,}",
            f"{gate.bound:.2%}",
        )
        for label, gate in info.gates.items()
    ]
    header = (
        "label",
        "at most",
        "or at least",
        "decides",
        "labelled without gate",
        "lost",
        "gained",
        "at most changed",
    )
    risk = max(gate.risk for gate in info.gates.values())
    return [
        "The linear model decides a paper, and the encoder does not see it, where its score for every label is at most"
        " the first or at least the second value of this table. The counts are of validation papers, as if the gate of"
        " that label decided by itself; with all gates together fewer labels change.",
        _table(header, rows),
        "The last column is the upper 95 % confidence bound (exact binomial, for all labels at once) of the lost and"
        " gained labels as a share of the papers that the model labels without its gate; it may be at most"
        f" {risk:.2%} (`--gate-risk`). It holds for papers that are exchangeable with the validation papers, such as"
        " other papers of the same dump. It is not proven for other years, fields or sources, where the two models may"
        " disagree more often. Stacking weights, calibrations, label thresholds and gate were all fitted on the same"
        " validation papers; in simulations of that the bound was broken in fewer than 5 % of trainings.",
    ]


def _calibration(info: ModelInfo) -> str:
    rows = []
    for label, one in info.calibrations.items():
        errors = (
            info.metrics[part][label][figure]
            for part in ("validation", "test")
            for figure in ("calibration_error_before", "calibration_error")
        )
        rows.append((f"`{label}`", one.kind, *map(_figure, errors), f"{info.thresholds[label]:.4f}"))
    header = ("label", "kind", "validation before", "and after", "test before", "and after", "threshold")
    plain = [label for label, one in info.calibrations.items() if one.kind == "none"]
    but = "".join(f" Those of `{label}` are {how_calibrated(info, label)}." for label in plain)
    shares = ", ".join(f"{share:.1%} `{label}`" for label, share in info.prevalence.items())
    return (
        f"Scores are probabilities, calibrated on the validation set.{but} Their expected calibration error (15 bins of"
        " equal width) before and after; and the score from which on a label is given, that of the best F1 on"
        f" validation:\n\n{_table(header, rows)}\n\nScores hold for dumps with about these shares of papers: {shares}."
        " For a dump with other shares, `arxivclf label --prevalence LABEL=SHARE` shifts them."
    )


def how_calibrated(info: ModelInfo, label: str) -> str:
    """What became of the scores of a label, in words."""
    kind, asked = info.calibrations[label].kind, info.settings["calibration"]
    if kind != "none":
        return f"calibrated ({kind})"
    if asked == "none":
        return "not calibrated, as was asked for"
    of = info.metrics["validation"][label]
    rarer = min(of["support"], of["true_negatives"] + of["false_positives"])
    if rarer < LEAST_PAPERS["temperature" if asked == "auto" else asked]:
        return f"not calibrated, for {rarer:,} validation papers of the rarer class are too few"
    return "as they were, for no calibration does better on validation papers that it was not fitted to"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
