"""Two dumps side by side: whether their papers have changed, and how sure that is."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from click.testing import Result
from conftest import error_line
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from arxivclf.errors import DataError, UsageError
from arxivclf.reporting.drift import LabelDrift, _kolmogorov_smirnov, _stability, drift
from arxivclf.reporting.intervals import difference_of_shares, difference_within, wilson
from arxivclf.reporting.unjudged import Share


def dumps(papers: int = 2_000, more: float = 0.0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Labels of two dumps, the later of which has half of the earlier's papers and as many new ones; of these a share
    that is `more` higher is about AI, and every tenth has a word of its own."""
    random = np.random.default_rng(3)

    def labels(first: int, share: float, word: str) -> pl.DataFrame:
        truth = random.random(papers) < share
        scores = (1 / (1 + np.exp(-random.normal(truth * 4 - 2, 1.2)))).astype(np.float32)
        common = ("graph", "learning", "quantum", "proof", "galaxy", "lattice", "neural")
        return pl.DataFrame(
            {
                "id": [f"1801.{first + n:05d}" for n in range(papers)],
                "created": pl.Series([f"{2010 + n % 4}-01-01" for n in range(papers)]).str.to_date(),
                "title": [
                    f"The {common[n % 7]} of {common[n % 3]} {word if n % 10 == 0 else ''}" for n in range(papers)
                ],
                "ai": scores >= 0.5,
                "ai_score": scores,
                "ai_truth": truth,
            }
        )

    before = labels(1, 0.2, "aether")
    return before, pl.concat([before.tail(papers // 2), labels(papers + 1, 0.2 + more, "transformer")])


@pytest.fixture(params=[0.0, 0.1])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path, float]:
    paths = tmp_path / "old.parquet", tmp_path / "new.parquet"
    for path, frame in zip(paths, dumps(more=request.param), strict=True):
        frame.write_parquet(path)
    return *paths, request.param


def by_years(papers: dict[int, int], share: dict[int, float], first: int) -> pl.DataFrame:
    """Papers of each year, of which that share is labelled."""
    rows = [(year, n < count * share[year]) for year, count in papers.items() for n in range(count)]
    ids = [f"2001.{first + n:05d}" for n in range(len(rows))]
    years, given = zip(*rows, strict=True)
    scores = [0.9 if one else 0.1 for one in given]
    return pl.DataFrame({"id": ids, "year": years, "ai": given, "ai_score": scores}).cast({"ai_score": pl.Float32})


def test_more_of_later_years_is_told_from_more_within_a_year(tmp_path: Path) -> None:
    """Where each year has the share that it had, only the mix of years is another."""
    share = {2010: 0.1, 2015: 0.2, 2019: 0.4}
    by_years({2010: 600, 2015: 300, 2019: 100}, share, 1).write_parquet(tmp_path / "old.parquet")
    by_years({2010: 100, 2015: 300, 2019: 600}, share, 5_001).write_parquet(tmp_path / "new.parquet")
    (ai,) = drift(tmp_path / "old.parquet", tmp_path / "new.parquet").labels
    assert ai.difference.value == pytest.approx(0.31 - 0.16)
    assert ai.within_years is not None
    assert ai.within_years.value == pytest.approx(0)
    assert ai.within_years.low < 0 < ai.within_years.high
    assert "; within years +0.0 points, " in ai.verdict
    assert ", of 1,000 papers of years in both)" in ai.verdict
    more = {2010: 0.2, 2015: 0.3, 2019: 0.5}
    by_years({2010: 100, 2015: 300, 2019: 600, 2020: 50}, more | {2020: 1.0}, 5_001).write_parquet(
        tmp_path / "m.parquet"
    )
    (ai,) = drift(tmp_path / "old.parquet", tmp_path / "m.parquet").labels
    assert ai.within_years is not None
    assert ai.within_years.value == pytest.approx(0.1)
    assert ai.within_years.low > 0
    assert (ai.now.papers, ai.papers_within_years) == (1_050, 1_000)


def simulated(
    papers: tuple[npt.ArrayLike, npt.ArrayLike], rates: tuple[npt.ArrayLike, npt.ArrayLike], draws: int = 300
) -> tuple[float, float]:
    """The share of pairs of dumps whose interval holds the known difference, and its mean width in that of the normal
    interval with the known variance."""
    random = np.random.default_rng(9)
    arrays = np.broadcast_arrays(*papers, *rates)
    counts, shares = np.stack(arrays[:2]), np.stack(arrays[2:])
    weights = counts[1] / counts[1].sum()
    known = float(weights @ (shares[1] - shares[0]))
    error = math.sqrt(float(((weights**2) * shares * (1 - shares) / counts).sum()))
    held, width = 0, 0.0
    for _ in range(draws):
        hits = random.binomial(counts, shares)
        pairs = [((a, b), (c, d)) for a, b, c, d in np.stack([counts[0], hits[0], counts[1], hits[1]], 1).tolist()]
        found = difference_within(pairs)
        held += found.low <= known <= found.high
        width += found.high - found.low
    return held / draws, width / draws / (2 * 1.96 * error)


FEW = np.array([1, 2, 3, 4, 5] * 4)


@pytest.mark.parametrize(
    ("papers", "rates"),
    [
        ((np.full(2, 200), 80), (0.15, 0.2)),
        ((np.full(10, 10), 500), (0.02, 0.05)),
        ((np.full(4, 200), 100), (0.01, 0.01)),
        ((np.full(20, 5), 50), (0.5, 0.5)),
        ((FEW, 50), (0.1, 0.15)),
        ((FEW, FEW[::-1]), (0.3, 0.5)),
        ((FEW, FEW), (0.1, 0.15)),
        ((np.ones(30, int), 1), (0.2, 0.3)),
        (([300, 300, 300, 1, 2, 3], 200), (0.1, 0.15)),
        (([1, 3, 5, 200, 800], [2, 4, 50, 300, 900]), ([0.05, 0.08, 0.1, 0.2, 0.3], [0.05, 0.08, 0.12, 0.25, 0.33])),
    ],
)
def test_the_interval_within_strata_covers_what_it_should(
    papers: tuple[npt.ArrayLike, npt.ArrayLike], rates: tuple[npt.ArrayLike, npt.ArrayLike]
) -> None:
    """Of pairs of dumps with a known difference in each stratum, some 95 % have it in theirs, and the intervals are
    hardly wider than need be, although strata have one to five papers."""
    coverage, width = simulated(papers, rates)
    assert 0.92 <= coverage <= 0.995
    assert 0.85 < width < 1.3


def test_what_strata_have_apart_is_no_doubt() -> None:
    """Of years that differ much from each other, but not between the dumps, the interval is as narrow as they are."""
    rates = np.array([0.02, 0.98] * 10)
    coverage, width = simulated((30, 400), (rates, rates))
    assert 0.92 < coverage < 0.99
    assert 0.95 < width < 1.1


def test_the_interval_within_strata_at_its_ends() -> None:
    """One stratum is about Newcombe's; strata without a hit leave some doubt; no bound is beyond what a difference can
    be; the same papers have the same interval; none is had of strata of one file alone."""
    pairs = [((80, 48), (70, 56))]
    found, plain = difference_within(pairs), difference_of_shares(wilson(48, 80), wilson(56, 70))
    assert vars(found) == pytest.approx(vars(plain), abs=0.015)
    assert found == difference_within(pairs)
    nothing = difference_within([((1, 0), (2, 0)), ((5, 0), (3, 0)), ((40, 0), (60, 0))])
    assert nothing.low < -0.01 < nothing.value == 0 < 0.01 < nothing.high
    for pairs in ([((3, 0), (2, 2)), ((1, 0), (5, 5))], [((3, 3), (2, 0)), ((7, 7), (11, 0))]):
        found = difference_within(pairs)
        assert -1 <= found.low < found.high <= 1
        assert abs(found.value) == 1
    assert np.isnan(difference_within([((10, 5), (0, 0))]).value)


def drifted(
    p: float = 0.5, stability: float = 0.0, years: tuple[tuple[Share, Share], ...] = (), hits: tuple[int, int] = (2, 5)
) -> LabelDrift:
    """Ten papers before, and ten now, of which so many have the label."""
    shares = [Share("all", 10, labelled) for labelled in hits]
    difference = difference_of_shares(shares[0].share, shares[1].share)
    return LabelDrift("ai", shares[0], shares[1], difference, years, 0.1, p, stability, None)


def test_no_difference_seen_is_not_said_to_be_none() -> None:
    assert drifted().verdict.startswith("no difference can be seen in how many papers have it (+30.0 points, ")
    assert drifted(hits=(0, 9)).verdict.startswith("more papers have it than before (+90.0 points")
    assert drifted(hits=(9, 0)).verdict.startswith("fewer papers have it than before (-90.0 points")


@pytest.mark.parametrize(
    ("p", "stability", "told"),
    [
        (0.05, 0.9, "nothing can be seen"),
        (0.0499, 0.0999, "by a small shift"),
        (0.01, 0.1, "by a moderate shift"),
        (0.01, 0.2499, "by a moderate shift"),
        (0.01, 0.25, "by a large shift"),
    ],
)
def test_the_size_of_a_shift_is_told_where_there_is_one(p: float, stability: float, told: str) -> None:
    verdict = drifted(p, stability).verdict
    assert told in verdict
    assert ("have drifted" in verdict) == (p < 0.05)


def test_within_years_takes_two_years() -> None:
    """Papers without a year are of none."""
    one, other, none = ((Share(year, 10, 2), Share(year, 10, 5)) for year in ("2010", "2011", "(none)"))
    assert drifted(years=(one,)).within_years is None
    assert drifted(years=(one, none)).within_years is None
    assert drifted(years=((one[0], Share("2010", 0, 0)), (Share("2011", 0, 0), other[1]))).within_years is None
    both = drifted(years=(one, other, none))
    assert both.within_years is not None
    assert both.within_years.value == pytest.approx(0.3)
    assert both.papers_within_years == 20
    assert drifted(years=(one, (Share("2011", 0, 0), other[1]))).papers_within_years == 10


def test_of_repeats_the_last_counts(tmp_path: Path) -> None:
    frame = dumps()[0].head(2)
    again = frame.with_columns(ai=pl.lit(True), ai_score=pl.lit(0.9, pl.Float32))
    pl.concat([frame.with_columns(ai=pl.lit(False)), again]).write_parquet(tmp_path / "old.parquet")
    frame.with_columns(id=pl.Series(["2001.00001", "2001.00002"])).write_parquet(tmp_path / "new.parquet")
    (ai,) = drift(tmp_path / "old.parquet", tmp_path / "new.parquet").labels
    assert (ai.before.papers, ai.before.labelled) == (2, 2)


def test_words_of_held_out_papers_are_not_known(tmp_path: Path) -> None:
    """Each paper has a word of its own beside one or two that others have."""

    def own(n: int) -> str:
        return "".join(chr(97 + n // 26**place % 26) for place in range(4))

    for name, first in (("old", 0), ("new", 1_000)):
        ids = [f"2001.{first + n:05d}" for n in range(200)]
        titles = [f"graph {'theory' if n % 3 else ''} {own(first + n)}" for n in range(200)]
        frame = pl.DataFrame({"id": ids, "title": titles, "ai": [True] * 200, "ai_score": [0.9] * 200})
        frame.write_parquet(tmp_path / f"{name}.parquet")
    words = drift(tmp_path / "old.parquet", tmp_path / "new.parquet").words
    assert words is not None
    assert (words.unseen_before, words.unseen_now) == pytest.approx((7 / 18, 7 / 18), abs=0.03)


def test_the_stability_index_by_hand() -> None:
    """Scores with few digits, so that several are where one tenth ends, and two tenths end at one."""
    random = np.random.default_rng(8)
    before, now = (np.round(one, 1).astype(np.float32) for one in (random.beta(2, 2, 1_000), random.beta(2, 3, 400)))
    edges = sorted({float(np.quantile(before, tenth / 10)) for tenth in range(1, 10)})
    index, bins = 0.0, len(edges) + 1
    assert bins < 10
    for place in range(bins):
        counts = [sum(bisect_right(edges, float(one)) == place for one in scores) for scores in (before, now)]
        p, q = (counts[0] + 0.5) / (1_000 + bins / 2), (counts[1] + 0.5) / (400 + bins / 2)
        index += (q - p) * np.log(q / p)
    assert index > 0.1
    assert _stability(before, now) == pytest.approx(index)


def test_new_papers_are_set_against_all_earlier_ones(files: tuple[Path, Path, float]) -> None:
    before, now, more = files
    found = drift(before, now)
    first, second = dumps(more=more)
    new = second.tail(2_000)
    assert (found.papers_before, found.papers_now, found.shared) == (2_000, 2_000, 1_000)
    (ai,) = found.labels
    shares = [frame.get_column("ai").mean() for frame in (first, new)]
    assert (ai.before.share.value, ai.now.share.value) == pytest.approx(shares)
    assert ai.difference.value == pytest.approx(ai.now.share.value - ai.before.share.value)
    assert [one.value for one, _ in ai.years] == ["2010", "2011", "2012", "2013"]
    assert sum(one.labelled for _, one in ai.years) == new.get_column("ai").sum()
    assert ai.f1 is not None
    values = [f1_score(frame.get_column("ai_truth"), frame.get_column("ai")) for frame in (first, new)]
    assert [one.value for one in ai.f1] == pytest.approx([*values, values[1] - values[0]])
    assert ai.f1[2] == difference_of_shares(ai.f1[0], ai.f1[1])
    if more:
        assert ai.p < 1e-4 < 0.05 < ai.difference.value
        assert ai.verdict.startswith("more papers have it")
        assert "have drifted" in ai.verdict
        assert "small shift" in ai.verdict
    else:
        assert ai.p > 0.05
        assert ai.verdict.startswith("no difference can be seen in how many papers have it")
        assert "nothing can be seen" in ai.verdict


def test_words_that_no_earlier_paper_had(files: tuple[Path, Path, float]) -> None:
    words = drift(*files[:2]).words
    assert words is not None
    assert words.new == (("transformer", 200),)
    assert words.unseen_before == 0.0
    assert words.unseen_now == pytest.approx(0.1 / 4, abs=0.005)
    assert words.p < 1e-9


def test_a_word_is_new_only_if_none_of_all_earlier_papers_has_it(
    files: tuple[Path, Path, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the earlier papers a sample is read, which a word of few papers is not in."""
    monkeypatch.setattr("arxivclf.reporting.drift._PAPERS_READ", 300)
    first, second = (pl.read_parquet(path) for path in files[:2])
    rare = pl.when(pl.int_range(pl.len()) == 7).then(pl.lit("rareness")).otherwise("title").alias("title")
    first.with_columns(rare).write_parquet(files[0])
    often = pl.when(pl.int_range(pl.len()) >= len(second) - 600).then(pl.lit("rareness")).otherwise("title")
    second.with_columns(often.alias("title")).write_parquet(files[1])
    words = drift(*files[:2]).words
    assert words is not None
    assert "rareness" not in dict(words.new)
    assert "transformer" in dict(words.new)


def test_between_samples_of_the_same_papers_there_is_no_drift() -> None:
    """Of 200 pairs about one in twenty shows what one in twenty may."""
    random = np.random.default_rng(0)
    draws = [random.beta(0.3, 2.0, size=(2, 400)).astype(np.float32) for _ in range(200)]
    seen = sum(_kolmogorov_smirnov(*pair)[1] < 0.05 for pair in draws)
    assert seen <= 18
    assert np.mean([_stability(*pair) for pair in draws]) < 0.1


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30), st.lists(st.floats(0, 1, width=32), min_size=1))
def test_the_distance_is_the_largest_between_the_shares_up_to_a_score(first: list[float], second: list[float]) -> None:
    one, other = np.array(first, np.float32), np.array(second, np.float32)
    largest = max(abs((one <= score).mean() - (other <= score).mean()) for score in (*first, *second))
    distance, p = _kolmogorov_smirnov(one, other)
    assert distance == pytest.approx(largest)
    assert 0 <= p <= 1


def test_the_difference_of_shares_is_newcombes() -> None:
    """The worked example of his paper: 56 of 70 against 48 of 80."""
    found = difference_of_shares(wilson(48, 80), wilson(56, 70))
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_an_id_is_one_paper_in_all_its_spellings(tmp_path: Path) -> None:
    frame = dumps()[0].head(3)
    frame.with_columns(id=pl.Series(["0704.0010", "0704.0020", "math/0309136"])).write_parquet(tmp_path / "old.parquet")
    now = frame.with_columns(
        id=pl.Series(["704.001", "0704.0020v2", "0704.0030"]), created=pl.Series(["2007-04-01"] * 3).str.to_date()
    )
    now.write_parquet(tmp_path / "new.parquet")
    found = drift(tmp_path / "old.parquet", tmp_path / "new.parquet")
    assert (found.papers_now, found.shared) == (1, 2)


def test_what_cannot_be_compared(tmp_path: Path, cli: Callable[..., Result]) -> None:
    frame = dumps()[0]
    frame.write_parquet(tmp_path / "old.parquet")
    frame.rename({name: name.replace("ai", "cv") for name in ("ai", "ai_score", "ai_truth")}).write_parquet(
        tmp_path / "cv.parquet"
    )
    with pytest.raises(DataError, match="all of its 2,000 papers are in"):
        drift(tmp_path / "old.parquet", tmp_path / "old.parquet")
    with pytest.raises(UsageError, match=r"no label in both: .*has ai.*has cv"):
        drift(tmp_path / "old.parquet", tmp_path / "cv.parquet")
    assert "do not go together" in error_line(cli("report", "old.parquet", "--drift", "x", "--compare", "y"), 2)
    assert "--by and --drift" in error_line(cli("report", "old.parquet", "--drift", "x", "--by", "year"), 2)


def test_without_texts_years_or_truth_the_rest_is_told(tmp_path: Path, cli: Callable[..., Result]) -> None:
    for name, frame in zip(("old", "new"), dumps(), strict=True):
        frame.select("id", "ai", "ai_score").write_parquet(tmp_path / f"{name}.parquet")
    found = drift(tmp_path / "old.parquet", tmp_path / "new.parquet")
    assert found.words is None
    assert (found.labels[0].years, found.labels[0].f1) == ((), None)
    shown = cli("report", "new.parquet", "--drift", "old.parquet")
    assert shown.exit_code == 0
    assert "--keep title --keep abstract" in shown.stdout


def test_every_form(files: tuple[Path, Path, float], cli: Callable[..., Result]) -> None:
    before, now, _ = files
    known = drift(before, now).labels[0]
    told = {
        form: cli("report", now, "--drift", before, "--format", form).stdout
        for form in ("table", "json", "markdown", "csv", "html")
    }
    found = json.loads(told["json"])
    assert found["kind"] == "drift"
    assert found["labels"][0]["verdict"] == known.verdict
    assert known.within_years is not None
    assert found["labels"][0]["within_years"]["papers"] == known.papers_within_years == 2_000
    assert "ai,,,papers_within_years,2000,," in told["csv"]
    assert f"ai,,,difference,{known.difference.value}," in told["csv"]
    assert f"**ai**  {known.verdict}".replace("|", "") in told["markdown"]
    assert "| word that is new | papers |" in told["markdown"]
    assert '<h2 id="section-1">ai</h2>' in told["html"]
    assert "transformer" in told["table"]
