"""The Ray engine: the chunks of a dump are labelled by actors of Ray Data, on a cluster or on one started for the run.

The driver counts the dump, keeps the parts and makes the output, as the local engine does; an actor loads the models
once and labels the chunks that it is given, by the same function. What an actor, or a whole node, did not hand over
when it died, Ray gives to another. All must see the files of the dump and the models under the same names, and have
one version of this package.
"""

from __future__ import annotations

import importlib.util
import io
import json
import logging
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, astuple, dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl

import arxivclf
from arxivclf import errors
from arxivclf.config import LabelSettings
from arxivclf.corpus.rejects import Reject
from arxivclf.corpus.sources import Source, fetch, is_remote
from arxivclf.errors import ArxivclfError, DataError, DeviceError, MissingExtraError, ModelError, UsageError
from arxivclf.labelling.census import Place
from arxivclf.labelling.engine import Facts, Finished, Work, default_model, facts_of, load
from arxivclf.labelling.local import labelled_chunk
from arxivclf.labelling.parts import Part
from arxivclf.progress import Watcher

# How often a chunk is begun, at most; Ray itself would for ever start the workers again that one ends.
_ATTEMPTS = 4
# Threads that wait for each other make a worker slower than one: each has as many as it has cores.
_THREADS = ("OMP_NUM_THREADS", "POLARS_MAX_THREADS", "RAYON_NUM_THREADS")


