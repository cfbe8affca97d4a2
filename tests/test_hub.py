"""The Hugging Face Hub, for real: a server on loopback, pushed to and downloaded from by the hub's own client."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from conftest import PAPERS, TINY, error_line, papers, write_jsonl
from hub_server import Hub, Repo

from arxivclf.model.folder import MODEL_FILES

NAME = "ada/arxiv-ai"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that Ada is logged in to; its client reads most of the environment once, so it is told here."""
    server = Hub()
    home = tmp_path / "home"
    for name, value in {
        "ENDPOINT": server.url,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_URL_HOSTS": frozenset({"127.0.0.1"}),
        "HF_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_TELEMETRY": True,
    }.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)
    monkeypatch.setenv("HF_TOKEN", "hf_ada")
    yield server
    server.shutdown()
    server.server_close()


def read(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def pushed(result: Result) -> str:
    """The commit in the last line of a push that went well."""
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()[-1].rpartition("/tree/")[2]


def go_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_the_program_pushes_and_labels_by_name(
    cli: Callable[..., Result], model: Path, hub: Hub, tmp_path: Path
) -> None:
    """From the environment alone, as a user has it; labels are the same bytes as those of the folder."""
    write_jsonl(tmp_path / "dump.jsonl", papers(9))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": "hf_ada",
        "HF_HUB_DISABLE_XET": "1",
    }

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "arxivclf", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)

    done = run("push", model, NAME)
    commit = hub.repos[NAME].branches["main"]
    assert done.stdout == f"Pushed to {hub.url}/{NAME}/tree/{commit}\n"
    assert done.stderr == f"Pushing {model} to {NAME}\n"
    assert hub.files(NAME) == read(model) | {".gitattributes": hub.files(NAME)[".gitattributes"]}
    run("label", "dump.jsonl", "--model", f"{NAME}@{commit}", "-o", "there.parquet")
    assert cli("label", "dump.jsonl", "--model", model, "-o", "here.parquet").exit_code == 0
    assert (tmp_path / "there.parquet").read_bytes() == (tmp_path / "here.parquet").read_bytes()


def test_what_is_pushed_and_what_stays(cli: Callable[..., Result], model: Path, hub: Hub) -> None:
    shutil.copytree(model, "model")
    for stray in ("notes.txt", "token", ".env", ".hidden.safetensors", "optimizer.pt", "dump.jsonl", "tokenizer.bak"):
        Path("model", stray).write_text("not for others")
    Path("model", "checkpoint").mkdir()
    shutil.copy(model / "model.safetensors", "model/checkpoint")
    Path("model", "README.md").write_text("---\nlicense: mit\n---\n")
    Path("model", "training.csv").write_text("step,loss\n")
    hub.publish(
        NAME, {"model-00001-of-00002.safetensors": b"old", "merges.txt": b"old", "LICENSE": b"a", "sub/vocab.txt": b"b"}
    )
    pushed(cli("push", "model", NAME))
    ours = read(model) | {"README.md": b"---\nlicense: mit\n---\n", "training.csv": b"step,loss\n"}
    assert hub.files(NAME) == ours | {"LICENSE": b"a", "sub/vocab.txt": b"b"}


def test_all_that_a_model_is_loaded_from_is_pushed(model: Path) -> None:
    from arxivclf.model.hub import _files

    assert set(_files(model)) == {path.name for path in model.iterdir()}
    assert {path.name for pattern in MODEL_FILES for path in model.glob(pattern)} <= set(_files(model))


def test_the_same_again_changes_nothing(cli: Callable[..., Result], model: Path, hub: Hub) -> None:
    first = cli("push", model, NAME)
    again = cli("push", model, NAME, "-q")
    assert pushed(again) == pushed(first)
    assert again.output == f"Nothing has changed at {hub.url}/{NAME}/tree/{pushed(first)}\n"
    assert len(hub.repos[NAME].commits) == 2
    shutil.copytree(model, "model")
    Path("model/README.md").write_text("more to say\n")
    assert pushed(cli("push", "model", NAME)) != pushed(first)
    assert sum(request.startswith("PUT") for request in hub.requests) == 5, "large files go there once"


def test_private_and_branches(cli: Callable[..., Result], model: Path, hub: Hub) -> None:
    commit = pushed(cli("push", model, "observatory/robots", "--private", "--revision", "v2/try"))
    repo = hub.repos["observatory/robots"]
    assert repo.private
    assert repo.branches["v2/try"] == commit
    assert list(repo.commits[repo.branches["main"]]) == [".gitattributes"]
    assert pushed(cli("push", model, "observatory/robots", "--revision", "v2/try", "--private")) == commit
    write_jsonl(Path("dump.jsonl"), papers(3))
    assert cli("label", "dump.jsonl", "--model", "observatory/robots@v2/try", "-q").exit_code == 0
    assert "Invalid branch name" in error_line(cli("push", model, NAME, "--revision", "no name"), 1)
    assert "the name of a branch" in error_line(cli("push", model, NAME, "--revision", ""), 2)


