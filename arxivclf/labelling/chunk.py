"""From a chunk of papers to their labels: one pure function, whatever engine calls it."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from arxivclf.corpus.tasks import truth
from arxivclf.corpus.text import compose
from arxivclf.model.classifier import Classifier
from arxivclf.model.labels import BY_ENCODER, Layout


def label_chunk(
    papers: pl.DataFrame,
    classifier: Classifier,
    layout: Layout,
    advance: Callable[[int], None] = lambda papers: None,
) -> pl.DataFrame:
    """The labels of papers (columns.PAPER and what is kept), one row each, in their order, as `layout` has them."""
    texts = compose(papers, classifier.info.cleaning)
    scores = classifier.scores(texts, advance)
    return layout.table(papers, texts, scores, truth(classifier.info.task, papers), BY_ENCODER)
