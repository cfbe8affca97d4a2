"""OpenAlex works: the abstract, which they carry as an inverted index of its words."""

from __future__ import annotations

from typing import Any

import orjson


def abstract_of(inverted_index: Any) -> str | None:
    """The abstract that `{word: [positions]}` spells, words joined by blanks; None for null or an empty index.

    Takes a mapping, its pairs (as a Parquet map or a list of records gives them), or either as JSON text. Raises
    ValueError for anything else.
    """
    if isinstance(inverted_index, str):
        inverted_index = _loaded(inverted_index)
    if not inverted_index:
        return None
    try:
        pairs = inverted_index.items() if isinstance(inverted_index, dict) else inverted_index
        pairs = [tuple(pair.values()) if isinstance(pair, dict) else pair for pair in pairs]
        placed = [(int(position), word) for word, positions in pairs for position in positions or ()]
        placed.sort()
        return " ".join(word for _, word in placed) or None
    except (TypeError, ValueError, OverflowError):
        raise ValueError("abstract_inverted_index is no index of words") from None


def _loaded(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ValueError("abstract_inverted_index is no JSON") from None
