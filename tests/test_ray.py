"""The Ray engine on a real cluster of two nodes, each a process of its own on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from conftest import HANGS_S, error_line, paper, wait_until, write_jsonl
from test_shards import both, rows

import arxivclf
from arxivclf import LabelSettings, label
from arxivclf.errors import ModelError, UsageError
from arxivclf.labelling import cluster as ours

pytest.importorskip("ray", reason="the extra `ray` is not installed")

HOW: dict[str, Any] = {"model": ("bundled",), "chunk_rows": 20, "max_rejects": 0.2}


class Nodes:
    """A head and a second node, with a core each."""

    def __init__(self) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        # By default workers have the lowest priority but four: on a busy machine they hardly ran at all.
        os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
        from ray.cluster_utils import Cluster

        # Not waited for here, for that has a limit of its own (30 s).
        head = {"num_cpus": 1, "include_dashboard": False, "wait": False}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.address: str = self._cluster.address
        self.add_the_second()

    def lose_the_second(self) -> None:
        """As when its power goes."""
        self._cluster.remove_node(self.second, allow_graceful=False)

    def add_the_second(self) -> None:
        self.second = self._cluster.add_node(num_cpus=1, wait=False)
        self._cluster.wait_for_nodes(timeout=HANGS_S)

    def stop(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    there = Nodes()
    yield there
    there.stop()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dump of 200 chunks, and beside it its labels of the local engine."""
    folder = tmp_path_factory.mktemp("large")
    dump = write_jsonl(folder / "dump.jsonl", [paper(f"2101.{n:05d}", title=f"No. {n}") for n in range(1, 4_001)])
    label(LabelSettings((str(dump),), output=str(folder / "x.parquet"), **HOW))
    return dump


def command(dump: Path, nodes: Nodes) -> list[str]:
    start = [sys.executable, "-m", "arxivclf", "label", str(dump), "--model", "bundled", "-o", "x.parquet"]
    return [*start, "--chunk-rows", "20", "--engine", "ray", "--ray-address", nodes.address]


def begun(process: subprocess.Popen[bytes], folder: Path, parts: int = 20) -> None:
    """Wait until so many parts are done."""
    manifest = folder / ".x.parquet.parts/manifest.jsonl"
    wait_until(lambda: manifest.exists() and manifest.read_bytes().count(b"\n") > parts, process)


