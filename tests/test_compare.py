"""Two files of labels side by side: what changed, which is better, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import Result
from conftest import error_line
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score

from arxivclf.errors import DataError, UsageError
from arxivclf.reporting.compare import FIGURES, compare
from arxivclf.reporting.drift import drift
from arxivclf.reporting.report import report


def pair(papers: int = 3_000) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Labels of two models, the second the better one; it has lost 100 papers and has 150 new, in another order."""
    random = np.random.default_rng(11)
    truth = random.random(papers) < 0.2
    ids = [f"{1801 + n % 12:04d}.{n + 1:05d}" for n in range(papers)]

    def labels(noise: float) -> pl.DataFrame:
        scores = (1 / (1 + np.exp(-random.normal(truth * 4 - 2, noise)))).astype(np.float32)
        return pl.DataFrame({"id": ids, "ai": scores >= 0.5, "ai_score": scores, "ai_truth": truth})

    first, second = labels(2.0), labels(1.2)
    created = pl.Series([f"{2010 + n % 5}-01-01" for n in range(papers)]).str.to_date()
    second = second.with_columns(created=created).tail(-100).sample(fraction=1.0, shuffle=True, seed=1)
    return first.head(-150), second


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "old.parquet", tmp_path / "new.parquet"
    for path, frame in zip(paths, pair(), strict=True):
        frame.write_parquet(path)
    return paths


def test_one_paper_in_two_spellings_is_one_paper(tmp_path: Path) -> None:
    first, second = tmp_path / "first.csv", tmp_path / "second.jsonl"
    first.write_text("id,created,ai,ai_score\n2001.1,2020-01-02,true,0.9\nhep-th/0001001,2000-01-03,false,0.1\n")
    second.write_text(
        '{"id": "arXiv:2001.10000v2", "ai": false, "ai_score": 0.2}\n{"id": "W1", "ai": true, "ai_score": 0.8}\n'
    )
    found = compare(first, second, changed=5)
    assert (found.papers, found.first_alone, found.second_alone) == (1, 1, 1)
    (changed,) = found.labels[0].papers
    assert (changed.id, changed.gained) == ("arXiv:2001.10000v2", False)


def test_every_figure(files: tuple[Path, Path]) -> None:
    found = compare(*files, by=["year"], changed=4)
    first, second = pair()
    both = second.join(first, on="id", suffix="_old")
    assert (found.papers, found.first_alone, found.second_alone) == (2_750, 100, 150)
    (ai,) = found.labels
    truth, old, new = (both[column].to_numpy() for column in ("ai_truth", "ai_old", "ai"))
    assert (ai.whole.gained, ai.whole.lost) == ((new & ~old).sum(), (old & ~new).sum())
    assert ai.agreement.value == (old == new).mean()
    assert ai.kappa == pytest.approx(cohen_kappa_score(old, new))

    judged = ai.judgement
    assert judged is not None
    gains = dict(zip(FIGURES, judged.differences, strict=True))
    assert gains["F1"].value == pytest.approx(f1_score(truth, new) - f1_score(truth, old))
    assert gains["accuracy"].value == pytest.approx(accuracy_score(truth, new) - accuracy_score(truth, old))
    assert 0 < gains["F1"].low < gains["F1"].value < gains["F1"].high
    alone = int(((old == truth) & (new != truth)).sum()), int(((new == truth) & (old != truth)).sum())
    assert (judged.first_alone, judged.second_alone) == alone
    assert judged.p == pytest.approx(binomtest(alone[0], sum(alone), 0.5).pvalue)

    ((by, changes),) = ai.slices
    assert by == "year"
    assert sum(one.papers for one in changes) == found.papers
    assert sum(one.gained for one in changes) == ai.whole.gained
    shares = [one.changed.value for one in changes]
    assert shares == sorted(shares, reverse=True)
    moved = [abs(one.first_score - one.second_score) for one in ai.papers]
    assert len(moved) == 4
    assert moved == sorted(moved, reverse=True)
    largest = (
        both.filter(pl.col("ai") != pl.col("ai_old"))["ai_score"]
        - both.filter(pl.col("ai") != pl.col("ai_old"))["ai_score_old"]
    ).abs()
    assert moved[0] == pytest.approx(largest.max())