def test_what_is_public_is_not_taken_for_private(cli: Callable[..., Result], model: Path, hub: Hub) -> None:
    hub.publish(NAME, {"LICENSE": b""})
    assert "is there already and public" in error_line(cli("push", model, NAME, "--private"), 1)
    assert hub.files(NAME) == {"LICENSE": b""}


@pytest.mark.parametrize("name", ["arxiv-ai", "a/b/c", "ada/", "ada/ai model", "ada/ai@v2", "ada/..", ""])
def test_bad_names(cli: Callable[..., Result], model: Path, hub: Hub, name: str) -> None:
    line = error_line(cli("push", model, name), 2)
    assert "no name of a repository on the hub, which is owner/name" in line
    assert ("--revision names a branch" in line) == ("@" in name)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("token", "name", "says"),
    [
        ("", NAME, "no token: `hf auth login`, or HF_TOKEN"),
        ("hf_nobody", NAME, "Invalid user token. The token from HF_TOKEN environment variable is invalid."),
        ("hf_ada_reads", NAME, "the token may only read; one that may write is made at"),
        ("hf_bob", NAME, "no such repository, and the token can make one only under bob"),
        ("hf_bob", "ada/public", "the token does not allow it: You don't have the rights to write to ada/public"),
        ("hf_bob", "ada/private", "no such repository, and the token can make one only under bob"),
        ("hf_mis\x07", NAME, "cannot be pushed to"),
    ],
)
@pytest.mark.parametrize("command", ["push", "train"])
def test_who_may_push(
    cli: Callable[..., Result],
    model: Path,
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    token: str,
    name: str,
    says: str,
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    hub.publish("ada/public", {"LICENSE": b""})
    hub.publish("ada/private", {"LICENSE": b""}, private=True)
    Path("dump.jsonl").write_text("it is not read\n")
    result = cli(command, *((model, name) if command == "push" else ("dump.jsonl", "--push", name)))
    assert says in error_line(result, 1)
    assert not token or token[:6] not in result.output
    assert all(list(repo.commits.values()) == [{"LICENSE": b""}] for repo in hub.repos.values())


def test_what_is_not_a_model_of_ours(cli: Callable[..., Result], model: Path, tiny_base: Path, hub: Hub) -> None:
    assert "no arxivclf.json there" in error_line(cli("push", tiny_base, NAME), 1)
    assert "no arxivclf.json there" in error_line(cli("push", "absent", NAME), 1)
    shutil.copytree(model, "linked")
    Path("linked/model.safetensors").rename("elsewhere.safetensors")
    Path("linked/model.safetensors").symlink_to(Path("elsewhere.safetensors").absolute())
    assert "is a link to what lies outside" in error_line(cli("push", "linked", NAME), 1)
    shutil.copytree(model, "coded")
    Path("coded/modeling.py").touch()
    assert "code of its own" in error_line(cli("push", "coded", NAME), 1)
    assert hub.requests == []


@pytest.mark.parametrize("command", ["push", "train"])
def test_no_hub_to_push_to(
    cli: Callable[..., Result], model: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    Path("dump.jsonl").write_text("it is not read\n")
    arguments = (command, *((model, NAME) if command == "push" else ("dump.jsonl", "--push", NAME)))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 cannot be reached: " in error_line(cli(*arguments), 1)
    go_offline(monkeypatch)
    assert "the client is set to be offline (HF_HUB_OFFLINE)" in error_line(cli(*arguments), 1)
    assert hub.requests == []


@pytest.mark.parametrize("part", ["/large/", "/commit/", "/preupload/", "/validate-yaml", "/repos/create"])
def test_a_push_that_fails_on_the_way(cli: Callable[..., Result], model: Path, hub: Hub, part: str) -> None:
    shutil.copytree(model, "model")
    Path("model/README.md").touch()
    hub.fail[part] = 403
    assert f"model: cannot be pushed to {NAME}: the token does not allow it" in error_line(
        cli("push", "model", NAME), 1
    )
    hub.fail.clear()
    assert pushed(cli("push", "model", NAME))


def test_trained_and_pushed(
    cli: Callable[..., Result], tiny_base: Path, model: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a base on the hub, in a revision, to a model on the hub."""
    hub.publish("lab/tiny-bert", read(tiny_base), branch="v1")
    hub.publish("lab/tiny-bert", {"config.json": b"{}"})
    how = ("--base", "lab/tiny-bert@v1", "--push", NAME, *TINY)
    result = cli("train", PAPERS, *how)
    commit = pushed(result)
    assert f"The model is in model; pushing it to {NAME}" in result.stderr
    assert hub.repos[NAME].branches["main"] == commit
    ours = read(Path("model"))
    assert hub.files(NAME).items() >= ours.items()
    assert json.loads(ours["arxivclf.json"])["settings"]["push"] == NAME
    assert ours["model.safetensors"] == (model / "model.safetensors").read_bytes(), "as from the folder of the base"


def test_a_trained_model_that_cannot_be_pushed_stays(cli: Callable[..., Result], tiny_base: Path, hub: Hub) -> None:
    hub.fail["/commit/"] = 403
    how = ("--base", tiny_base, "-o", "my models/ai", "--push", NAME, "--max-tokens", 16, "--epochs", 0.1)
    line = error_line(cli("train", PAPERS, *how), 1)
    assert "the token does not allow it: told to fail" in line
    assert f"the model is in my models/ai, and `arxivclf push 'my models/ai' {NAME}` pushes it again" in line
    hub.fail.clear()
    assert pushed(cli("push", "my models/ai", NAME))


def test_a_bad_name_ends_a_training_before_it_begins(cli: Callable[..., Result], hub: Hub) -> None:
    Path("dump.jsonl").write_text("it is not read\n")
    assert "no name of a repository" in error_line(cli("train", "dump.jsonl", "--push", "arxiv-ai"), 2)
    assert hub.requests == []


def test_the_cache_serves_without_a_hub(
    cli: Callable[..., Result], model: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = hub.publish(NAME, read(model))
    write_jsonl(Path("dump.jsonl"), papers(3))

    def label(name: str) -> Result:
        return cli("label", "dump.jsonl", "--model", name, "--overwrite", "-q")

    assert label(NAME).exit_code == 0
    hub.requests.clear()
    assert label(f"{NAME}@{commit}").exit_code == 0
    assert hub.requests == [], "a commit does not change"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert label(NAME).exit_code == 0
    assert "http://127.0.0.1:9 cannot be reached" in error_line(label("ada/other"), 1)
    go_offline(monkeypatch)
    assert label(NAME).exit_code == 0
    for absent in ("ada/other", f"{NAME}@v2"):
        line = error_line(label(absent), 1)
        assert f"{absent}: no such model folder, and cannot be had from the hub" in line
        assert "(HF_HUB_OFFLINE); and the cache does not hold all of it" in line
    next((Path("home") / "hub").rglob("snapshots/*/model.safetensors")).unlink()
    assert "the cache does not hold all of it" in error_line(label(NAME), 1)


@pytest.mark.parametrize(
    ("token", "name", "says"),
    [
        ("hf_bob", "ada/absent", "no such repository there, or a private one that takes another token"),
        ("hf_bob", "ada/private", "no such repository there, or a private one"),
        ("hf_bob", "ada/gated", "gated: its owner must let you in"),
        ("hf_bob", "ada/public@v9", "the repository has no such revision"),
        ("hf_nobody", "ada/public", "the hub does not accept the token (`hf auth login`, or HF_TOKEN)"),
        ("hf_bob", "ada/pickled", "ada/pickled: refused, for its weights are pickled (pytorch_model.bin)"),
        ("hf_bob", "ada/empty", "ada/empty: no weights there"),
        ("hf_bob", "ada/coded", "asks for code of the model's own"),
        ("hf_bob", "no..name", "no such model folder, and no name of a model on the hub"),
        ("hf_bob", "ada/..", "no such model folder, and no name of a model on the hub"),
    ],
)
@pytest.mark.parametrize("command", [("label", "dump.jsonl", "--model"), ("train", "dump.jsonl", "--base")])
def test_what_cannot_be_had(
    cli: Callable[..., Result],
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    token: str,
    name: str,
    says: str,
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    write_jsonl(Path("dump.jsonl"), papers(3))
    config = json.dumps({"model_type": "bert", "architectures": ["BertForSequenceClassification"]}).encode()
    hub.repos["ada/gated"] = Repo(gated=True)
    hub.publish("ada/private", {"config.json": config}, private=True)
    hub.publish("ada/public", {"config.json": config})
    hub.publish("ada/empty", {"config.json": config, "onnx/model.safetensors": b""})
    hub.publish("ada/pickled", {"config.json": config, "pytorch_model.bin": b"", "sub/model.safetensors": b""})
    asks = json.dumps({"auto_map": {}, **json.loads(config)}).encode()
    hub.publish("ada/coded", {"config.json": asks, "model.safetensors": b"", "modeling.py": b"1 / 0"})
    assert says in error_line(cli(*command, name), 1)
    had = {path.name for path in Path("home/hub").rglob("snapshots/*/**/*") if path.is_file()}
    assert had <= {"config.json", "model.safetensors"}
    assert not any("sub/" in request or "onnx/" in request for request in hub.requests)


def test_a_name_without_owner_that_moved(cli: Callable[..., Result], tiny_base: Path, hub: Hub) -> None:
    """As `bert-base-uncased` did, which the hub answers for under its new name."""
    hub.publish("lab/tiny-bert", read(tiny_base))
    hub.moved["tiny-bert"] = "lab/tiny-bert"
    write_jsonl(Path("dump.jsonl"), papers(100))
    result = cli("train", "dump.jsonl", "--base", "tiny-bert", "--max-tokens", 16, "--epochs", 0.1)
    assert result.exit_code == 0, result.output


def test_a_disk_that_is_full(cli: Callable[..., Result], hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("huggingface_hub.snapshot_download", full)
    write_jsonl(Path("dump.jsonl"), papers(3))
    assert "no space left on the disk" in error_line(cli("label", "dump.jsonl", "--model", NAME), 1)
