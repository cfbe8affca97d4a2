"""The truth of labelled papers from another file: a dump with categories or a label column, or other labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from arxivclf.corpus import parquet
from arxivclf.corpus.columns import Columns, Naming
from arxivclf.corpus.jsonlines import parsed
from arxivclf.corpus.rejects import in_words
from arxivclf.corpus.snapshot import Snapshot, is_parquet, lines_of
from arxivclf.corpus.sources import Source, fetch, resolve
from arxivclf.corpus.tasks import Label, Task, built_in
from arxivclf.corpus.truths import Wording, truth
from arxivclf.errors import DataError
from arxivclf.reporting.table import KEY, TEST_LABELS, LabelsFile, alike, keyed

# What tells the columns of JSON lines.
_FIRST_LINES = 100


@dataclass(frozen=True)
class Match:
    """How labels and a file of truth go together: the papers in both, and those in one of them alone.

    Of those in both `silent` are told nothing of, `repeated` are told of in several rows, and in `contradictory` of
    these the rows differ; `not_understood` says in words which labels say nothing, "" where all do; `passed_over` is a
    column of labels that does not count, because another goes before it, "" where there is none.
    """

    source: str
    papers: int
    labels_alone: int
    truth_alone: int
    silent: int = 0
    repeated: int = 0
    contradictory: int = 0
    not_understood: str = ""
    passed_over: str = ""


@dataclass(frozen=True)
class _Told:
    """What a file tells: the `id`, `created` if known, the truth of each label and, where it is there, the title of
    each paper. The rest as in Match."""

    papers: pl.DataFrame
    not_understood: str
    passed_over: str = ""


def with_truth(
    table: pl.DataFrame,
    names: Sequence[str],
    path: str,
    naming: Naming,
    categories: Mapping[str, Sequence[str]] | None = None,
) -> tuple[pl.DataFrame, Match]:
    """The table with the columns `<name>_truth` and, where the file has it, `title`, of the papers of the same id.

    `table` has `id` and may have `created`, which tells damaged ids. Ids of arXiv are the same in all their spellings;
    of several rows of one paper that tell it the last does. A label is told from a column that `naming` names, from a
    column `<name>_truth`, from `categories`, where those that make it true are given or built in, or from a column
    `label`, in this order. Raises DataError where no id is in both, or where no label's truth is told.
    """
    found = _told(path, _task(names, categories or {}), naming)
    own, told = alike(keyed(table), keyed(found.papers))
    columns = [f"{name}_truth" for name in names]
    if all(not told.get_column(column).count() for column in columns):
        alone = "" if len(names) == 1 else ", which is for one label: name it with --label"
        takes = f"it takes categories for a built-in task, or a column {columns[0]}, or a column label{alone}"
        raise DataError(f"--truth {path}: tells no truth for {', '.join(names)}; {found.not_understood or takes}")
    answered = told.filter(pl.any_horizontal(pl.col(columns).is_not_null()))
    rows = answered.group_by(KEY).agg(pl.len(), differ=pl.any_horizontal(pl.col(columns).drop_nulls().n_unique() > 1))
    # Rows that tell nothing come first, for of each paper the last is taken.
    told = pl.concat([told.filter(~pl.any_horizontal(pl.col(columns).is_not_null())), answered])
    told = told.drop("id", "created", strict=False).unique(KEY, keep="last", maintain_order=True)
    own = own.drop(*columns, strict=False)
    if "title" in told.columns:
        own = own.drop("title", strict=False)
    both = own.join(told.with_columns(there=pl.lit(True)), on=KEY, how="left", maintain_order="left")
    matched = int(both.get_column("there").sum())
    if not matched:
        first, other = (frame.get_column(KEY).drop_nulls().head(1).to_list() for frame in (own, told))
        raise DataError(
            f"--truth {path}: none of its {len(told):,} ids is among those of {len(own):,} labels (here"
            f" {', '.join(other) or 'none'}, there {', '.join(first) or 'none'})"
        )
    seen = own.get_column(KEY).unique().implode()
    unlabelled = int(told.select((~pl.col(KEY).is_in(seen)).sum()).item())
    silent = int(both.select((pl.col("there") & pl.all_horizontal(pl.col(columns).is_null())).sum()).item())
    again = rows.filter((pl.col("len") > 1) & pl.col(KEY).is_in(seen))
    match = Match(
        path,
        matched,
        len(own) - matched,
        unlabelled,
        silent,
        repeated=len(again),
        contradictory=int(again.get_column("differ").sum()),
        not_understood=found.not_understood,
        passed_over=found.passed_over,
    )
    return both.drop(KEY, "there"), match


def _task(names: Sequence[str], categories: Mapping[str, Sequence[str]]) -> Task:
    """What makes each label true: as its model has it, or else as the built-in label of that name."""
    known = {label.name: label for label in built_in().labels}
    return Task(
        tuple(
            Label(name, name, tuple(categories[name])) if name in categories else known.get(name, Label(name, name, ()))
            for name in names
        )
    )


def _told(path: str, task: Task, naming: Naming) -> _Told:
    if not Path(path).exists() or (Path(path).is_dir() and not (Path(path) / TEST_LABELS).exists()):
        return _of_dump(path, task, naming)
    truths, texts = (
        {f"{name}_truth" for name in task.names},
        {"abstract", "abstract_inverted_index", "text", naming.text},
    )
    there = _columns(Path(path))
    # Truths that somebody wrote down, or a table of ids without texts, are no dump, and neither are CSV and labels.
    if not there or truths & there or not texts & there:
        return _of_table(LabelsFile.open(path), task, naming)
    return _of_dump(path, task, naming)


def _columns(path: Path) -> set[str]:
    """The columns of Parquet, or those of the first JSON lines; none of a file that is neither."""
    source = Source(str(path), path)
    if path.is_dir():
        return set()
    if is_parquet(source):
        return set(parquet.schema(source))
    try:
        return {name for line, _ in islice(lines_of(source), _FIRST_LINES) for name in parsed(line)[0] or ()}
    except DataError:
        return set()


def _of_table(table: LabelsFile, task: Task, naming: Naming) -> _Told:
    columns = [f"{name}_truth" for name in task.names]
    found = Columns.recognise(table.columns, replace(naming, texts=False), (), f"--truth {table.path}")
    paper_id, categories, label = str(found.names["id"]), found.names["categories"], found.names["label"]
    written = [] if found.named else [name for name in columns if name in table.columns]
    wanted = dict.fromkeys(("created", "title", categories, label, *written))
    there = [name for name in wanted if name is not None and name in table.columns and name != paper_id]
    frame = table.read([paper_id, *there], written).rename({paper_id: "id"})
    nothing = pl.lit(None, pl.String)
    told = (pl.col(name).cast(pl.String) if name in there else nothing for name in (label, categories))
    said, listed = found.telling(*told)
    rows = frame.with_columns(listed=listed, label=said)
    answers, wording = _answers(task, rows)
    papers = frame.select("id", *(name for name in ("created", "title") if name in there))
    papers = papers.hstack([frame.get_column(one.name) if one.name in written else one for one in answers])
    passed_over = label in there and not found.named and (written or rows.get_column("listed").count() > 0)
    return _Told(papers, wording, str(label) if passed_over else "")


def _answers(task: Task, papers: pl.DataFrame) -> tuple[list[pl.Series], str]:
    """The truth of each label, as `<name>_truth`, and which labels say nothing, in words."""
    wording = Wording(task)
    wording.add(papers)
    answers = [series.rename(f"{series.name}_truth") for series in truth(task, wording.understood(papers))]
    return answers, wording.told()


def _of_dump(path: str, task: Task, naming: Naming) -> _Told:
    parts = []
    rejects: Counter[str] = Counter()
    # With a column that is named no id is a reject: what a damaged one means may be told by the labels.
    named = replace(naming, id=naming.id or "id")
    with TemporaryDirectory() as folder:
        sources = tuple(fetch(resolve((path,)), Path(folder)))
        for chunk in Snapshot(sources, named).chunks():
            rejects.update(row.reason for row in chunk.rejects)
            if len(chunk.papers):
                parts.append(chunk.papers.select("id", "created", "title", "label", "listed"))
    if not parts:
        raise DataError(f"--truth {path}: no paper in it" + (f": {in_words(rejects)}" if rejects else ""))
    papers = pl.concat(parts)
    answers, wording = _answers(task, papers)
    return _Told(papers.drop("label", "listed").hstack(answers), wording)
