"""The job of a run: what decides the bytes of its output, so that two runs can tell whether they are one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import arxivclf
from arxivclf.config import LabelSettings
from arxivclf.corpus.rejects import holds_rejects
from arxivclf.corpus.sources import STANDARD_INPUT, Source, is_remote, remote_exists
from arxivclf.errors import DataError, UsageError
from arxivclf.files import whole_file
from arxivclf.labelling.engine import Facts
from arxivclf.labelling.parts import Job, Part, Parts
from arxivclf.labelling.sink import FORMS, STANDARD_OUTPUT, form_of, is_whole, read_job
from arxivclf.model import training_range
from arxivclf.model.classifier import COMPUTED
from arxivclf.model.gate import Gate

# Settings that decide what is written; the others decide where, or whether at all.
_DECIDING = ("keep", "limit", "chunk_rows", "keep_duplicates", "id_column", "text_column", "label_column")


@dataclass(frozen=True)
class LabelSummary:
    """What a run did: where the labels are, how many papers got each label, how many rows were rejected, and why.

    `decided` counts who decided, `seen` the papers that models met in training. `papers_now` are the papers that this
    run labelled itself, in `seconds`; the others it found done. `gates` are those of labels that have one; `bound` is
    their risk, the largest share of a label's papers that the gate may change, relative to those that the model labels
    without it (None without a gate). `waits_for` says which chunks other shards have yet to label before there is an
    output; "" where there is one. `outside` counts papers outside of the years and archives that a model was trained
    on, and `warnings` are sentences on those that are a substantial share. `prevalence` has by label the `target` that
    scores were shifted to, and the prevalence that they were `fitted` at; empty where they were not shifted.
    """

    output: str
    rejects_file: str | None
    papers: int
    labelled: Mapping[str, int]
    decided: Mapping[str, int]
    rejects: Mapping[str, int]
    ids_restored: int
    seen: Mapping[str, int]
    papers_now: int
    seconds: float
    bound: float | None = None
    waits_for: str = ""
    gates: Mapping[str, Gate] = field(default_factory=dict)
    outside: Mapping[str, int] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    prevalence: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        parts: Sequence[Part],
        output: str,
        rejects_file: str | None,
        papers_now: int,
        seconds: float,
        gates: Mapping[str, Gate] | None = None,
        waits_for: str = "",
        prevalence: Mapping[str, Mapping[str, float]] | None = None,
    ) -> LabelSummary:
        """The summary of all parts of a job."""
        rejects, papers = _total(part.reasons for part in parts), sum(part.papers for part in parts)
        outside = _total(part.outside for part in parts)
        return cls(
            output,
            rejects_file if rejects else None,
            papers,
            _total(part.labelled for part in parts),
            _total(part.decided for part in parts),
            dict(sorted(rejects.items(), key=lambda item: (-item[1], item[0]))),
            sum(part.ids_restored for part in parts),
            _total(part.seen for part in parts),
            papers_now,
            seconds,
            max((gate.risk for gate in (gates or {}).values()), default=None),
            waits_for,
            gates or {},
            outside,
            training_range.warnings(outside, papers),
            prevalence or {},
        )


def describe(settings: LabelSettings, sources: Sequence[Source], facts: Facts) -> Job:
    """The job as JSON. Inputs and models stand by their content, so that a new name or place changes nothing."""
    everything = asdict(settings)
    return {
        "version": arxivclf.__version__,
        "input": [source.fingerprint() for source in sources],
        "models": [dict(one) for one in facts.fingerprints],
        "labels": dict(facts.thresholds),
        "categories": dict(facts.categories),
        "evaluation": {name: dict(counts) for name, counts in facts.evaluation.items()},
        "settings": {
            name: list(everything[name]) if isinstance(everything[name], tuple) else everything[name]
            for name in _DECIDING
        },
        "reuse": facts.reuse,
        # Absent where scores are not shifted, so that labels from before this option are still those of the same job.
        **(
            {"prevalence": {name: dict(shares) for name, shares in facts.prevalence.items()}}
            if facts.prevalence
            else {}
        ),
    }


class Unchanged:
    """The files of a dump, which must stay as they are from their fingerprints on until the labels are made."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._states = self._now()

    def refuse_change(self, fingerprints: Sequence[str], parts: Parts | None) -> None:
        """Raise DataError, and forget what was made, where a file is another than it was when these were taken."""
        now = self._now()
        if now == self._states:
            return
        # Maybe it was only touched.
        if [source.fingerprint() for source in self._sources] != list(fingerprints):
            if parts is not None:
                parts.forget()
            names = ", ".join(source.name for source in self._sources)
            raise DataError(f"{names}: changed while it was read; label it again when it is whole")
        self._states = now

    def _now(self) -> list[tuple[int, int]]:
        """Size and time of change of each file: while they stay the same, so does what is read."""
        return [(found.st_size, found.st_mtime_ns) for found in (source.path.stat() for source in self._sources)]


def footer(job: Job, parts: Sequence[Part]) -> dict[str, Any]:
    """What Parquet labels hold in their footer: the job, and the parts that they were made of."""
    return {"job": job, "parts": [asdict(part) for part in parts]}


def record(output: str, made: Mapping[str, Any] | None) -> None:
    """Keep the footer of labels whose form has none, in a small file beside them; None takes an old one away.

    It is there only while it is true: away before the labels change, back after; and it tells which bytes it is of.
    """
    if is_remote(output) or form_of(output) == ".parquet":
        return
    if made is None:
        record_of(output).unlink(missing_ok=True)
        return
    with whole_file(record_of(output)) as file:
        file.write(json.dumps({**made, "output": Source(output, Path(output)).fingerprint()}).encode())


