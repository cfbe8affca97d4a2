"""A BERT's forward pass without padding: the tokens of many papers in one table, each paper attending to itself.

Padding to a common width wastes work, and transformers converts weights at every call. Here the rows of a batch are
tokens, always as many, filled up with nothing; products are as `products` makes them; attention alone knows where a
paper begins. In the last layer only the first token of a paper goes on, for only that is read. Which products are worth
it is said in `backends`; other architectures are left to transformers.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, cast

import numpy as np
import torch
from torch.nn.functional import layer_norm, linear, scaled_dot_product_attention
from transformers import PreTrainedModel

from arxivclf.model.batches import Indices
from arxivclf.model.products import Bfloat16, Float32, Kind, Product

# Tokens that go through together. On a CPU few enough that what they become stays in its cache.
ROWS = {"cpu": 1_024, "cuda": 65_536}
# So few papers at most for a batch: the part after attention in the last layer has as many rows.
_TOKENS_PER_PAPER = 32
# The exponential of this, a thousand times over, is still a number in bfloat16, and that of its negative is not 0.
_SAFE = 80.0

Spans = Mapping[str, torch.Tensor]
"""Of each product by name, the lowest and the highest value of each of its inputs, float32 (2, inputs)."""


@dataclass(frozen=True)
class Batch:
    """Papers that go through together: `rows` their places among all, `starts` (papers + 1) the bounds of their tokens.

    `ids` and `positions`, int64 (ROWS), are the tokens and their places in their papers; 0 where there is none.
    `firsts`, int64 (papers at most), are the first tokens; 0 where there is no paper.
    """

    rows: Indices
    starts: list[int]
    ids: torch.Tensor
    positions: torch.Tensor
    firsts: torch.Tensor


def packed(token_ids: Sequence[list[int]], tokens: int) -> Iterator[Batch]:
    """Every paper once, in batches of `tokens` tokens; long papers first, and with each the longest that still fit."""
    most = papers_at_most(tokens)
    of_length: dict[int, list[int]] = {}
    for row in range(len(token_ids) - 1, -1, -1):
        of_length.setdefault(len(token_ids[row]), []).append(row)
    lengths: list[int] = []
    for length in of_length:
        insort(lengths, length)
    while lengths:
        rows: list[int] = []
        left = tokens
        while len(rows) < most and (at := bisect_right(lengths, left)):
            length = lengths[at - 1]
            rows.append(of_length[length].pop())
            left -= length
            if not of_length[length]:
                lengths.remove(length)
        yield _batch(token_ids, rows, tokens, most)


def _batch(token_ids: Sequence[list[int]], rows: list[int], tokens: int, most: int) -> Batch:
    ids, positions, firsts = np.zeros(tokens, np.int64), np.zeros(tokens, np.int64), np.zeros(most, np.int64)
    starts = np.cumsum([0, *(len(token_ids[row]) for row in rows)]).tolist()
    for (start, end), row in zip(pairwise(starts), rows, strict=True):
        ids[start:end] = token_ids[row]
        positions[start:end] = np.arange(end - start)
    firsts[: len(rows)] = starts[:-1]
    return Batch(np.array(rows), starts, *(torch.from_numpy(each) for each in (ids, positions, firsts)))


def papers_at_most(tokens: int) -> int:
    """How many papers go into a batch of so many tokens."""
    return max(1, tokens // _TOKENS_PER_PAPER)


@dataclass(frozen=True)
class _Layer:
    """One layer. `attend` makes queries, keys and values; in the last layer, where `query` is, keys and values."""

    attend: Product
    query: Product | None
    mix: Product
    mixed_norm: Callable[[torch.Tensor], torch.Tensor]
    up: Product
    down: Product
    norm: Callable[[torch.Tensor], torch.Tensor]


class Packed:
    """The forward pass of a BERT with its head, over weights that are converted here, once."""

    def __init__(self, model: PreTrainedModel, kind: Kind) -> None:
        """`kind` is float32 or bfloat16."""
        parts = cast(Any, model)
        embeddings, layers = parts.bert.embeddings, parts.bert.encoder.layer
        self._device = torch.device(model.device)
        self._heads: int = model.config.num_attention_heads
        self._longest: int = model.config.max_position_embeddings
        self.name = f"{kind} without padding"
        self._kind = kind
        self._tokens = max(ROWS[self._device.type], self._longest)
        self._words = embeddings.word_embeddings.weight.detach()
        # All tokens are of the first type, so that its vector can be added to those of the places beforehand.
        types = embeddings.token_type_embeddings.weight.detach()
        self._places = embeddings.position_embeddings.weight.detach() + types[0]
        self._norm = _norm(embeddings.LayerNorm)
        self._products: dict[str, Product] = {}
        self._layers = [self._layer(at, layer, at == len(layers) - 1) for at, layer in enumerate(layers)]
        self._pooler, self._head = parts.bert.pooler.dense, parts.classifier

    def _layer(self, at: int, layer: Any, last: bool) -> _Layer:
        def product(name: str, *parts: torch.nn.Linear, rows: int, with_gelu: bool = False) -> Product:
            name = f"{at}.{name}"
            # What scores are divided by is in the weights of the queries.
            shares = [scale if part is attention.query else 1.0 for part in parts]
            weight, bias = (
                torch.cat([getattr(part, of).detach() * share for part, share in zip(parts, shares, strict=True)])
                for of in ("weight", "bias")
            )
            kind = Float32 if self._kind == "float32" else Bfloat16
            made = self._products[name] = kind(weight, bias, with_gelu, rows)
            return made

        every, attention = self._tokens, layer.attention.self
        scale = float(attention.attention_head_size) ** -0.5
        rows = papers_at_most(every) if last else every
        asked, others = (attention.query,), (attention.key, attention.value)
        return _Layer(
            product("attend", *(others if last else asked + others), rows=every),
            product("query", *asked, rows=rows) if last else None,
            product("mix", layer.attention.output.dense, rows=rows),
            _norm(layer.attention.output.LayerNorm),
            product("up", layer.intermediate.dense, rows=rows, with_gelu=True),
            product("down", layer.output.dense, rows=rows),
            _norm(layer.output.LayerNorm),
        )

    def logits(
        self, token_ids: Sequence[list[int]], outputs: int, advance: Callable[[int], None]
    ) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        """The logits of tokenised papers, float32 (papers, outputs), in their order; `advance` as in `Encoder`."""
        logits = np.empty((len(token_ids), outputs), dtype=np.float32)
        run = self._by_thread if self._device.type == "cpu" else self._one_ahead
        with closing(run(packed(token_ids, self._tokens))) as results:
            for rows, found in results:
                logits[rows] = found[: len(rows)].cpu().numpy()
                advance(len(rows))
        return logits

    def _by_thread(self, batches: Iterable[Batch]) -> Generator[tuple[Indices, torch.Tensor], None, None]:
        """The batches in their order, each computed by one thread, as many at a time as torch has threads.

        Threads that part one product between them wait for each other after each; where something else wants a core,
        too, they did little but wait (4 papers/s with two of them, where one alone did 40).
        """
        threads = torch.get_num_threads()
        waiting: deque[tuple[Indices, Future[torch.Tensor]]] = deque()
        with ThreadPoolExecutor(threads, "encoder", torch.set_num_threads, (1,)) as pool:
            try:
                for batch in batches:
                    waiting.append((batch.rows, pool.submit(self.forward, batch)))
                    if len(waiting) > 2 * threads:
                        rows, found = waiting.popleft()
                        yield rows, found.result()
                for rows, found in waiting:
                    yield rows, found.result()
            finally:
                pool.shutdown(cancel_futures=True)
                torch.set_num_threads(threads)

    def _one_ahead(self, batches: Iterable[Batch]) -> Generator[tuple[Indices, torch.Tensor], None, None]:
        """The batches in their order; a GPU is given the next before the last one's logits are waited for."""
        last: tuple[Indices, torch.Tensor, torch.cuda.Event] | None = None
        for batch in batches:
            # The way back is asked for at once, for it would else wait for the next batch, too.
            found = self.forward(batch).to("cpu", non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
            if last is not None:
                last[2].synchronize()
                yield last[:2]
            last = batch.rows, found, arrived
        if last is not None:
            last[2].synchronize()
            yield last[:2]

    @torch.inference_mode()
    def forward(self, batch: Batch) -> torch.Tensor:
        """The logits of a batch, float32 (papers at most, outputs), on the device; after its papers, no meaning."""
        ids, positions, firsts = (self._put(each) for each in (batch.ids, batch.positions, batch.firsts))
        rows = self._norm(self._words[ids] + self._places[positions])
        for layer in self._layers:
            made = layer.attend(rows).unflatten(1, (-1, self._heads, rows.shape[1] // self._heads))
            if layer.query is None:
                mixed = self._attention(made[:, 0], made[:, 1], made[:, 2], batch.starts, batch.starts)
            else:
                rows = rows[firsts]
                query = layer.query(rows).unflatten(1, (self._heads, -1))
                each = list(range(len(batch.rows) + 1))
                mixed = self._attention(query, made[:, 0], made[:, 1], each, batch.starts)
            rows = layer.mixed_norm(layer.mix(mixed.flatten(1), rows))
            rows = layer.norm(layer.down(layer.up(rows), rows))
        pooled = torch.tanh(linear(rows, self._pooler.weight, self._pooler.bias))
        return linear(pooled, self._head.weight, self._head.bias).float()

    def _put(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._device.type == "cpu":
            return tensor
        return tensor.pin_memory().to(self._device, non_blocking=True)

    def _attention(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, asked: list[int], starts: list[int]
    ) -> torch.Tensor:
        """Each paper's queries (rows, heads, size) over its own keys and values; like the queries, in their precision.

        `asked` and `starts` are the bounds of the papers among the queries and among the keys.
        """
        if self._device.type == "cuda" and query.dtype != torch.float32:
            from torch.nn.attention.varlen import varlen_attn

            of_queries, of_keys = (self._put(torch.tensor(each, dtype=torch.int32)) for each in (asked, starts))
            query, key, value = (part.contiguous() for part in (query, key, value))
            return cast(
                torch.Tensor,
                varlen_attn(query, key, value, of_queries, of_keys, self._longest, self._longest, scale=1.0),
            )
        # One call for each paper: its shape, and so its order of summing, is that of the paper alone.
        mixed = torch.zeros(query.shape, dtype=query.dtype, device=query.device)
        query, key, value = (part.transpose(0, 1).contiguous() for part in (query, key, value))
        for place, (start, end) in enumerate(pairwise(starts)):
            own = slice(asked[place], asked[place + 1])
            mixed[own] = _attend(query[:, own], key[:, start:end], value[:, start:end]).transpose(0, 1)
        return mixed

    def watch(self, token_ids: Sequence[list[int]]) -> dict[str, torch.Tensor]:
        """The spans of what comes into the last product of each layer over these papers; for products of float32."""
        products = {name: one for name, one in self._products.items() if name.endswith(".down")}
        watched = {name: one for name, one in products.items() if isinstance(one, Float32)}
        for batch in packed(token_ids, self._tokens):
            for one in watched.values():
                # What fills a batch up is no paper's.
                whole = one.rows == self._tokens
                one.watched = batch.starts[-1] if whole else len(batch.rows)
            self.forward(batch)
        for one in watched.values():
            one.watched = 0
        return {name: torch.stack([one.lowest, one.highest]) for name, one in watched.items()}


def _attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Of one paper: query (heads, rows, size), scaled already, over key and value (heads, tokens, size).

    In bfloat16 as three steps: torch's own, which keeps to blocks that fit a cache, took 1.6 times as long at the
    lengths of abstracts on two cores with avx512_bf16.
    """
    if query.dtype != torch.bfloat16 or query.device.type != "cpu":
        return scaled_dot_product_attention(query[None], key[None], value[None], scale=1.0)[0]
    scores = torch.bmm(query, key.transpose(1, 2))
    lowest, highest = torch.aminmax(scores)
    if lowest < -_SAFE or highest > _SAFE:
        return torch.bmm(torch.softmax(scores, -1), value)
    # Where nothing overflows the largest need not be looked for and taken off, which is most of a softmax.
    shares = scores.exp_()
    return torch.bmm(shares, value).div_(shares.sum(-1, keepdim=True))


def _norm(norm: torch.nn.LayerNorm) -> Callable[[torch.Tensor], torch.Tensor]:
    weight, bias = norm.weight.detach(), norm.bias.detach()
    return partial(layer_norm, normalized_shape=weight.shape, weight=weight, bias=bias, eps=norm.eps)
