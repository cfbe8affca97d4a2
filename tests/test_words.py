"""Hashed words: the same features as a plain loop finds, whatever the block, and none across two texts."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arxivclf.model import words
from arxivclf.model.words import BITS, Counted, count

MASK = 2**64 - 1
TEXTS = st.lists(st.text(alphabet=st.sampled_from("abZ9 .-é“\n_$中"), max_size=30), max_size=40)


def mixed(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def hash_of(word: bytes) -> int:
    base = 0x9E3779B97F4A7C15
    return mixed(sum(byte * pow(base, place, 2**64) for place, byte in enumerate(word)) + len(word) * base & MASK)


def by_hand(text: str) -> dict[int, int]:
    """The features of a text, one word after the other."""
    if not text.isascii():
        text = "".join(sign if sign.isascii() or sign.isalnum() else " " for sign in text.lower())
    title = text.encode().find(b". ")
    found: list[tuple[bytes, int]] = []
    word, start = b"", 0
    for place, byte in enumerate([*text.encode(), 32]):
        if byte >= 128 or chr(byte).isalnum():
            word, start = word + bytes([byte]).lower(), start if word else place
        elif word:
            found.append((word, start))
            word = b""
    features: list[int] = []
    before = 0
    for number, (one, at) in enumerate(found):
        own = hash_of(one)
        in_title = title < 0 or at < title
        features.append(own)
        if in_title:
            features.append(mixed((own * 0xA24BAED4963EE407 + 7) & MASK))
        if number:
            pair = mixed((before * 0xD6E8FEB86659FD93 + own) & MASK)
            features.append(pair)
            if in_title:
                features.append(mixed((pair * 0xA24BAED4963EE407 + 9) & MASK))
        before = own
    counts: dict[int, int] = {}
    for feature in features:
        counts[feature >> (64 - BITS)] = counts.get(feature >> (64 - BITS), 0) + 1
    return counts


def of_each(counted: Counted) -> list[dict[int, int]]:
    edges = counted.bounds.tolist()
    return [
        dict(zip(counted.places[first:last].tolist(), counted.counts[first:last].tolist(), strict=True))
        for first, last in pairwise(edges)
    ]


@given(TEXTS)
@settings(max_examples=200, deadline=None)
def test_features_are_those_of_a_plain_loop(texts):
    found = [one for block in count(pl.Series(texts, dtype=pl.String)) for one in of_each(block)]

    assert found == [by_hand(text) for text in texts]


@given(TEXTS, st.integers(1, 7), st.integers(1, 60))
@settings(max_examples=100, deadline=None)
def test_blocks_change_nothing(texts, block_texts, block_bytes):
    whole = [one for block in count(pl.Series(texts, dtype=pl.String)) for one in of_each(block)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "_BLOCK_TEXTS", block_texts)
        patch.setattr(words, "_BLOCK_BYTES", block_bytes)
        parts = [one for block in count(pl.Series(texts, dtype=pl.String)) for one in of_each(block)]

    assert parts == whole


def test_hashes_never_change():
    # Models keep their weights by place: if these move, every model that there is gives other scores.
    (block,) = count(pl.Series(["Deep nets. Über α"]))

    assert of_each(block) == [by_hand("Deep nets. Über α")]
    assert hash_of(b"deep") >> 42 in of_each(block)[0]
    assert hash_of(b"deep") == 0x3EC77D52727F8EEA


def test_a_text_as_long_as_many_blocks():
    (block,) = count(pl.Series(["word " * 200_000]))

    assert sorted(set(block.counts.tolist())) == [255]
    assert np.diff(block.bounds).tolist() == [len(block.places)]