def already_done(output: str, job: Job) -> list[Part] | None:
    """The parts of a finished output of the same job; None where there is no such output, or it is not whole."""
    found = _found(output)
    if found is None or found["job"] != job:
        return None
    parts = [Part(**part) for part in found["parts"]]
    if form_of(output) == ".parquet" and not is_whole(Path(output), sum(part.papers for part in parts)):
        return None
    return parts


def _found(output: str) -> dict[str, Any] | None:
    """What labels that are there say of their job; None where there are none, or they say nothing."""
    if is_remote(output) or not Path(output).exists():
        return None
    try:
        if form_of(output) == ".parquet":
            return read_job(Path(output))[0]
        found: dict[str, Any] = json.loads(record_of(output).read_bytes())
        return found if found.get("output") == Source(output, Path(output)).fingerprint() else None
    except (DataError, OSError, ValueError):
        return None


def record_of(output: str) -> Path:
    return Path(f"{output}.job.json")


def refuse_other(parts: Parts, output: str, job: Job, overwrite: bool) -> None:
    """Raise UsageError if going on would do away with the labels, or the unfinished run, of another job."""
    if overwrite:
        return
    unfinished = parts.job()
    if unfinished is not None and job not in parts.jobs():
        raise UsageError(
            f"{output}: an unfinished run of it differs in {_differences(job, unfinished)}; --overwrite starts anew,"
            " -o names another file"
        )
    if remote_exists(output) if is_remote(output) else Path(output).exists():
        found = _found(output)
        if found is None and job in parts.jobs():
            # Ours, cut off before it told so.
            return
        why = ""
        if found is not None:
            differ = _differences(job, found["job"])
            why = f" and differs in {differ}" if differ else ", but damaged"
        raise UsageError(f"{output}: there already{why}; --overwrite replaces it, -o names another file")


def refuse_foreign_rejects(rejects: str) -> None:
    """Raise UsageError if the rejects would take the place of something else."""
    if not is_remote(rejects) and not holds_rejects(Path(rejects)):
        raise UsageError(f"{rejects}: there already, and no rejects of ours; --rejects names another file")


def refuse_rejects_of_others(output: str, rejects: str, job: Job) -> None:
    """Raise UsageError if the rejects are those of labels of another dump, which have the same name in another form."""
    if is_remote(output) or is_remote(rejects) or Path(output).exists() or not Path(rejects).exists():
        return
    for other in (output.removesuffix(form_of(output) or "") + form for form in FORMS):
        found = _found(other) if rejects == rejects_of(other) else None
        if found is not None and found["job"]["input"] != job["input"]:
            raise UsageError(f"{rejects}: holds what was rejected for {other}; --rejects names another file")


def refuse_input_as_output(names: Sequence[str], output: str, rejects: str, reuse: str | None) -> None:
    """Raise UsageError if the labels or the rejects would take the place of the dump, or of what is reused."""
    if reuse is not None and Path(output).resolve() == Path(reuse).resolve():
        raise UsageError(f"{output}: is what --reuse takes scores from; -o names another file")
    inputs = {Path(name).resolve() for name in names if name != STANDARD_INPUT and not is_remote(name)} | set(names)
    for path in (output, rejects):
        if path != STANDARD_OUTPUT and (path in inputs or Path(path).resolve() in inputs):
            raise UsageError(f"{path}: is the dump itself; -o names another file")
    if Path(output).resolve() == Path(rejects).resolve():
        raise UsageError(f"{rejects}: labels and rejects cannot go into one file")


def rejects_of(output: str) -> str:
    """Where the rejects of an output go unless told otherwise: `ai.rejects.jsonl` for `ai.parquet`."""
    if output == STANDARD_OUTPUT:
        return "stdout.rejects.jsonl"
    return output.removesuffix(form_of(output) or "") + ".rejects.jsonl"


def _differences(ours: Job, theirs: Job) -> str:
    found = []
    for name in ours | theirs:
        mine, other = ours.get(name), theirs.get(name)
        if isinstance(mine, dict) and isinstance(other, dict):
            unequal = [key for key in mine | other if mine.get(key) != other.get(key)]
            found += [_unequal(name, key, other.get(key), mine.get(key)) for key in unequal]
        elif mine != other:
            found.append(_of_models(mine or (), other or ()) if name == "models" else f"the {name}")
    return ", ".join(found)


def _unequal(table: str, key: str, then: Any, now: Any) -> str:
    if table == "categories":
        then, now = (" ".join(one or ()) or "nothing" for one in (then, now))
        return f"what makes {key} true ({then} then, {now} now)"
    if table == "evaluation":
        return f"the evaluation of {key} on the model's test split"
    if table == "prevalence":
        then, now = (of["target"] if of else "as fitted" for of in (then, now))
        return f"the prevalence of {key} ({then} then, {now} now)"
    return f"{key} ({then} then, {now} now)"


def _of_models(ours: Sequence[Mapping[str, str]], theirs: Sequence[Mapping[str, str]]) -> str:
    """How models differ, in words, by their fingerprints: most are computed otherwise than they were."""

    def by_content(models: Sequence[Mapping[str, str]]) -> list[object]:
        # Whoever wrote labels that are there may have had another form of fingerprints.
        return [{**model, COMPUTED: ""} if isinstance(model, Mapping) else model for model in models]

    if by_content(ours) != by_content(theirs):
        return "the models"
    now, then = (", ".join(model.get(COMPUTED, "unknown") for model in models) for models in (ours, theirs))
    return f"how the models are computed ({then} then, {now} now: another processor, or other extras)"


def _total(counts: Any) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in counts:
        for name, count in one.items():
            total[name] = total.get(name, 0) + count
    return total
