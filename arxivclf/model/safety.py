"""What must hold for a folder before anything is loaded from it: nothing in it may run code.

Weights are safetensors, never pickles, and a model that brings its own Python is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from arxivclf.corpus.seen import SEEN_FILE
from arxivclf.errors import ModelError

LINEAR_WEIGHTS = "linear.safetensors"
# Papers that a model is checked with (`backends`): safetensors, but no weights.
REFERENCE_FILE = "reference.safetensors"

_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")


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
    # Either may have transformers load pickled weights.
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            f"{folder}: refused, for it is an adapter (adapter_config.json), and not merged into its model"
        )
    config = read_json(folder / "config.json") if (folder / "config.json").exists() else {}
    for name in ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation"):
        if "/" in str(config.get(name, "")):
            raise ModelError(f"{folder}: refused, for config.json asks for code from a hub ({name})")
    for name in ("transformers_weights", "configuration_files"):
        if name in config:
            raise ModelError(f"{folder}: refused, for config.json names files of its own ({name})")
    own_code = sorted(folder.rglob("*.py"))
    if own_code:
        raise ModelError(f"{folder}: refused, for it brings code of its own ({own_code[0].name})")
    refuse_without_weights(str(folder), (path.name for path in folder.iterdir()))


def refuse_without_weights(name: str, files: Iterable[str]) -> None:
    """Raise ModelError if none of the files of a model holds weights as safetensors."""
    files = sorted(files)
    # Where there is a configuration there must be an encoder; the linear model alone has none.
    beside = (REFERENCE_FILE, SEEN_FILE, *([LINEAR_WEIGHTS] if "config.json" in files else []))
    if any(file.endswith(".safetensors") and file not in beside for file in files):
        return
    pickled = [file for file in files if file.endswith(_PICKLES)]
    if pickled:
        raise ModelError(
            f"{name}: refused, for its weights are pickled ({pickled[0]}) and could run code; safetensors cannot"
        )
    raise ModelError(f"{name}: no weights there (model.safetensors)")