def test_a_paired_interval_is_narrower_than_two_apart(tmp_path: Path) -> None:
    """What two files agree on, here 95 papers of 100, makes no difference between them."""
    first, _ = pair()
    turned = pl.Series(np.random.default_rng(3).random(len(first)) < 0.05)
    second = first.with_columns(ai=pl.col("ai") ^ turned)
    for name, frame in (("old", first), ("new", second)):
        frame.write_parquet(tmp_path / f"{name}.parquet")
    (ai,) = compare(tmp_path / "old.parquet", tmp_path / "new.parquet").labels
    assert ai.judgement is not None
    apart = [report(tmp_path / f"{name}.parquet").labels[0].figures for name in ("old", "new")]
    for name, difference in zip(FIGURES, ai.judgement.differences, strict=True):
        widths = [one.interval.high - one.interval.low for figures in apart for one in figures if one.name == name]
        assert len(widths) == 2
        assert 0 < difference.high - difference.low < 0.8 * np.hypot(*widths)


def test_one_file_differs_from_itself_by_nothing(files: tuple[Path, Path]) -> None:
    old, _ = files
    (ai,) = compare(old, old).labels
    assert ai.judgement is not None
    assert ai.judgement.p == 1.0
    assert all((one.low, one.value, one.high) == (0.0, 0.0, 0.0) for one in ai.judgement.differences)
    assert (ai.agreement.value, ai.kappa) == (1.0, 1.0)


def of(path: Path, **columns: Any) -> Path:
    """Labels of ai, with one id for each; scores are those of the labels where none are given."""
    frame = pl.DataFrame({"id": [f"2001.{n:05d}" for n in range(1, len(columns["ai"]) + 1)], **columns})
    if "ai_score" not in columns:
        frame = frame.with_columns(ai_score=pl.col("ai").cast(pl.Float32))
    frame.write_parquet(path)
    return path


def test_the_truth_is_the_seconds_or_else_the_firsts(tmp_path: Path) -> None:
    first = of(tmp_path / "a", ai=[True] * 4, ai_truth=[True, True, True, None])
    second = of(tmp_path / "b", ai=[False] * 4, ai_truth=pl.Series([False, False, None, None]))
    judged = compare(first, second).labels[0].judgement
    assert judged is not None
    assert (judged.first.true_positives, judged.first.false_positives) == (1, 2)
    assert (judged.first_alone, judged.second_alone) == (1, 2)


def test_slices_go_by_the_share_that_changed(tmp_path: Path) -> None:
    """Two of three are more than ten of a hundred."""
    first = of(tmp_path / "a", ai=[True] * 103)
    fields = ["many"] * 100 + ["few"] * 3
    second = of(tmp_path / "b", ai=[False] * 10 + [True] * 91 + [False] * 2, field=fields)
    ((_, changes),) = compare(first, second, by=["field"]).labels[0].slices
    assert [(one.value, one.lost, one.gained) for one in changes] == [("few", 2, 0), ("many", 10, 0)]


def test_draws_without_a_figure_count_for_nothing(tmp_path: Path) -> None:
    """One paper of thirty is labelled at first: of many draws it is not one, and they have no precision."""
    truth = [True] * 10 + [False] * 20
    first = of(tmp_path / "a", ai=[True] + [False] * 29, ai_truth=truth)
    second = of(tmp_path / "b", ai=[True] * 8 + [False] * 20 + [True] * 2, ai_truth=truth)
    judged = compare(first, second).labels[0].judgement
    assert judged is not None
    precision = judged.differences[FIGURES.index("precision")]
    assert precision.value == pytest.approx(-0.2)
    assert -1 <= precision.low < precision.value < precision.high <= 0


def test_papers_without_a_score_have_no_change_of_it(tmp_path: Path) -> None:
    first = of(tmp_path / "a", ai=[True] * 4, ai_score=[0.9, 0.8, 0.7, 0.6])
    second = of(tmp_path / "b", ai=[False] * 4, ai_score=[float("nan"), None, 0.1, 0.4])
    (ai,) = compare(first, second, changed=4).labels
    assert ai.whole.lost == 4
    assert [one.id for one in ai.papers] == ["2001.00003", "2001.00004"]


