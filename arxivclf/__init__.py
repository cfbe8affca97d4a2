"""arxivclf: fine-tune a transformer on arXiv metadata, label dumps of millions of papers, see how good the labels are.

The public names are imported when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arxivclf.config import LabelSettings, TrainSettings
    from arxivclf.corpus.tasks import Task
    from arxivclf.errors import ArxivclfError
    from arxivclf.labelling.classifier import Classifier
    from arxivclf.labelling.run import label
    from arxivclf.model.hub import push
    from arxivclf.reporting.report import report
    from arxivclf.training.train import train

__version__ = "0.1.0"
__all__ = ["ArxivclfError", "Classifier", "LabelSettings", "Task", "TrainSettings", "label", "push", "report", "train"]

_HOMES = {
    "ArxivclfError": "arxivclf.errors",
    "Classifier": "arxivclf.labelling.classifier",
    "LabelSettings": "arxivclf.config",
    "Task": "arxivclf.corpus.tasks",
    "TrainSettings": "arxivclf.config",
    "label": "arxivclf.labelling.run",
    "push": "arxivclf.model.hub",
    "report": "arxivclf.reporting.report",
    "train": "arxivclf.training.train",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