def workers() -> list[int]:
    """The processes of the actors."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                said = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if said.startswith(b"ray::MapWorker"):
                found.append(int(entry.name))
    return found


@pytest.mark.parametrize("limit", [None, 47])
def test_the_same_bytes_as_the_local_engine(nodes: Nodes, tmp_path: Path, limit: int | None) -> None:
    dump = write_jsonl(tmp_path / "dump.jsonl", rows())
    how = HOW | {"chunk_rows": 10, "limit": limit}
    label(LabelSettings((str(dump),), output=str(tmp_path / "local/x.jsonl"), **how))
    found = label(
        LabelSettings((str(dump),), output=str(tmp_path / "x.jsonl"), engine="ray", ray_address=nodes.address, **how)
    )
    assert both(tmp_path / "x.jsonl") == both(tmp_path / "local/x.jsonl")
    assert not (tmp_path / ".x.jsonl.parts").exists()
    again = LabelSettings((str(dump),), output=str(tmp_path / "x.jsonl"), **how)
    assert label(again).papers_now == 0
    assert found.papers == label(again).papers


def stopped(nodes: Nodes, large: Path, folder: Path, number: signal.Signals) -> tuple[int, str]:
    """Send a signal to a driver in the middle of its work, check that the same command goes on; its code and words."""
    with subprocess.Popen(command(large, nodes), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as run:
        begun(run, folder)
        run.send_signal(number)
        said = run.communicate(timeout=HANGS_S)[1].decode()
    assert not (folder / "x.parquet").exists()
    assert (folder / ".x.parquet.parts/manifest.jsonl").read_bytes().count(b"\n") > 20
    done = subprocess.run(command(large, nodes), cwd=folder, capture_output=True, text=True, check=True)
    assert "were done before" in done.stdout
    assert (folder / "x.parquet").read_bytes() == large.with_name("x.parquet").read_bytes()
    return run.returncode, said


def test_a_driver_that_was_killed_goes_on(nodes: Nodes, large: Path, tmp_path: Path) -> None:
    stopped(nodes, large, tmp_path, signal.SIGKILL)


def test_ctrl_c_says_so_and_the_same_command_goes_on(nodes: Nodes, large: Path, tmp_path: Path) -> None:
    code, said = stopped(nodes, large, tmp_path, signal.SIGINT)
    assert code == 130, said
    assert "interrupted" in said.splitlines()[-1]
    assert "Traceback" not in said


def test_rows_that_are_no_papers_at_the_head_of_a_file(nodes: Nodes, tmp_path: Path) -> None:
    """Its columns are told by the head of a file; where no paper is in it, chunks are read that nobody asked for."""
    dump = tmp_path / "dump.jsonl"
    write_jsonl(dump, [paper(f"2101.{n:05d}", title=f"No. {n}") for n in range(1, 1_200)])
    dump.write_text("junk\n" * 1_000 + dump.read_text())
    how = HOW | {"chunk_rows": 300, "max_rejects": 0.6}
    label(LabelSettings((str(dump),), output=str(tmp_path / "local/x.parquet"), **how))
    label(
        LabelSettings((str(dump),), output=str(tmp_path / "x.parquet"), engine="ray", ray_address=nodes.address, **how)
    )
    assert both(tmp_path / "x.parquet") == both(tmp_path / "local/x.parquet")


def test_a_cluster_of_its_own(tmp_path: Path) -> None:
    """Without an address one is started for the run, and says nothing of itself."""
    dump = write_jsonl(tmp_path / "dump.jsonl", rows())
    start = [sys.executable, "-m", "arxivclf", "label", str(dump), "--model", "bundled", "-o", "x.parquet"]
    command = [*start, "--engine", "ray", "--workers", "1", "--max-rejects", "0.2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "by 1 worker of Ray" in done.stderr
    # Nothing of Ray's own; how many lines of progress there are depends on the machine.
    ours = ("Labelling with bundled on ", "Counting: ", "Labelling: ")
    assert [line for line in done.stderr.splitlines() if not line.startswith(ours)] == []
    label(LabelSettings((str(dump),), output=str(tmp_path / "local/x.parquet"), model=("bundled",), max_rejects=0.2))
    assert both(tmp_path / "x.parquet") == both(tmp_path / "local/x.parquet")


def test_without_ray_the_extra_is_named(
    cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours.importlib.util, "find_spec", lambda name: None)
    write_jsonl(tmp_path / "dump.jsonl", rows())
    said = error_line(cli("label", "dump.jsonl", "--engine", "ray", "--model", "bundled"), 1)
    assert "pip install 'arxivclf[ray]'" in said


def test_no_cluster_at_the_address(cli: Callable[..., Result], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "dump.jsonl", rows())
    for address in ("127.0.0.1:1", "nowhere", "ray://127.0.0.1:10001"):
        how = ("--engine", "ray", "--ray-address", address, "--model", "bundled")
        said = error_line(cli("label", "dump.jsonl", *how), 2)
        assert f"no cluster at {address}" in said or f"{address}: Ray's client cannot" in said


def test_an_address_is_for_ray() -> None:
    with pytest.raises(UsageError, match="ray-address must be for --engine ray alone"):
        LabelSettings(ray_address="auto")


def test_another_version_on_the_workers(nodes: Nodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is this process that says it has another one; the workers have theirs."""
    dump = write_jsonl(tmp_path / "dump.jsonl", rows())
    monkeypatch.setattr(arxivclf, "__version__", "9.9")
    with pytest.raises(UsageError, match=r"has arxivclf .*, this machine 9.9: install the same on all"):
        label(
            LabelSettings(
                (str(dump),), engine="ray", ray_address=nodes.address, output=str(tmp_path / "x.parquet"), **HOW
            )
        )


def test_a_model_that_is_none(nodes: Nodes, tmp_path: Path) -> None:
    dump = write_jsonl(tmp_path / "dump.jsonl", rows())
    (tmp_path / "model").mkdir()
    how = HOW | {"model": (str(tmp_path / "model"),), "output": str(tmp_path / "x.parquet")}
    with pytest.raises(ModelError, match="model: no"):
        label(LabelSettings((str(dump),), engine="ray", ray_address=nodes.address, **how))


@pytest.mark.skipif(
    shutil.which("unshare") is None or os.geteuid() != 0, reason="only root may hide a file from others"
)
def test_workers_that_do_not_see_the_dump(nodes: Nodes, tmp_path: Path) -> None:
    """The driver has a folder of its own, that no other process sees: a mount in its own namespace."""
    (tmp_path / "own").mkdir()
    write_jsonl(tmp_path / "dump.jsonl", rows())
    words = command(tmp_path / "own/dump.jsonl", nodes)
    script = f"mount -t tmpfs tmpfs own && cp dump.jsonl own/ && exec {' '.join(words)} --max-rejects 0.2"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount of one's own here: {done.stderr.strip()}")
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert "does not see it; the dump must lie on shared storage" in last
    assert last.startswith("Error: ")


# Last in this file, for the others want a cluster that has lost nothing.
@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="without /proc no worker is found to be killed")
@pytest.mark.parametrize("loses", ["a worker", "a node"])
def test_what_dies_is_made_up_for(nodes: Nodes, large: Path, tmp_path: Path, loses: str) -> None:
    with subprocess.Popen(
        command(large, nodes), cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        begun(process, tmp_path)
        if loses == "a worker":
            os.kill(workers()[0], signal.SIGKILL)
        else:
            nodes.lose_the_second()
        _, said = process.communicate(timeout=HANGS_S)
    if loses == "a node":
        nodes.add_the_second()
    assert process.returncode == 0, said.decode()
    assert (tmp_path / "x.parquet").read_bytes() == large.with_name("x.parquet").read_bytes()
