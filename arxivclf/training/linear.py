"""Training the linear model: weights of hashed features, a dense part if there are papers enough, and their stacking.

The weights are found by averaged stochastic gradient descent on the log loss.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl

from arxivclf.corpus.taxonomy import canonical_categories
from arxivclf.model.calibration import sigmoid
from arxivclf.model.linear import DAMPED, Linear
from arxivclf.model.words import PLACES, Counted, count
from arxivclf.progress import Watcher

if TYPE_CHECKING:
    from scipy.sparse import csr_array

# Measured on 198,755 papers of arXiv, the validation set of CSET's classifier: F1 .844 with words and pairs, rarity to
# the power 1, each counted once; .848 with the title's once more and the power 1.5; .855 with 1 + ln(count). A fifth
# word in between (skip-grams) made it worse. This much regularisation was best for one paper in 200,000.
_POWER = 1.5
_REGULARISATION = 0.3
# Features that tell the classes apart learn faster: each is scaled by the logarithm of how much more often positive
# papers have it, or less often, to this power, as in NB-SVM (Wang and Manning 2012). On 466,000 papers power 0.5 has
# average precision 0.779 for `nlp` on papers of 2026, 0.75 has 0.776, and 1 has 0.771; for `ai` the three are equal.
_TELLING_POWER = 0.5
_TELLING_PRIOR = 0.5
_FEWEST_PAPERS = 5
_SAMPLES = 1_600_000
# Only the most important features of a large training set are kept, or a model would have ten megabytes and more.
_MOST_FEATURES = 285_000
# From this many texts on, and positive validation papers of each label, a dense part is trained and pays.
_FEWEST_FOR_DENSE = 50_000
_FEWEST_TO_STACK = 100
# Papers of a category from which on the dense part learns it as an auxiliary target.
_FEWEST_OF_CATEGORY = 300

Truths = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float32]
Years = npt.NDArray[np.int32] | None


@dataclass(frozen=True)
class Held:
    """Texts that were not trained on, with their truth, float32 (texts, labels), nan where unknown, and years, int32
    (texts,), 0 where unknown."""

    texts: pl.Series
    truth: Truths
    years: Years = None


def fit(
    counted: Counted,
    truth: Truths,
    watcher: Watcher,
    *,
    weights: Floats | None = None,
    categories: pl.Series | None = None,
    years: Years = None,
    validation: Held | None = None,
) -> Linear:
    """The linear model from the features of texts and their truth, float32 (texts, labels) of 0 and 1, both in each.

    Of a label whose truth is nan a text teaches nothing. `weights` (texts,) say how much each text counts. A large
    training set gets a dense part, too, which also learns the `categories` of the texts (strings as in the dump), knows
    their `years` (int32, 0 where unknown), and is stacked with the weights on `validation`.
    """
    weights = np.ones(len(counted), np.float32) if weights is None else (weights / weights.mean()).astype(np.float32)
    if validation is None or not _enough(truth, validation.truth):
        with watcher.stage("Linear model"):
            return _fit_sparse(counted, truth, weights)
    held = features(validation.texts, watcher)
    with watcher.stage("Linear model"), ThreadPoolExecutor(1) as pool:
        from arxivclf.training.dense import Targets, fit_dense

        # The network takes one core, the weights of the features the others.
        when = np.zeros(len(counted), np.int32) if years is None else years
        targets = Targets(np.asarray(truth, np.float32), _auxiliary(categories, len(counted)), weights, when)
        dense = pool.submit(fit_dense, counted, targets)
        sparse = _fit_sparse(counted, truth, weights)
        return _stacked(replace(sparse, dense=dense.result()), held, validation)


def uncertainty(counted: Counted, truth: Truths, weights: Floats, watcher: Watcher) -> Floats:
    """How uncertain a linear model is of texts that it was not trained on, float32 (texts,), from 0 to 1.

    It is 4 p (1 - p) of the label of which it is least certain. Two models, each trained on one half, judge the other
    half. It depends on the text only, never on its own ground truth, so that a sample that prefers uncertain texts has
    the same share of positives among texts that look alike.
    """
    half = np.random.default_rng(0).permutation(len(counted)) % 2
    uncertain = np.empty(len(counted), np.float32)
    with watcher.stage("Uncertainty of the training papers"):
        for part in (0, 1):
            rows, others = np.flatnonzero(half == part), np.flatnonzero(half != part)
            model = _fit_sparse(counted.take(rows), truth[rows], weights[rows])
            share = sigmoid(model.logits_of_features(counted.take(others)).astype(np.float64))
            uncertain[others] = (4 * share * (1 - share)).max(axis=1)
    return uncertain


def _enough(truth: Truths, held: Truths) -> bool:
    """Whether there are papers enough for a dense part, and to stack it."""
    return len(truth) >= _FEWEST_FOR_DENSE and bool((np.nansum(held > 0.5, axis=0) >= _FEWEST_TO_STACK).all())


def _auxiliary(categories: pl.Series | None, texts: int) -> csr_array:
    """The frequent categories of each text, sparse float32 (texts, categories)."""
    from scipy.sparse import csr_array

    if categories is None:
        return csr_array((texts, 0), dtype=np.float32)
    listed = canonical_categories(categories).alias("category").to_frame().with_row_index("text").explode("category")
    frequent = listed.drop_nulls().filter(pl.len().over("category") >= _FEWEST_OF_CATEGORY)
    names = frequent.get_column("category").unique().sort()
    columns = frequent.get_column("category").replace_strict(names, np.arange(len(names)), return_dtype=pl.Int64)
    rows = frequent.get_column("text").to_numpy()
    shape = (texts, len(names))
    return csr_array((np.ones(len(rows), np.float32), (rows, columns.to_numpy())), shape=shape)


def features(texts: pl.Series, watcher: Watcher) -> Counted:
    """The features of many texts, by all cores."""
    size = 8_192
    parts: list[Counted] = []

    def of(first: int) -> list[Counted]:
        return list(count(texts.slice(first, size)))

    with watcher.stage("Hashing words", len(texts)), ThreadPoolExecutor(os.cpu_count()) as pool:
        for found in pool.map(of, range(0, len(texts), size)):
            parts += found
            watcher.advance(sum(map(len, found)))
    return Counted.join(parts)


def _fit_sparse(counted: Counted, truth: Truths, weights: Floats) -> Linear:
    """Weights of all features, and of the most important ones once more where there are too many."""
    papers = len(counted)
    in_papers = np.bincount(counted.places, minlength=PLACES)
    used = in_papers >= min(_FEWEST_PAPERS, 1 + papers // 2_000)
    model = _fit_features(counted, truth, weights, used, in_papers)
    if used.sum() <= _MOST_FEATURES:
        return model
    # What a feature adds to the variance of the logits, were all of them independent.
    places = np.flatnonzero(used)
    effect = model.weights.astype(np.float32) * model.weight_units[:, None] * model.rarity
    spread = in_papers[places] * (effect**2 / (effect**2 * in_papers[places]).sum(axis=1, keepdims=True)).sum(axis=0)
    kept = np.zeros(PLACES, bool)
    kept[places[np.argsort(-spread, kind="stable")[:_MOST_FEATURES]]] = True
    return _fit_features(counted, truth, weights, kept, in_papers)


def _fit_features(
    counted: Counted,
    truth: Truths,
    weights: Floats,
    used: npt.NDArray[np.bool_],
    in_papers: npt.NDArray[np.int64],
) -> Linear:
    """Weights of the features `used`, bool (PLACES,); `in_papers` (PLACES,) is how many papers have each."""
    rarity = (np.log((1 + len(counted)) / (1 + in_papers[used])) + 1.0) ** _POWER
    unit = float(rarity.max(initial=1.0)) / 255
    rarity_codes = np.maximum(1, np.round(rarity / unit)).astype(np.uint8)
    matrix = _matrix(counted, used, rarity_codes * np.float32(unit))

    def fit_label(label: int) -> tuple[npt.NDArray[np.float64], float]:
        known = ~np.isnan(truth[:, label])
        rows = matrix.copy() if known.all() else matrix[known]
        return _fit_label(rows, truth[known, label] > 0.5, weights[known])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        fitted = list(pool.map(fit_label, range(truth.shape[1])))
    intercepts = np.array([intercept for _, intercept in fitted], np.float32)
    codes, units = _quantised(np.stack([label_weights for label_weights, _ in fitted]))
    return Linear(np.packbits(used), rarity_codes, unit, codes, units, intercepts)


def _quantised(weights: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.int8], Floats]:
    """Weights (labels, features) as int8 in units of each label, float32 (labels,)."""
    units = (np.maximum(np.abs(weights).max(axis=1, initial=0.0), 1e-9) / 127).astype(np.float32)
    return np.round(weights / units[:, None]).astype(np.int8), units


def _matrix(counted: Counted, used: npt.NDArray[np.bool_], rarity: Floats) -> csr_array:
    """The features of texts, each text of length one, sparse float32 (texts, features used)."""
    from scipy.sparse import csr_array

    row = np.cumsum(used) - 1
    known = used[counted.places]
    bounds = np.append(0, np.cumsum(known))[counted.bounds]
    rows = row[counted.places[known]].astype(np.int32)
    values = DAMPED[counted.counts[known]] * rarity[rows]
    squares = np.append(0.0, np.cumsum(values.astype(np.float64) ** 2))[bounds]
    lengths = np.sqrt(np.maximum(np.diff(squares), 1e-12))
    values /= np.repeat(lengths, np.diff(bounds)).astype(np.float32)
    bounds = bounds.astype(np.int32 if bounds[-1] < 2**31 else np.int64)
    return csr_array((values, rows, bounds), shape=(len(counted), int(used.sum())))


def _fit_label(
    matrix: csr_array, positive: npt.NDArray[np.bool_], weights: Floats
) -> tuple[npt.NDArray[np.float64], float]:
    """The weights of all features and the intercept of one label; changes the values of the matrix."""
    from sklearn.linear_model import SGDClassifier

    telling = _telling(matrix, positive)
    matrix.data *= telling[matrix.indices]
    model = SGDClassifier(
        loss="log_loss",
        alpha=_REGULARISATION / len(positive),
        max_iter=min(100, max(3, round(_SAMPLES / len(positive)))),
        tol=None,
        average=True,
        random_state=0,
    ).fit(matrix, positive, sample_weight=None if (weights == 1).all() else weights)
    return model.coef_[0] * telling, float(model.intercept_[0])


def _telling(matrix: csr_array, positive: npt.NDArray[np.bool_]) -> Floats:
    """How much each feature tells of a label, float32 (features,), one in the mean of squares over all that are there.

    It is the absolute logarithm of the ratio of the shares of positive and negative papers that have it.
    """
    features = matrix.shape[1]
    of_positives = np.repeat(positive, np.diff(matrix.indptr))
    counts = [np.bincount(matrix.indices[which], minlength=features) for which in (of_positives, ~of_positives)]
    classes = [int(positive.sum()), int((~positive).sum())]
    prior = [_TELLING_PRIOR * count / len(positive) for count in classes]
    shares = [(had + more) / (papers + more) for had, papers, more in zip(counts, classes, prior, strict=True)]
    found = np.abs(np.log(shares[0] / shares[1])) ** _TELLING_POWER
    mean_square = (found**2 * (counts[0] + counts[1])).sum() / max(1, matrix.nnz)
    return np.asarray(found / np.sqrt(max(mean_square, 1e-12)), np.float32)


def _stacked(model: Linear, counted: Counted, held: Held) -> Linear:
    """The model with both parts weighted by a logistic regression for each label on texts that were not trained on.

    Each label's logit takes the logits of all labels, for a paper on language that is sure to be about robots is less
    likely to be listed under both. The weights go into those of the features and the output of the network, so that
    stacking costs nothing when papers are labelled.
    """
    from sklearn.linear_model import LogisticRegression

    dense = model.dense
    assert dense is not None  # noqa: S101 (only called with one)
    sparse, truth = replace(model, dense=None).logits_of_features(counted), held.truth
    inputs = np.concatenate([sparse, dense.logits(counted, held.years)], axis=1).astype(np.float64)
    labels = truth.shape[1]
    mixing, shifts = np.zeros((labels, 2 * labels)), np.zeros(labels)
    for label in range(labels):
        known = ~np.isnan(truth[:, label])
        line = LogisticRegression(max_iter=1_000).fit(inputs[known], truth[known, label] > 0.5)
        mixing[label], shifts[label] = line.coef_[0], float(np.ravel(line.intercept_)[0])
    first, second = mixing[:, :labels], mixing[:, labels:]
    codes, units = _quantised(first @ (model.weights * model.weight_units[:, None].astype(np.float64)))
    return replace(
        model,
        weights=codes,
        weight_units=units,
        shifts=(first @ model.shifts + shifts).astype(np.float32),
        dense=replace(dense, output=(dense.output @ second.T).astype(np.float32)),
    )
