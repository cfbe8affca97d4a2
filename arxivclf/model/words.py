"""Hashed words: from cleaned texts to the places of their words in a table of weights, and how often each is there.

The features of a text are its words, its pairs of neighbours, and both once more for its first sentence, which is the
title where title and abstract were joined. None is kept: a feature is the place that its hash gives, one of PLACES.

A word is a run of ASCII letters and digits, lower-cased, and of all other letters, digits and marks. Its hash is the
sum of its UTF-8 bytes b[i] times P**i, plus its length times G, modulo 2**64, then mixed (the finaliser of SplitMix64,
Steele et al. 2014). Powers of an odd number have inverses modulo 2**64, so that the hashes of all words of a block come
from one running sum, without a step for each word. Models keep weights by place: no constant here may ever change.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
import polars as pl

BITS = 22
PLACES = 1 << BITS
# Of single words, which have embeddings: the words of half a million abstracts need no larger table.
WORD_BITS = 17
WORD_PLACES = 1 << WORD_BITS

# Of texts in a block: small enough that all that is computed of it stays in the cache of a core.
_BLOCK_TEXTS = 256
_BLOCK_BYTES = 1 << 18
_SORTED_TEXTS = 16

_P, _G = 0x9E3779B97F4A7C15, 0x9E3779B97F4A7C15
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_PAIR, _TITLE = np.uint64(0xD6E8FEB86659FD93), np.uint64(0xA24BAED4963EE407)
_TITLE_WORD, _TITLE_PAIR = np.uint64(7), np.uint64(9)

Hashes = np.ndarray[tuple[int], np.dtype[np.uint64]]
Ints = np.ndarray[tuple[int], np.dtype[np.int64]]
Bytes = np.ndarray[tuple[int], np.dtype[np.uint8]]
Keys = np.ndarray[tuple[int], np.dtype[np.uint32]]


@dataclass(frozen=True)
class Counted:
    """The features of some texts, those of a text in the order of their places.

    `places` are int32 in [0, PLACES), `counts` uint8 how often each is there (255 at most); those of text i stand from
    `bounds[i]` to `bounds[i + 1]`, int64 (texts + 1,). `words` are the words themselves in the order of the text, as
    int32 in [0, WORD_PLACES); those of text i stand from `word_bounds[i]` to `word_bounds[i + 1]`, int64 (texts + 1,),
    and the first `title_words[i]` of them, int64 (texts,), are those of its first sentence.
    """

    places: np.ndarray[tuple[int], np.dtype[np.int32]]
    counts: Bytes
    bounds: Ints
    words: np.ndarray[tuple[int], np.dtype[np.int32]]
    word_bounds: Ints
    title_words: Ints

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def slice(self, first: int, last: int) -> Counted:
        """The features of the texts from `first` up to `last`."""
        bounds, words = self.bounds[first : last + 1], self.word_bounds[first : last + 1]
        return Counted(
            self.places[bounds[0] : bounds[-1]],
            self.counts[bounds[0] : bounds[-1]],
            bounds - bounds[0],
            self.words[words[0] : words[-1]],
            words - words[0],
            self.title_words[first:last],
        )

    def take(self, texts: Ints) -> Counted:
        """The features of these texts, by their numbers, in this order."""
        places, bounds = _stretches(self.bounds, texts)
        words, word_bounds = _stretches(self.word_bounds, texts)
        title_words = self.title_words[texts]
        return Counted(self.places[places], self.counts[places], bounds, self.words[words], word_bounds, title_words)

    @classmethod
    def join(cls, parts: list[Counted]) -> Counted:
        """The features of all texts of the parts, in their order."""
        return cls(
            np.concatenate([part.places for part in parts]),
            np.concatenate([part.counts for part in parts]),
            _joined_bounds([part.bounds for part in parts]),
            np.concatenate([part.words for part in parts]),
            _joined_bounds([part.word_bounds for part in parts]),
            np.concatenate([part.title_words for part in parts]),
        )


def _stretches(bounds: Ints, which: Ints) -> tuple[Ints, Ints]:
    """The positions of the values of these stretches of a block, and the bounds of each among them."""
    lengths = np.diff(bounds)[which]
    ends = np.cumsum(np.append(0, lengths))
    return np.arange(int(ends[-1])) - np.repeat(ends[:-1] - bounds[:-1][which], lengths), ends


def _joined_bounds(parts: list[Ints]) -> Ints:
    """The bounds of consecutive blocks of values as those of one block."""
    return np.concatenate([np.zeros(1, np.int64), *(np.diff(bounds) for bounds in parts)]).cumsum()


def count(texts: pl.Series) -> Iterator[Counted]:
    """The features of cleaned texts (strings without nulls), in blocks of some hundred texts, in their order."""
    if not len(texts):
        return
    plain = _plain(texts)
    titles = plain.str.find(". ", literal=True).fill_null(sys.maxsize).to_numpy().astype(np.int64)
    arrow = plain.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    bounds = np.frombuffer(arrow.buffers()[1], np.int64)[arrow.offset : arrow.offset + len(texts) + 1]
    content = np.frombuffer(arrow.buffers()[2] or b"", np.uint8)
    first = 0
    while first < len(texts):
        fitting = int(np.searchsorted(bounds, bounds[first] + _BLOCK_BYTES, side="right")) - 1
        last = min(max(fitting, first + 1), first + _BLOCK_TEXTS, len(texts))
        own = bounds[first : last + 1]
        yield _block(content[own[0] : own[-1]], own - own[0], titles[first:last])
        first = last


def _plain(texts: pl.Series) -> pl.Series:
    """The texts, those that are not ASCII in lower case and with blanks for all that is in no word."""
    text = pl.col("text")
    other = pl.when(text.str.len_bytes() != text.str.len_chars()).then(text)
    # The full stop ends the title, and of ASCII the table below takes care.
    plain = other.str.to_lowercase().str.replace_all(r"[^\p{L}\p{N}\p{M}\x00-\x7F]", " ")
    return texts.rename("text").to_frame().select(pl.coalesce(plain, text)).to_series()


def _block(content: Bytes, bounds: Ints, titles: Ints) -> Counted:
    """The features of a block of texts from their bytes; text i has those from `bounds[i]` to `bounds[i + 1]`.

    `titles` are the lengths in bytes of their first sentences.
    """
    texts = len(bounds) - 1
    hashes, starts = _words(content, bounds)
    word_bounds = np.searchsorted(starts, bounds).astype(np.int64)
    text = np.repeat(np.arange(texts), np.diff(word_bounds))
    neighbours = text[:-1] == text[1:]
    pairs = _mixed(hashes[:-1] * _PAIR + hashes[1:])
    in_title = starts < (bounds[:-1] + np.minimum(titles, np.diff(bounds)))[text]
    both = neighbours & in_title[1:]
    found = [
        (hashes, text),
        (pairs[neighbours], text[1:][neighbours]),
        (_mixed(hashes[in_title] * _TITLE + _TITLE_WORD), text[in_title]),
        (_mixed(pairs[both] * _TITLE + _TITLE_PAIR), text[1:][both]),
    ]
    keys = _keys(found, texts)
    changes = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])) if len(keys) else np.zeros(0, np.int64)
    counts = np.minimum(np.diff(np.append(changes, len(keys))), 255).astype(np.uint8)
    distinct = keys[changes]
    places = (distinct & np.uint32(PLACES - 1)).astype(np.int32)
    first_keys = (np.arange(texts + 1, dtype=np.uint64) << np.uint64(BITS)).astype(np.uint64)
    return Counted(
        places,
        counts,
        np.searchsorted(distinct, first_keys).astype(np.int64),
        (hashes >> np.uint64(64 - WORD_BITS)).astype(np.int32),
        word_bounds,
        np.bincount(text[in_title], minlength=texts).astype(np.int64),
    )


def _keys(found: list[tuple[Hashes, Ints]], texts: int) -> Keys:
    """Text and place in one number for all features, sorted; `found` are hashes and, rising, the texts they are of."""
    kinds = [
        (owners << BITS).astype(np.uint32) | (hashes >> np.uint64(64 - BITS)).astype(np.uint32)
        for hashes, owners in found
    ]
    # A few texts at a time: where many are sorted at once, numpy is six times slower on some processors (Zen 4).
    edges = np.arange(0, texts + _SORTED_TEXTS, _SORTED_TEXTS)
    cuts = [np.searchsorted(owners, edges).tolist() for _, owners in found]
    parts = []
    for which in range(len(edges) - 1):
        part = np.concatenate([keys[cut[which] : cut[which + 1]] for keys, cut in zip(kinds, cuts, strict=True)])
        part.sort()
        parts.append(part)
    return np.concatenate(parts)


def _words(content: Bytes, bounds: Ints) -> tuple[Hashes, Ints]:
    """The hash of each word of a block and where it starts, in order; no word goes from one text into the next."""
    size = len(content)
    lower = np.take(_letters(), content)
    inside = lower != 0
    # One more on each side, so that the edges of the block are those of words, too.
    edges = np.zeros(size + 1, dtype=np.int8)
    edges[:-1] = inside
    edges[1:] -= inside
    starts_here, ends_here = edges == 1, edges == -1
    # Where two texts meet within letters, one word ends and another starts.
    met = bounds[1:-1]
    met = met[(met > 0) & (met < size)]
    met = met[inside[met] & inside[met - 1]]
    starts_here[met] = ends_here[met] = True
    starts, ends = np.flatnonzero(starts_here), np.flatnonzero(ends_here)
    # One text alone may be longer than a block.
    powers, inverses = _powers(max(size, _BLOCK_BYTES))
    sums = np.zeros(size + 1, dtype=np.uint64)
    np.cumsum(lower * powers[:size], out=sums[1:])
    lengths = (ends - starts).astype(np.uint64)
    return _mixed((sums[ends] - sums[starts]) * inverses[starts] + lengths * np.uint64(_G)), starts


def _mixed(hashes: Hashes) -> Hashes:
    first, second = _MIX
    hashes = (hashes ^ (hashes >> np.uint64(30))) * first
    hashes = (hashes ^ (hashes >> np.uint64(27))) * second
    return hashes ^ (hashes >> np.uint64(31))


@cache
def _letters() -> Bytes:
    """For each byte the one that stands for it in a word, 0 where it stands in none; a part of a longer code is in."""
    table = np.zeros(256, dtype=np.uint8)
    for code in range(256):
        if chr(code).isalnum() or code >= 0x80:
            table[code] = ord(chr(code).lower()) if code < 0x80 else code
    return table


@lru_cache(maxsize=1)
def _powers(length: int) -> tuple[Hashes, Hashes]:
    """So many powers of _P and of its inverse modulo 2**64."""
    return _powers_of(_P, length), _powers_of(pow(_P, -1, 2**64), length)


def _powers_of(base: int, length: int) -> Hashes:
    powers = np.ones(length, dtype=np.uint64)
    done = 1
    while done < length:
        more = min(done, length - done)
        powers[done : done + more] = powers[:more] * np.uint64(pow(base, done, 2**64))
        done += more
    return powers
