"""Where the figures of a training are written while it goes on, if asked for: TensorBoard, Weights & Biases."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from arxivclf.errors import MissingExtraError, UsageError, one_line

# Called with figures by name and the count of steps done.
Track = Callable[[Mapping[str, float], int], None]


def check(names: Sequence[str]) -> None:
    """Raise MissingExtraError at once where one of the trackers is not installed."""
    for name in names:
        try:
            if name == "tensorboard":
                from torch.utils.tensorboard import SummaryWriter  # noqa: F401
            else:
                import wandb  # noqa: F401
        except ImportError:
            raise MissingExtraError(f"--track {name} needs its extra: pip install 'arxivclf[{name}]'") from None


@contextmanager
def tracking(names: Sequence[str], folder: Path, settings: Mapping[str, Any]) -> Iterator[Track]:
    """A function that writes figures to all trackers; what they keep on disk goes into `<model>.runs`.

    Trackers are opened for the first figures, so that a training that is stopped before writes nothing.
    """
    check(names)
    tracks: list[Track] = []
    with ExitStack() as opened:

        def track(figures: Mapping[str, float], step: int) -> None:
            if not tracks:
                tracks.extend(_OPEN[name](folder.with_name(f"{folder.name}.runs"), settings, opened) for name in names)
            for write in tracks:
                write(figures, step)

        yield track


def _tensorboard(folder: Path, settings: Mapping[str, Any], opened: ExitStack) -> Track:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder))
    opened.callback(writer.close)
    writer.add_text("settings", "\n".join(f"    {name} = {value}" for name, value in settings.items()))

    def track(figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, step)

    return track


def _wandb(folder: Path, settings: Mapping[str, Any], opened: ExitStack) -> Track:
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    try:
        run = wandb.init(
            project="arxivclf", dir=str(folder), config=dict(settings), settings=wandb.Settings(silent=True)
        )
    except (wandb.errors.UsageError, wandb.errors.CommError) as error:
        raise UsageError(f"--track wandb: {one_line(error)}") from None
    opened.callback(run.finish)
    return lambda figures, step: run.log(dict(figures), step=step)


_OPEN: Mapping[str, Callable[[Path, Mapping[str, Any], ExitStack], Track]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
}
