"""Remote files, for real: an S3 server on loopback, read from and written to."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import filelock
import polars as pl
import pytest
from click.testing import Result
from conftest import error_line, papers, read_jsonl, write_jsonl, write_parquet

from arxivclf.corpus.sources import remote_output, resolve
from arxivclf.errors import DataError

boto3 = pytest.importorskip("boto3", reason="boto3 comes with the extra 'test'")
server = pytest.importorskip("moto.server", reason="moto comes with the extra 'test'")


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """The address of an S3 server on loopback."""
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(store: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """A bucket of its own for each test, and the environment that leads there."""
    for name, value in {
        "AWS_ENDPOINT_URL": store,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    made = boto3.resource("s3", endpoint_url=store).create_bucket(Bucket=f"b{abs(hash(request.node.name))}")
    yield made
    made.objects.all().delete()


def names(bucket: Any) -> list[str]:
    return sorted(item.key for item in bucket.objects.all())


def test_read_and_written(cli: Callable[..., Result], model: Path, bucket: Any) -> None:
    bucket.upload_file(str(write_jsonl(Path("a.jsonl"), papers(5))), "in/a.jsonl")
    Path("b.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in papers(9)[5:]).encode()))
    bucket.upload_file("b.jsonl.gz", "in/b.jsonl.gz")
    bucket.upload_file(
        str(write_parquet(Path("c.parquet"), [*papers(12)[9:], {"id": "wrong", "title": "t"}])), "in/c.parquet"
    )
    output = f"s3://{bucket.name}/out/labels.parquet"
    result = cli("label", f"s3://{bucket.name}/in/*", "--model", model, "-o", output, "--max-rejects", 0.1)
    assert result.exit_code == 0, result.output
    bucket.download_file("out/labels.parquet", "labels.parquet")
    frame = pl.read_parquet("labels.parquet")
    assert frame.get_column("id").to_list() == [row["id"] for row in papers(12)]
    bucket.download_file("out/labels.rejects.jsonl", "rejects.jsonl")
    (reject,) = read_jsonl(Path("rejects.jsonl"))
    assert (reject["source"], reject["row"]) == (f"s3://{bucket.name}/in/c.parquet", 4)
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]
    refused = cli("label", f"s3://{bucket.name}/in/a.jsonl", "--model", model, "-o", output)
    assert "there already" in error_line(refused, 2)


def test_equal_to_local(cli: Callable[..., Result], model: Path, bucket: Any) -> None:
    bucket.upload_file(str(write_parquet(Path("dump.parquet"), papers(30))), "dump.parquet")
    assert cli("label", "dump.parquet", "--model", model, "-o", "here.parquet").exit_code == 0
    assert cli("label", f"s3://{bucket.name}/dump.parquet", "--model", model, "-o", "there.parquet").exit_code == 0
    assert Path("here.parquet").read_bytes() == Path("there.parquet").read_bytes()


def test_by_a_cluster_whose_workers_fetch_it_themselves(cli: Callable[..., Result], model: Path, bucket: Any) -> None:
    pytest.importorskip("ray", reason="the extra `ray` is not installed")
    bucket.upload_file(str(write_parquet(Path("dump.parquet"), papers(30))), "dump.parquet")
    assert cli("label", "dump.parquet", "--model", model, "-o", "here.parquet").exit_code == 0
    how = ("--model", model, "--engine", "ray", "--workers", "1")
    by_ray = cli("label", f"s3://{bucket.name}/dump.parquet", *how, "-o", "there.parquet")
    assert by_ray.exit_code == 0, by_ray.output
    assert Path("here.parquet").read_bytes() == Path("there.parquet").read_bytes()


def test_trained_on(cli: Callable[..., Result], tiny_base: Path, bucket: Any) -> None:
    bucket.upload_file(str(write_jsonl(Path("dump.jsonl"), papers(300))), "dump.jsonl")
    how = ["--base", tiny_base, "--epochs", 0.1, "--max-tokens", 16]
    result = cli("train", f"s3://{bucket.name}/dump.jsonl", *how)
    assert result.exit_code == 0, result.output


def test_a_remote_output_appears_whole_or_not_at_all(bucket: Any) -> None:
    address = f"s3://{bucket.name}/labels.jsonl"
    with remote_output(address) as stream:
        stream.write(b"first")
    # As a store does that takes no more.
    with suppress(DataError), remote_output(f"s3://{bucket.name}/") as stream:
        stream.write(b"nowhere")
    with suppress(KeyboardInterrupt), remote_output(address) as stream:
        stream.write(b"sec")
        raise KeyboardInterrupt
    assert names(bucket) == ["labels.jsonl"]
    assert bucket.Object("labels.jsonl").get()["Body"].read() == b"first"
    with remote_output(address) as stream:
        stream.write(b"second")
    assert names(bucket) == ["labels.jsonl"]
    assert bucket.Object("labels.jsonl").get()["Body"].read() == b"second"


def test_two_runs_from_one_folder_cannot_write_one_output(cli: Callable[..., Result], bucket: Any) -> None:
    write_jsonl(Path("dump.jsonl"), papers(3))
    Path(".x.parquet.parts").mkdir()
    with filelock.FileLock(".x.parquet.parts/lock"):
        line = error_line(cli("label", "dump.jsonl", "--model", "bundled", "-o", f"s3://{bucket.name}/x.parquet"), 1)
    assert "another run is writing it" in line
    assert names(bucket) == []


def test_rejects_of_a_refused_dump_are_where_it_is_said(cli: Callable[..., Result], bucket: Any) -> None:
    write_jsonl(Path("dump.jsonl"), [*papers(3), {"id": "wrong"}])
    output = f"s3://{bucket.name}/out/ai.parquet"
    line = error_line(cli("label", "dump.jsonl", "--model", "bundled", "-o", output), 1)
    assert f"see s3://{bucket.name}/out/ai.rejects.jsonl" in line
    assert names(bucket) == ["out/ai.rejects.jsonl"]
    assert not Path("s3:").exists()


def test_a_star_stays_in_its_folder(bucket: Any) -> None:
    for key in ("in/a.jsonl", "in/old/b.jsonl", "in/c.labels.jsonl"):
        bucket.put_object(Key=key, Body=b"{}")
    place = f"s3://{bucket.name}/in"
    assert resolve([f"{place}/*.jsonl"]) == [f"{place}/a.jsonl"]
    assert resolve([f"{place}/**.jsonl"]) == [f"{place}/a.jsonl", f"{place}/old/b.jsonl"]


def test_what_is_not_there(cli: Callable[..., Result], model: Path, bucket: Any) -> None:
    absent = cli("label", f"s3://{bucket.name}/absent.jsonl", "--model", model)
    assert f"s3://{bucket.name}/absent.jsonl: cannot be read" in error_line(absent, 1)
    nothing = cli("label", f"s3://{bucket.name}/*.jsonl", "--model", model)
    assert "no such file" in error_line(nothing, 2)
    write_jsonl(Path("dump.jsonl"), papers(3))
    nowhere = cli("label", "dump.jsonl", "--model", model, "-o", "s3://no-such-bucket-at-all/x.parquet")
    assert "s3://no-such-bucket-at-all/x" in error_line(nowhere, 1)
    unknown = cli("label", "ftp://example.org/dump.jsonl", "--model", model)
    assert "no store that is known; remote files are s3://" in error_line(unknown, 2)
    assert names(bucket) == []
