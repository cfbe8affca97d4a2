"""The token ids of texts: a tokenizer's own, and the same ones looked up piece by piece where it works so."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any

from transformers import PreTrainedTokenizerBase

# ASCII punctuation, each by itself, and what stands between it and spaces. A BERT's tokenizer parts there, too, and
# within such a piece wherever else it does.
_pieces = re.compile(r"[^ !-/:-@\[-`{-~]+|[!-/:-@\[-`{-~]").findall
# Some 250,000 pieces, which take 60 MB.
_MOST_CHARACTERS = 2_000_000
# Texts whose pieces are in memory at once, some 10 kB each.
_TOGETHER = 1_000

OfTexts = Callable[[Sequence[str]], list[list[int]]]
"""The token ids of each text, special tokens included."""


def fastest(tokenizer: PreTrainedTokenizerBase, limit: int) -> OfTexts:
    """What gives the token ids of texts, at most `limit` for each."""
    if _works_by_pieces(tokenizer, limit):
        return Pieces(tokenizer, limit)
    return partial(of_texts, tokenizer, limit)


def of_texts(tokenizer: PreTrainedTokenizerBase, limit: int, texts: Sequence[str]) -> list[list[int]]:
    """The token ids of each text, as the tokenizer itself gives them."""
    if not texts:
        return []
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    encoded = tokenizer(
        list(texts),
        truncation=True,
        max_length=limit,
        padding=False,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    return list(encoded["input_ids"])


class Pieces:
    """The same for a BERT's tokenizer, with each piece of a text remembered: a fourth of the work."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, limit: int) -> None:
        inner: Any = tokenizer.backend_tokenizer
        # One of its own, for transformers sets truncation and padding of the other at each call.
        self._inner = type(inner).from_str(inner.to_str())
        self._inner.no_truncation()
        self._inner.no_padding()
        self._tokenizer, self._limit = tokenizer, limit
        self._before, self._after = of_texts(tokenizer, limit, [""])[0]
        self._added = [str(token) for token in tokenizer.added_tokens_decoder.values()]
        self._known: dict[str, tuple[int, ...]] = {}
        self._characters = 0

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        found: list[list[int]] = []
        for first in range(0, len(texts), _TOGETHER):
            found += self._of_some(texts[first : first + _TOGETHER])
        return found

    def _of_some(self, texts: Sequence[str]) -> list[list[int]]:
        parted = [_pieces(text) for text in texts]
        # The dictionary of this call, for another thread may begin a new one.
        known = self._known
        fresh = list(set(chain.from_iterable(parted)).difference(known))
        if fresh:
            os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
            made = self._inner.encode_batch_fast(fresh, add_special_tokens=False)
            known.update((piece, tuple(each.ids)) for piece, each in zip(fresh, made, strict=True))
            self._characters += sum(map(len, fresh))
            if self._characters > _MOST_CHARACTERS:
                self._known, self._characters = {}, 0
        inside = self._limit - 2
        found = [
            [self._before, *islice(chain.from_iterable(map(known.__getitem__, pieces)), inside), self._after]
            for pieces in parted
        ]
        for row, text in enumerate(texts):
            # "[SEP]" is one token, and not the three pieces of "(SEP)".
            if any(map(text.__contains__, self._added)):
                found[row] = of_texts(self._tokenizer, self._limit, [text])[0]
        return found


def _works_by_pieces(tokenizer: PreTrainedTokenizerBase, limit: int) -> bool:
    """Whether `Pieces` gives the same: a BERT's as it was published, with one special token on either side of a text
    that is cut at its end.
    """
    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is None or tokenizer.truncation_side != "right" or limit < 2:
        return False
    parts = [type(part).__name__ for part in (inner.normalizer, inner.pre_tokenizer, inner.model)]
    if parts != ["BertNormalizer", "BertPreTokenizer", "WordPiece"]:
        return False
    if any(token.normalized or not str(token) for token in tokenizer.added_tokens_decoder.values()):
        return False
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    empty, one = tokenizer("")["input_ids"], tokenizer("a")["input_ids"]
    return len(empty) == 2 and one == [empty[0], *bare, empty[1]]
