"""The dense part of the linear model: a network over embeddings of words, trained with large training sets."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from arxivclf.errors import ModelError
from arxivclf.model.dense import Dense, year_inputs
from arxivclf.model.linear import Linear
from arxivclf.model.words import WORD_PLACES, Counted, count
from arxivclf.progress import Watcher
from arxivclf.training import linear

TOPICS = {
    "robots": ["robot", "arm", "gripper", "motion", "planning", "manipulation", "control"],
    "language": ["language", "translation", "corpus", "parsing", "grammar", "sentence", "speech"],
    "physics": ["galaxy", "quark", "plasma", "neutrino", "lattice", "boson", "spectrum"],
}


def texts(papers: int, seed: int = 0) -> tuple[pl.Series, np.ndarray, pl.Series]:
    random = np.random.default_rng(seed)
    topics = random.choice(list(TOPICS), papers)
    filler = ["we", "study", "the", "method", "and", "results", "of", "new", "data", "with", "good", "care"]
    abstracts = [
        f"{random.choice(TOPICS[topic])} study. " + " ".join(random.choice([*TOPICS[topic], *filler], 30))
        for topic in topics
    ]
    truth = np.stack([topics == "robots", topics == "language"], axis=1).astype(np.float32)
    categories = pl.Series(
        "categories", [{"robots": "cs.RO", "language": "cs.CL", "physics": "hep-ph"}[t] for t in topics]
    )
    return pl.Series(abstracts), truth, categories


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch):
    """A dense part for a few papers already."""
    monkeypatch.setattr(linear, "_FEWEST_FOR_DENSE", 100)
    monkeypatch.setattr(linear, "_FEWEST_OF_CATEGORY", 20)
    monkeypatch.setattr(linear, "_FEWEST_TO_STACK", 10)


def fitted(papers: int = 600) -> Linear:
    train, truth, categories = texts(papers)
    held, held_truth, _ = texts(300, seed=1)
    years = np.random.default_rng(2).integers(2010, 2020, papers).astype(np.int32)
    counted = linear.features(train, Watcher())
    validation = linear.Held(held, held_truth, np.full(300, 2015, np.int32))
    return linear.fit(counted, truth, Watcher(), categories=categories, years=years, validation=validation)


def test_it_learns_and_is_saved_and_loaded(small, tmp_path):
    model = fitted()
    test, truth, _ = texts(200, seed=3)

    logits = model.logits(test)
    model.save(tmp_path)
    loaded = Linear.load(tmp_path, 2)

    assert model.dense is not None
    assert ((logits > 0) == (truth > 0.5)).mean() > 0.98
    np.testing.assert_array_equal(loaded.logits(test), logits)


def test_the_same_papers_give_the_same_bytes(small, tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        fitted().save(tmp_path / name)

    first, second = ((tmp_path / name / "linear.safetensors").read_bytes() for name in ("first", "second"))
    assert first == second


def test_a_logit_depends_on_the_text_and_its_year_only(small):
    model = fitted()
    test, _, _ = texts(700, seed=4)
    years = np.random.default_rng(5).integers(2008, 2024, 700).astype(np.int32)
    order = np.random.default_rng(6).permutation(700)

    whole = model.logits(test, years)

    np.testing.assert_array_equal(model.logits(test[order.tolist()], years[order]), whole[order])
    np.testing.assert_array_equal(model.logits_of_many(test, years), whole)
    for row in (0, 255, 256, 699):
        np.testing.assert_array_equal(model.logits(test[[row]], years[[row]])[0], whole[row])


def test_a_damaged_dense_part_is_refused(small, tmp_path):
    model = fitted()
    assert model.dense is not None
    replace(model, dense=replace(model.dense, hidden_bias=model.dense.hidden_bias[:-1])).save(tmp_path)

    with pytest.raises(ModelError, match="not a linear model of this version"):
        Linear.load(tmp_path, 2)


def test_pooling_is_the_mean_of_the_embeddings():
    random = np.random.default_rng(0)
    embeddings = random.normal(size=(WORD_PLACES, 4)).astype(np.float32)
    dense = Dense.quantised(
        embeddings,
        np.zeros((10, 3), np.float32),
        np.zeros(3, np.float32),
        np.zeros((3, 1), np.float32),
        np.zeros(2, np.float32),
    )
    counted = Counted.join(list(count(pl.Series(["Deep nets. Deep learning of nets", "", "word"]))))
    pooled = dense.pooled(counted)

    words = [
        dense.embeddings[counted.words[first:last]]
        for first, last in zip(counted.word_bounds, counted.word_bounds[1:], strict=False)
    ]
    assert [len(of_text) for of_text in words] == [6, 0, 1]
    assert counted.title_words.tolist() == [2, 0, 1]
    np.testing.assert_allclose(pooled[0], np.concatenate([words[0].mean(0), words[0][:2].mean(0)]), rtol=1e-5)
    np.testing.assert_array_equal(pooled[1], np.zeros(8))
    np.testing.assert_allclose(pooled[2], np.concatenate([words[2][0], words[2][0]]), rtol=1e-5)


def test_four_bits_keep_the_embeddings():
    embeddings = np.random.default_rng(0).normal(size=(WORD_PLACES, 2)).astype(np.float32)
    dense = Dense.quantised(embeddings, *(np.zeros(shape, np.float32) for shape in ((6, 3), 3, (3, 1), 2)))

    clipped = np.clip(embeddings, -3 * embeddings.std(0), 3 * embeddings.std(0))
    assert np.abs(dense.embeddings - clipped).max() <= dense.units.max() / 2 + 1e-6


def test_years_lie_on_one_scale_and_an_unknown_one_is_nowhere():
    inputs = year_inputs(np.array([2010, 2018, 2026, 2031, 0], np.int32), np.array([2010, 2026], np.float32), 5)

    assert inputs.tolist() == [[-1, 1], [0, 1], [1, 1], [1, 1], [0, 0]]
    assert year_inputs(None, np.array([2010, 2026], np.float32), 1).tolist() == [[0, 0]]


def test_few_papers_get_no_dense_part():
    assert fitted(200).dense is None
