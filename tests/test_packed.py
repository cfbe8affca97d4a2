"""What is packed: dumps and labels as gzip and zstd, whole, cut short, rotten, or unpacking without end."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import zstandard
from conftest import papers, snapshot

from arxivclf import report
from arxivclf.corpus.snapshot import unpacked
from arxivclf.errors import DataError


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 0.999])
@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_compressed_dump_that_was_cut_short_is_no_whole_dump(
    tmp_path: Path, pack: Callable[[bytes], bytes], share: float
) -> None:
    packed = pack("".join(json.dumps(row) + "\n" for row in papers(3_000)).encode())
    (tmp_path / "dump.jsonl").write_bytes(packed[: int(len(packed) * share)])
    with pytest.raises(DataError, match="cannot be"):
        list(snapshot(tmp_path / "dump.jsonl").chunks())


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_packed_labels_that_were_cut_short_are_no_whole_table(
    tmp_path: Path, pack: Callable[[bytes], bytes], form: str
) -> None:
    random = np.random.default_rng(0)
    table = pl.DataFrame({"id": [f"W{n}" for n in range(50_000)], "ai_score": random.random(50_000), "ai_truth": True})
    path = tmp_path / f"x.{form}.packed"
    whole = pack((table.write_csv() if form == "csv" else table.write_ndjson()).encode())
    path.write_bytes(whole)
    assert report(path).labels[0].papers == 50_000
    for end in (len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        with pytest.raises(DataError, match="not a whole table of labels"):
            report(path)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_compressed_dump_with_rotten_bytes_says_so(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    packed = bytearray(pack("".join(json.dumps(row) + "\n" for row in papers(3_000)).encode()))
    packed[40:200] = bytes(255 - byte for byte in packed[40:200])
    (tmp_path / "dump.jsonl").write_bytes(packed)
    with pytest.raises(DataError, match="cannot be"):
        list(snapshot(tmp_path / "dump.jsonl").chunks())


def test_what_zstd_unpacks_is_never_in_memory_as_a_whole() -> None:
    """Four kilobytes that are a hundred megabytes."""
    packed = zstandard.ZstdCompressor(level=1).compress(bytes(100 << 20))
    assert len(packed) < 4_000
    tracemalloc.start()
    try:
        read = 0
        with unpacked(io.BytesIO(packed)) as stream:
            while block := stream.read(1 << 20):
                read += len(block)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert read == 100 << 20
    assert peak < 80 << 20