def test_without_truth_there_is_agreement(tmp_path: Path, cli: Callable[..., Result]) -> None:
    for name, frame in zip(("old", "new"), pair(), strict=True):
        frame.drop("ai_truth").write_parquet(tmp_path / f"{name}.parquet")
    (ai,) = compare(tmp_path / "old.parquet", tmp_path / "new.parquet").labels
    assert ai.judgement is None
    shown = cli("report", tmp_path / "new.parquet", "--compare", tmp_path / "old.parquet")
    assert shown.exit_code == 0
    assert "no truth in either file" in shown.stdout
    assert "Cohen's kappa 0." in shown.stdout


def test_the_screen(files: tuple[Path, Path], cli: Callable[..., Result]) -> None:
    old, new = files
    shown = cli("report", new, "--compare", old, "--by", "year", "--errors", "2")
    assert shown.exit_code == 0, shown.stderr
    assert max(map(len, shown.stdout.splitlines()[2:])) <= 80
    words = " ".join(shown.stdout.split())
    assert "2,750 papers in both, 100 before alone, 150 now alone" in words
    assert "they are right more often now (McNemar, exact, p below 1e-15)" in words
    assert words.count("arxiv.org/abs/18") == 2


def test_what_cannot_be_compared(files: tuple[Path, Path], tmp_path: Path, cli: Callable[..., Result]) -> None:
    old, new = files
    frame = pl.read_parquet(old)
    frame.rename({"ai": "cv", "ai_score": "cv_score", "ai_truth": "cv_truth"}).write_parquet(tmp_path / "cv.parquet")
    with pytest.raises(UsageError, match=r"no label in both: .*old.parquet has ai; .*cv.parquet has cv"):
        compare(old, tmp_path / "cv.parquet")
    with pytest.raises(UsageError, match="no label 'nlp' in both"):
        compare(old, new, "nlp")
    frame.with_columns(id=pl.col("id") + "x").write_parquet(tmp_path / "other.parquet")
    with pytest.raises(DataError, match="share no paper: 2,850 ids there, 2,900 here"):
        compare(tmp_path / "other.parquet", new)
    pl.concat([frame, frame.head(3)]).write_parquet(tmp_path / "twice.parquet")
    with pytest.raises(DataError, match="3 rows repeat an id"):
        compare(tmp_path / "twice.parquet", new)
    frame.drop("id").write_parquet(tmp_path / "bare.parquet")
    assert "'id'" in error_line(cli("report", new, "--compare", tmp_path / "bare.parquet"), 1)
    assert "do not go together" in error_line(cli("report", new, "--compare", old, "--threshold", "0.5"), 2)


def test_files_that_tell_other_truths_say_so(tmp_path: Path, cli: Callable[..., Result]) -> None:
    first, second = pair()
    first.with_columns(ai_truth=~pl.col("ai_truth")).write_parquet("a.parquet")
    second.write_parquet("b.parquet")
    told = compare("a.parquet", "b.parquet").labels[0]
    known = int(second.join(first, on="id").select(pl.col("ai_truth").is_not_null().sum()).item())
    assert told.truths_differ == known > 0
    shown = " ".join(cli("report", "b.parquet", "--compare", "a.parquet").output.split())
    assert f"tell the truth of {known:,} papers differently; that of b.parquet counts" in shown
    second.write_parquet("a.parquet")
    assert "differently" not in cli("report", "b.parquet", "--compare", "a.parquet").output


def test_damaged_ids_without_dates_are_the_other_files_papers(tmp_path: Path) -> None:
    _, second = pair()
    lost = second.with_columns(id=pl.col("id").str.strip_chars_end("0")).drop("created", strict=False)
    assert (lost["id"] != second["id"]).any()
    second.write_parquet(tmp_path / "a.parquet")
    lost.write_parquet(tmp_path / "b.parquet")
    for one, other in (("a", "b"), ("b", "a")):
        found = compare(tmp_path / f"{one}.parquet", tmp_path / f"{other}.parquet")
        assert (found.papers, found.first_alone, found.second_alone) == (len(second), 0, 0)
        with pytest.raises(DataError, match="all of its"):
            drift(tmp_path / f"{one}.parquet", tmp_path / f"{other}.parquet")
