"""Slices add up to the whole, and the papers to look at are the surest that are wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import Result
from conftest import error_line, paper, write_jsonl
from sklearn.metrics import f1_score

from arxivclf import report
from arxivclf.errors import DataError, UsageError
from arxivclf.reporting.compare import compare
from arxivclf.reporting.metrics import Confusion


def labels_of(papers: int = 2_000) -> pl.DataFrame:
    random = np.random.default_rng(5)
    truth = random.random(papers) < 0.2
    scores = (1 / (1 + np.exp(-random.normal(truth * 4 - 2, 1.2)))).astype(np.float32)
    primary = random.choice(["cs.LG", "cs.CV", "math.CO", "hep-th", "stat.ML"], papers)
    return pl.DataFrame(
        {
            "id": [f"{1801 + n % 12:04d}.{n + 1:05d}" for n in range(papers)],
            "created": pl.Series([f"{2010 + n % 10}-03-01" for n in range(papers)]).str.to_date(),
            "categories": [f"{one} math.OC" for one in primary],
            "title": [f"Paper {n}" for n in range(papers)],
            "journal": [None if n % 3 else f"J{n % 2}" for n in range(papers)],
            "ai": scores >= 0.5,
            "ai_score": scores,
            "ai_truth": [None if n % 50 == 7 else bool(one) for n, one in enumerate(truth)],
        }
    )


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "x.labels.parquet"
    labels_of().write_parquet(path)
    return path


@pytest.mark.parametrize(
    ("by", "key"),
    [
        ("year", pl.col("created").dt.year().cast(pl.String)),
        ("primary", pl.col("categories").str.extract(r"^(\S+)")),
        ("archive", pl.col("categories").str.extract(r"^([a-z-]+)")),
        ("journal", pl.col("journal").fill_null("(none)")),
    ],
)
def test_slices_add_up_to_the_whole(labels: Path, by: str, key: pl.Expr) -> None:
    (ai,) = report(labels, by=[by]).labels
    ((slices),) = ai.slices
    known = labels_of().drop_nulls("ai_truth").with_columns(key=key)
    assert {one.value for one in slices.slices} == set(known["key"])
    for one in slices.slices:
        papers = known.filter(pl.col("key") == one.value)
        assert one.confusion == Confusion.count(papers["ai_truth"], papers["ai"])
        assert (one.prevalence, one.labelled_share) == (papers["ai_truth"].mean(), papers["ai"].mean())
        assert one.f1.low <= one.f1.value == one.confusion.f1 <= one.f1.high
        assert (one.precision.value, one.recall.value) == (one.confusion.precision, one.confusion.recall)
    judged = [one for one in slices.slices if one.judged]
    assert [one.confusion.f1 for one in judged] == sorted(one.confusion.f1 for one in judged)
    assert slices.slices[: len(judged)] == tuple(judged)
    assert sum(one.confusion.papers for one in slices.slices) == ai.confusion.papers == len(known)


@pytest.mark.parametrize("between", [" ", ",", "; "])
def test_the_primary_category_is_the_first_however_they_are_parted(tmp_path: Path, between: str) -> None:
    frame = labels_of().with_columns(pl.col("categories").str.replace(" ", between, literal=True))
    frame.write_parquet(tmp_path / "x.parquet")
    (ai,) = report(tmp_path / "x.parquet", by=["primary", "archive"]).labels
    primary, archive = ({one.value for one in slices.slices} for slices in ai.slices)
    assert primary == {"cs.LG", "cs.CV", "math.CO", "hep-th", "stat.ML"}
    assert archive == {"cs", "math", "hep-th", "stat"}


def test_few_papers_are_not_judged(tmp_path: Path) -> None:
    labels_of(60).write_parquet(tmp_path / "few.parquet")
    (ai,) = report(tmp_path / "few.parquet", by=["year"]).labels
    assert not any(one.judged for one in ai.slices[0].slices)
    assert [one.value for one in ai.slices[0].slices] == [str(year) for year in range(2010, 2020)]


def test_twenty_positive_papers_are_judged(tmp_path: Path) -> None:
    rows = [(value, n < 30, True) for value, count in (("a", 19), ("b", 20)) for n in range(count)]
    frame = pl.DataFrame(rows, schema=["field", "ai", "ai_truth"], orient="row")
    frame.with_columns(ai_score=0.9).write_parquet(tmp_path / "x.parquet")
    (ai,) = report(tmp_path / "x.parquet", by=["field"]).labels
    assert [(one.value, one.judged) for one in ai.slices[0].slices] == [("b", True), ("a", False)]


def test_what_is_blank_is_none_and_what_is_no_year_neither(tmp_path: Path) -> None:
    dates = ["2021-05-01", "Mon, 2 Apr 2007 19:18:42 GMT", "20070402", " ", None, "2007", "07-04-02", "2007/04"]
    frame = pl.DataFrame({"created": dates, "categories": ["cs.AI", "", " ", *[None] * 5], "ai": [True] * 8})
    frame = frame.with_columns(ai_truth=True, ai_score=0.9, field=pl.Series(["", " ", "a", " a", "\t", *[None] * 3]))
    frame.write_parquet(tmp_path / "x.parquet")
    (ai,) = report(tmp_path / "x.parquet", by=["year", "primary", "archive", "field"]).labels
    found = [{one.value: one.confusion.papers for one in slices.slices} for slices in ai.slices]
    assert found[0] == {"2021": 1, "2007": 3, "(none)": 4}
    assert found[1] == {"cs.AI": 1, "(none)": 7}
    assert found[2] == {"cs": 1, "(none)": 7}
    assert found[3] == {"a": 1, " a": 1, "(none)": 6}


def test_the_surest_disagreements(labels: Path) -> None:
    (ai,) = report(labels, errors=5).labels
    wrong = labels_of().filter(pl.col("ai") != pl.col("ai_truth"))
    assert ai.disagreements is not None
    for labelled, found in ((True, ai.disagreements.labelled), (False, ai.disagreements.missed)):
        expected = wrong.filter(pl.col("ai") == labelled).sort("ai_score", descending=labelled).head(5)
        assert [paper.id for paper in found] == expected["id"].to_list()
        assert [paper.score for paper in found] == expected["ai_score"].to_list()
        assert [paper.title for paper in found] == expected["title"].to_list()
        assert found[0].link == f"https://arxiv.org/abs/{expected['id'][0]}"


def test_papers_to_look_at_in_any_table(tmp_path: Path, cli: Callable[..., Result]) -> None:
    """Ids that are numbers, or none, and scores that are none."""
    frame = pl.DataFrame({"id": [5, 6, None], "score": [0.9, 0.1, 0.8], "truth": [False, True, False]})
    frame.write_parquet("one.parquet")
    for form in ("table", "json", "html"):
        shown = cli("report", "one.parquet", "--errors", 5, "--format", form)
        assert shown.exit_code == 0, shown.output
    found = report("one.parquet", errors=5).labels[0].disagreements
    assert found is not None
    assert [one.id for one in (*found.labelled, *found.missed)] == ["5", "", "6"]
    for name, scores in (("a", [0.9, 0.1, None]), ("b", [0.1, float("nan"), 0.7])):
        frame.select("id", ai=pl.Series([name == "a", True, False]), ai_score=pl.Series(scores)).write_parquet(name)
    shown = cli("report", "b", "--compare", "a", "--errors", 5, "--format", "json")
    assert shown.exit_code == 0, shown.output


@pytest.mark.parametrize(
    ("id_", "there"),
    [
        ("0704.0001", True),
        ("math.GT/0309136v2", True),
        ("hep-th/9901001", True),
        ("W2741809807", False),
        ("804.1", False),
    ],
)
def test_links_go_to_arxiv_alone(tmp_path: Path, id_: str, there: bool) -> None:
    frame = pl.DataFrame({"id": [id_], "ai": [True], "ai_score": [0.9], "ai_truth": [False]})
    frame.write_parquet(tmp_path / "one.parquet")
    disagreements = report(tmp_path / "one.parquet", errors=1).labels[0].disagreements
    assert disagreements is not None
    assert disagreements.labelled[0].link == (f"https://arxiv.org/abs/{id_}" if there else None)
    assert disagreements.missed == ()


def test_a_damaged_id_leads_to_its_paper(tmp_path: Path, cli: Callable[..., Result]) -> None:
    """Its date tells which that is; without one there is no link, and none to another paper."""
    frame = pl.DataFrame({"id": ["708.4337", "1809.0457"], "ai": [True, False], "ai_score": [0.9, 0.1]})
    frame = frame.with_columns(ai_truth=~pl.col("ai"), created=pl.Series([date(2007, 8, 30), date(2018, 9, 2)]))
    pages = ["https://arxiv.org/abs/0708.4337", "https://arxiv.org/abs/1809.04570"]
    for dated in (True, False):
        old = frame if dated else frame.drop("created")
        old.write_parquet(tmp_path / "old.parquet")
        old.with_columns(ai=~pl.col("ai")).write_parquet(tmp_path / "new.parquet")
        found = report(tmp_path / "old.parquet", errors=1).labels[0].disagreements
        assert found is not None
        assert [found.labelled[0].link, found.missed[0].link] == (pages if dated else [None, None])
        (ai,) = compare(tmp_path / "old.parquet", tmp_path / "new.parquet", changed=2).labels
        assert {one.link for one in ai.papers} == (set(pages) if dated else {None})
    assert "1809.0457 " in cli("report", tmp_path / "old.parquet", "--errors", "1").stdout


def test_no_letter_of_a_title_is_lost(cli: Callable[..., Result], labels: Path, tmp_path: Path) -> None:
    """However narrow the terminal and however many the categories."""
    title = "Supercalifragilistic electroencephalographic counterrevolutionaries"
    wide = labels_of().with_columns(title=pl.lit(title), categories=pl.lit("cond-mat.dis-nn physics.soc-ph math-ph"))
    wide.write_parquet(tmp_path / "wide.parquet")
    for columns in ("60", "80", "100"):
        lines = cli("report", tmp_path / "wide.parquet", "--errors", "1", env={"COLUMNS": columns}).stdout.splitlines()
        start = next(at for at, line in enumerate(lines) if line.startswith("Labelled ai for sure"))
        block = lines[start : next(at for at, line in enumerate(lines) if line.startswith("Not labelled"))]
        column = next(line for line in block if "title" in line).index("title")
        told = "".join(line[column:].strip() for line in block[2:] if "─" not in line)
        assert told.replace("title", "") == title.replace(" ", "")


def test_where_the_errors_are(labels: Path, cli: Callable[..., Result]) -> None:
    where = report(labels).labels[0].where
    assert where is not None
    frame = labels_of().drop_nulls("ai_truth").with_columns(primary=pl.col("categories").str.split(" ").list.first())
    for slices, wrong in (
        (where.false_positives, pl.col("ai") & ~pl.col("ai_truth")),
        (where.false_negatives, ~pl.col("ai") & pl.col("ai_truth")),
    ):
        counted = frame.filter(wrong).group_by("primary").len().sort(["len", "primary"], descending=[True, False])
        counts = [
            one.confusion.false_positives if slices is where.false_positives else one.confusion.false_negatives
            for one in slices
        ]
        assert list(zip([one.value for one in slices], counts, strict=True)) == counted.head(5).rows()
    assert "Where the errors are" in cli("report", labels).stdout
    labels_of().with_columns(categories=pl.lit(None, pl.String)).write_parquet(labels)
    assert "Where the errors are" not in cli("report", labels).stdout
    labels_of().drop("categories").write_parquet(labels)
    assert report(labels).labels[0].where is None


def test_a_models_gate_alone_stands_beside_it(model: Path, cli: Callable[..., Result]) -> None:
    (ai,) = report(model).labels
    alone = json.loads((model / "arxivclf.json").read_text())["metrics"]["alone"]["linear"]["test"]["ai"]
    found = {one.name: one.gate_alone for one in ai.figures}
    assert found["F1"] == alone["f1"]
    assert found["average precision"] == alone["average_precision"]
    assert "linear alone" in cli("report", model).stdout
    assert "linear alone" not in cli("report", model / "test.labels.parquet").stdout
    # They are figures of these papers, by this truth, at a threshold of its own.
    for more in (("--truth", model / "test.labels.parquet"), ("--unseen-by", "bundled"), ("--threshold", "0.5")):
        shown = cli("report", model, *more)
        assert shown.exit_code == 0, shown.output
        assert "linear alone" not in shown.stdout


def test_the_screen(cli: Callable[..., Result], labels: Path) -> None:
    shown = cli("report", labels, "--by", "primary", "--errors", "2")
    assert shown.exit_code == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    slices = lines[next(at for at, line in enumerate(lines) if line.split()[:2] == ["primary", "papers"]) :]
    assert sum(line.split()[:1] == ["cs.LG"] for line in slices) == 1
    assert "arxiv.org/abs/18" in shown.stdout
    assert "Paper " in shown.stdout


def test_what_cannot_be_parted(cli: Callable[..., Result], labels: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no column 'colour'; there are year, primary, archive, id, created"):
        report(labels, by=["colour"])
    labels_of().drop("created").write_parquet(tmp_path / "x.parquet")
    assert "no column 'created'; there are" in error_line(cli("report", tmp_path / "x.parquet", "--by", "year"), 2)
    labels_of().drop("id").write_parquet(tmp_path / "y.parquet")
    with pytest.raises(DataError, match="no column 'id'"):
        report(tmp_path / "y.parquet", errors=3)
    assert cli("report", labels, "--errors", "-1").exit_code == 2


def test_thresholds_tell_what_they_cost(labels: Path) -> None:
    (ai,) = report(labels, for_precision=[0.85, 0.9], for_recall=[0.9]).labels
    known = labels_of().drop_nulls("ai_truth")
    truth, scores = known["ai_truth"].to_numpy(), known["ai_score"].to_numpy()
    assert ai.thresholds is not None
    cuts = ai.thresholds.cuts
    assert [cut.threshold for cut in cuts] == sorted(cut.threshold for cut in cuts)
    for cut in cuts:
        assert cut.confusion == Confusion.count(truth, scores >= cut.threshold)
        assert cut.labelled == (scores >= cut.threshold).mean()
    by_reason = {cut.why: cut for cut in cuts if cut.why}
    assert by_reason["in use"].confusion == ai.confusion
    best = max(f1_score(truth, scores >= score) for score in np.unique(scores))
    assert by_reason["best F1"].confusion.f1 == pytest.approx(best)
    # What is proven is a little more than what is wanted, and observed even more.
    assert [target.name for target in ai.thresholds.targets] == ["precision 0.85", "precision 0.9", "recall 0.9"]
    for target in ai.thresholds.targets:
        cut = by_reason[target.name]
        assert cut.threshold == pytest.approx(target.threshold)
        assert target.observed == getattr(cut.confusion, target.figure)
        assert target.target <= target.lower_bound < target.observed < target.target + 0.06


def test_rounded_scores_are_labelled_from_their_threshold_on(tmp_path: Path) -> None:
    """A score is of single precision, in which .9 is below .9; and no threshold is told twice."""
    scores = [tenth / 10 for tenth in range(11)]
    frame = pl.DataFrame({"id": range(11), "score": scores, "truth": [score >= 0.5 for score in scores]})
    frame.write_csv(tmp_path / "x.csv")
    frame.cast({"score": pl.Float32}).write_parquet(tmp_path / "x.parquet")
    for name in ("x.csv", "x.parquet"):
        for wish in (0.3, 0.7, 0.9):
            (one,) = report(tmp_path / name, threshold=wish).labels
            assert one.labelled == sum(score >= wish for score in scores)
            assert one.thresholds is not None
            cuts = {cut.threshold: cut for cut in one.thresholds.cuts}
            assert list(cuts) == [tenth / 10 for tenth in range(1, 10)]
            assert len(cuts) == len(one.thresholds.cuts)
            assert "in use" in cuts[wish].why
            for threshold, cut in cuts.items():
                assert cut.labelled == sum(score >= threshold for score in scores) / 11


def test_the_threshold_in_use_is_the_one_that_labels_were_given_by(cli: Callable[..., Result], model: Path) -> None:
    """As their file, the small one beside it, or the model tells; of labels that were changed since, the lowest."""
    wanted = json.loads((model / "arxivclf.json").read_text())["thresholds"]["ai"]

    def used(path: Path, **how: Any) -> float:
        (one,) = report(path, **how).labels
        assert one.thresholds is not None
        return next(cut.threshold for cut in one.thresholds.cuts if "in use" in cut.why)

    assert used(model) == pytest.approx(wanted)
    assert used(model, threshold=0.42) == 0.42
    rows = [paper(f"2101.{n:05d}", title=f"{n} robots") for n in range(1, 40)]
    dump = write_jsonl(Path("dump.jsonl"), rows)
    for name in ("x.parquet", "x.csv"):
        assert cli("label", dump, "--model", model, "-o", name).exit_code == 0
        assert used(Path(name)) == pytest.approx(wanted)
    other = pl.read_parquet("x.parquet").with_columns(ai_score=pl.lit(0.8, pl.Float32), ai=pl.lit(True))
    other.write_parquet("y.parquet")
    assert used(Path("y.parquet")) == pytest.approx(0.8)


def test_a_threshold_is_never_shown_as_0_or_1_that_is_not(tmp_path: Path, cli: Callable[..., Result]) -> None:
    scores = pl.Series([1.0] * 40 + [0.99999994] * 30 + [4.63e-06] * 30 + [0.0], dtype=pl.Float32)
    frame = pl.DataFrame({"ai": scores > 0, "ai_score": scores, "ai_truth": scores > 0})
    frame.write_parquet(tmp_path / "x.parquet")
    wishes = [part for wish in ("0.9", "0.6", "0.3") for part in ("--for-recall", wish)]
    shown = cli("report", tmp_path / "x.parquet", *wishes, env={"COLUMNS": "120"}).stdout
    column = dict(map(reversed, re.findall(r"^ *(\S+) .* recall (\S+) *$", shown, flags=re.M)))
    assert column == {"0.9": "0.000004", "0.6": "0.9999", "0.3": "1.0000"}


def test_the_true_and_the_labelled_share_stand_side_by_side(tmp_path: Path, cli: Callable[..., Result]) -> None:
    """In each slice, also in one that is not judged, and in every form."""
    rows = [("2019", n < 30, n < 36) for n in range(100)] + [("2020", n < 1, n < 2) for n in range(250)]
    frame = pl.DataFrame(rows, schema=["year", "ai_truth", "ai"], orient="row").with_columns(ai_score=0.5)
    frame.write_parquet(tmp_path / "x.parquet")
    shown = cli("report", tmp_path / "x.parquet", "--by", "year").stdout
    assert re.search(r"papers +true +labelled", shown)
    assert re.search(r"^ *2019 +100 +30\.0% +36\.0%", shown, re.M)
    assert re.search(r"^ *2020 +250 +0\.40% +0\.80%", shown, re.M)
    (ai,) = json.loads(cli("report", tmp_path / "x.parquet", "--by", "year", "--format", "json").stdout)["labels"]
    assert [(one["prevalence"], one["labelled_share"]) for one in ai["slices"]["year"]] == [(0.3, 0.36), (0.004, 0.008)]
    rows_of_csv = cli("report", tmp_path / "x.parquet", "--by", "year", "--format", "csv").stdout
    assert "ai,year,2019,labelled_share,0.36,," in rows_of_csv
    assert "ai,year,2019,prevalence,0.3,," in rows_of_csv


def test_a_wish_that_no_threshold_fulfils(tmp_path: Path, cli: Callable[..., Result]) -> None:
    frame = pl.DataFrame({"ai": [True, False], "ai_score": [0.9, 0.8], "ai_truth": [False, True]})
    frame.write_parquet(tmp_path / "x.parquet")
    shown = cli("report", tmp_path / "x.parquet", "--for-precision", "0.8")
    assert "No threshold has a precision of at least 0.8" in shown.stdout
    assert "14 labelled papers" in " ".join(shown.stdout.split())
    done = cli("report", tmp_path / "x.parquet", "--for-precision", "0.8", "--format", "csv").stdout
    assert "ai,target,precision 0.8,needed,14,," in done
    assert "--for-precision" in error_line(cli("report", tmp_path / "x.parquet", "--for-precision", "0"), 2)
    # Labels that no threshold makes have none in use.
    frame.with_columns(ai=pl.Series([False, True])).write_parquet(tmp_path / "y.parquet")
    (ai,) = report(tmp_path / "y.parquet").labels
    assert ai.thresholds is not None
    assert not any("in use" in cut.why for cut in ai.thresholds.cuts)