class RayEngine:
    """A cluster; as a context it is joined, or started, and left again."""

    def __init__(self, settings: LabelSettings) -> None:
        """Raises MissingExtraError where Ray is not installed."""
        if importlib.util.find_spec("ray") is None:
            raise MissingExtraError("--engine ray needs its extra: pip install 'arxivclf[ray]'")
        self._settings = _absolute(settings)

    def __enter__(self) -> RayEngine:
        # Ray reports its use to its makers, and tells much, unless it is told not to.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_DATA_LOG_LEVEL", "CRITICAL")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        address = self._settings.ray_address
        if address not in (None, "auto", "local"):
            _check_address(address)
        try:
            with _silence():
                ray.init(
                    address=address or "local",
                    include_dashboard=None if address else False,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                )
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            where = f"no cluster at {address}" if address else "no cluster can be started here"
            raise UsageError(f"--engine ray: {where}: {_one_line(error)}") from None
        ray.data.DataContext.get_current().enable_progress_bars = False
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        ray.shutdown()

    @cached_property
    def facts(self) -> Facts:
        """Those of models that a worker has loaded: it may have another device than this machine."""
        import ray

        # One call to a process, which would else keep what it has on a GPU.
        asked = ray.remote(max_calls=1)(_facts).options(max_retries=2, **self._needs())
        with _worker_errors():
            found: Facts = ray.get(asked.remote(self._settings, arxivclf.__version__))
        return replace(found, told=f"{found.told}, by {_counted(self._workers())} of Ray")

    def told(self) -> str:
        """Nothing: workers are gone."""
        return ""

    def finished(
        self, work: Work, todo: frozenset[int], watcher: Watcher, wanted: threading.Event
    ) -> Generator[Finished, None, None]:
        """The chunks `todo`, labelled, in the order in which they come."""
        import ray

        if not todo:
            return
        from ray.exceptions import RayError

        workers = self._workers()
        name = f"arxivclf-{uuid.uuid4()}"
        register: Any = ray.remote(_Register).options(name=name, num_cpus=0, **_on_this_node()).remote()
        sources = tuple(replace(source, path=source.path.resolve()) for source in work.snapshot.sources)
        order = _Order(
            self._settings,
            replace(work, snapshot=replace(work.snapshot, sources=sources)),
            tuple(self.facts.fingerprints),
            arxivclf.__version__,
            name,
        )
        chunks = ray.data.from_items([{"chunk": number} for number in sorted(todo)], override_num_blocks=len(todo))
        labelled = chunks.map_batches(
            _Labeller,
            batch_size=1,
            fn_constructor_kwargs={"order": order},
            compute=ray.data.ActorPoolStrategy(min_size=1, initial_size=workers, max_size=workers),
            **self._needs(),
        )
        rows = iter(labelled.iter_rows())
        over = threading.Event()
        threading.Thread(target=_hand_on, args=(wanted, over, register), daemon=True).start()
        left = False
        try:
            with _worker_errors():
                for row in rows:
                    if row["error"]:
                        kind, message = json.loads(row["error"])
                        raise getattr(errors, kind)(message)
                    if not row["part"]:
                        left = True
                        continue
                    part = Part(**json.loads(row["part"]))
                    rejects = [Reject(*fields) for fields in json.loads(row["rejects"])]
                    watcher.advance(part.papers, rejects=len(rejects))
                    yield part, pl.read_parquet(io.BytesIO(row["labels"])), rejects
        finally:
            over.set()
            # Who leaves Ray in the middle of its work may be ended by it without a word: this is to the end, and
            # workers hand back at once what they have not done.
            register.end.remote()
            with suppress(RayError):
                for _ in rows:
                    pass
        if wanted.is_set():
            raise KeyboardInterrupt
        if left:
            raise DataError("--engine ray: workers lost touch with this run; what is done is kept, run it again")

    def _workers(self) -> int:
        """As many as were asked for, or as the cluster has cores, or GPUs, for."""
        if self._settings.workers is not None:
            return self._settings.workers
        there, needs = _resources(), self._needs()
        asked = {"GPU": needs.get("num_gpus", 0), "TPU": needs.get("resources", {}).get("TPU", 0)}
        for name, count in asked.items():
            if count:
                return max(1, int(there.get(name, 0) // count))
        return max(1, int(there.get("CPU", 1)))

    def _needs(self) -> dict[str, Any]:
        """What a worker takes of a node: a core, and a GPU or a TPU where the device is one, or may be."""
        there, device = _resources(), self._settings.device
        needs: dict[str, Any] = {"num_cpus": 1, "runtime_env": {"env_vars": dict.fromkeys(_THREADS, "1")}}
        for name, kind in (("GPU", "cuda"), ("TPU", "tpu")):
            if device == kind and not there.get(name):
                raise DeviceError(f"--device {device}: no node of the cluster has a {name}")
            if device == kind or (device == "auto" and there.get(name)):
                return needs | ({"num_gpus": 1} if name == "GPU" else {"resources": {"TPU": 1}})
        return needs


@dataclass(frozen=True)
class _Order:
    """All that a worker needs to label any chunk.

    `models` are the fingerprints that its models must have, `register` is the name of the actor of that class.
    """

    settings: LabelSettings
    work: Work
    models: tuple[Mapping[str, str], ...]
    version: str
    register: str


class _Register:
    """An actor beside the driver that says whether the run is over, and counts how often each chunk was begun."""

    def __init__(self) -> None:
        self._over = False
        self._begun: dict[int, int] = {}

    def end(self) -> None:
        self._over = True

    def over(self) -> bool:
        return self._over

    def begin(self, number: int) -> int:
        """How often this chunk has been begun, now included."""
        self._begun[number] = self._begun.get(number, 0) + 1
        return self._begun[number]


class _OverError(Exception):
    """The run is over, and this worker is in the middle of a chunk."""


def _hand_on(wanted: threading.Event, over: threading.Event, register: Any) -> None:
    """Tell the workers when a stop is wanted, even while the driver waits for them, until the run is over."""
    while not over.wait(0.1):
        if wanted.is_set():
            register.end.remote()
            return


class _Labeller:
    """An actor: models that are loaded, and a dump that is read onwards from chunk to chunk."""

    def __init__(self, order: _Order) -> None:
        self._order = order
        self._loaded = False
        self._failed = b""
        self._asked_at = time.monotonic()

    def _load(self) -> None:
        """At the first chunk, where an error can be handed on."""
        order, work = self._order, self._order.work
        _check_version(order.version)
        # It goes when this worker does: Ray deletes what it was given.
        self._copies = TemporaryDirectory(prefix="arxivclf-") if any(map(_is_copied, work.snapshot.sources)) else None
        sources = tuple(self._here(source) for source in work.snapshot.sources)
        _check_sources(sources, work.fingerprints)
        self._classifier = _loaded(order.settings)
        if [model.fingerprint for model in self._classifier.models] != list(order.models):
            raise ModelError(
                f"worker {socket.gethostname()}: its models are others, or computed otherwise, than those of the first"
                " worker; name a device that all have (--device cpu)"
            )
        self._snapshot = replace(work.snapshot, sources=sources)
        self._next = -1
        self._read: Iterator[tuple[Place, pl.DataFrame, list[Reject]]] = iter(())
        self._at = -1
        self._loaded = True

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[bytes]]:
        (number,) = batch["chunk"].tolist()
        try:
            if not self._failed:
                self._stop_if_over()
                self._begin(int(number))
                return self._labelled(int(number))
        except _OverError:
            return _row()
        except ArxivclfError as error:
            # Of what is raised here Ray hands on the text alone, with much around it.
            self._failed = json.dumps([type(error).__name__, str(error)]).encode()
        return _row(error=self._failed)

    def _begin(self, number: int) -> None:
        if self._asked("begin", number) > _ATTEMPTS:
            raise DataError(
                f"worker {socket.gethostname()}: chunk {number:,} ended its worker {_ATTEMPTS} times, most likely for"
                " lack of memory; a smaller --chunk-rows may help"
            )

    def _stop_if_over(self, papers: int = 0) -> None:
        """_OverError once the run is over; asked once a second at most while papers are labelled."""
        if papers and time.monotonic() - self._asked_at < 1.0:
            return
        if self._asked("over"):
            raise _OverError

    def _asked(self, what: str, *about: int) -> Any:
        import ray
        from ray.exceptions import RayError

        self._asked_at = time.monotonic()
        try:
            return ray.get(getattr(ray.get_actor(self._order.register), what).remote(*about))
        except (RayError, ValueError):
            # It is where the driver is: without it there is no run.
            raise _OverError from None

    def _labelled(self, number: int) -> dict[str, list[bytes]]:
        if not self._loaded:
            self._load()
        place, papers, rejects = self._chunk(number)
        prepared = self._classifier.prepare(papers) if len(papers) else None
        layout, advance = self._order.work.layout, self._stop_if_over
        part, table, rejects = labelled_chunk(place, prepared, rejects, self._classifier, layout, advance)
        buffer = io.BytesIO()
        table.write_parquet(buffer)
        told = json.dumps([astuple(one) for one in rejects]).encode()
        return _row(part=json.dumps(asdict(part)).encode(), labels=buffer.getvalue(), rejects=told)

    def _here(self, source: Source) -> Source:
        """A file of a remote store as a copy of this worker's own; any other as it is."""
        if self._copies is None or not _is_copied(source):
            return source
        folder = Path(self._copies.name, source.path.name)
        folder.mkdir()
        return fetch([source.name], folder)[0]

    def _chunk(self, number: int) -> tuple[Place, pl.DataFrame, list[Reject]]:
        """Chunks come mostly in their order, so that the file is read on, and those of others are passed over."""
        if number <= self._at:
            self._read = iter(())
        self._next = number
        if (found := next(self._read, None)) is None:
            census, rows = self._order.work.census, self._order.settings.chunk_rows
            self._read = census.chosen(self._snapshot, rows, lambda each: each == self._next)
            found = next(self._read)
        self._at = number
        return found


def _row(error: bytes = b"", part: bytes = b"", labels: bytes = b"", rejects: bytes = b"") -> dict[str, list[bytes]]:
    """What a worker hands on of a chunk, as Ray has it: an error, or a part with its files, or nothing of either."""
    return {"error": [error], "part": [part], "labels": [labels], "rejects": [rejects]}


@contextmanager
def _silence() -> Iterator[None]:
    """Ray's core says at its start how much it will say."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def _check_address(address: str) -> None:
    """Ray itself tries for minutes where nobody answers."""
    if address.startswith("ray://"):
        raise UsageError(
            f"--engine ray: {address}: Ray's client cannot do this; start it on a node of the cluster, with auto or the"
            " host:port of its head"
        )
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, ValueError) as error:
        why = "its form is host:port" if isinstance(error, ValueError) else error.strerror or str(error)
        raise UsageError(f"--engine ray: no cluster at {address}: {why}") from None


def _on_this_node() -> dict[str, Any]:
    """That an actor lives where the driver does, so that it is there as long as this is."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False)}


def _resources() -> dict[str, float]:
    import ray

    return dict(ray.cluster_resources())  # type: ignore[no-untyped-call]


def _facts(settings: LabelSettings, version: str) -> Facts:
    _check_version(version)
    return facts_of(settings, _loaded(settings))


def _loaded(settings: LabelSettings) -> Any:
    for name in settings.model:
        if Path(name).is_absolute() and not Path(name).exists():
            raise ModelError(f"{name}: worker {socket.gethostname()} does not see it; it must lie on shared storage")
    return load(settings)


def _check_version(version: str) -> None:
    if arxivclf.__version__ != version:
        raise UsageError(
            f"worker {socket.gethostname()} has arxivclf {arxivclf.__version__}, this machine {version}: install the"
            " same on all"
        )


def _is_copied(source: Source) -> bool:
    return not source.name.startswith("/") and is_remote(source.name)


def _check_sources(sources: Sequence[Source], fingerprints: Sequence[str]) -> None:
    for source, fingerprint in zip(sources, fingerprints, strict=True):
        host = socket.gethostname()
        if not source.path.exists():
            raise DataError(f"{source.name}: worker {host} does not see it; the dump must lie on shared storage")
        if source.fingerprint() != fingerprint:
            raise DataError(f"{source.name}: worker {host} sees another file of this name")


def _absolute(settings: LabelSettings) -> LabelSettings:
    """Files by names that mean the same in a worker, whose folder is another."""

    def there(name: str) -> str:
        return str(Path(name).resolve()) if Path(name).exists() else name

    return replace(
        settings,
        model=tuple(map(there, settings.model or (default_model(),))),
        task=tuple(there(name) if name.endswith(".toml") else name for name in settings.task),
        reuse=there(settings.reuse) if settings.reuse is not None else None,
    )


@contextmanager
def _worker_errors() -> Iterator[None]:
    """What went wrong in a worker, as the error that it was there; in one line, whatever it was."""
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        waiting: list[Any] = [error]
        seen: list[Any] = []
        while waiting:
            one = waiting.pop()
            if one is None or one in seen:
                continue
            seen.append(one)
            if isinstance(one, ArxivclfError):
                raise type(one)(str(one)) from None
            waiting += [getattr(one, name, None) for name in ("cause", "__cause__", "__context__")]
        if "No module named 'arxivclf" in str(error):
            raise UsageError(
                f"a worker has no arxivclf, or another version: install {arxivclf.__version__} on all"
            ) from None
        raise DataError(f"--engine ray: a worker failed: {_one_line(error)}") from None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[-300:]


def _counted(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"
