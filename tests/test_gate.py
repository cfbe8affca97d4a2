"""The gate: its bound holds, it decides as its evidence says, and a model of it alone needs no torch."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result
from conftest import DATA, PAPERS, TINY, error_line, paper, papers, real_data, write_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array
from scipy.stats import binomtest

from arxivclf import Classifier, Task, TrainSettings, report
from arxivclf.cli import main
from arxivclf.corpus.rejects import RejectsFile
from arxivclf.corpus.text import compose
from arxivclf.model.calibration import calibrated, fit, sigmoid
from arxivclf.model.folder import ModelInfo
from arxivclf.model.gate import Blend, Gate, GateSample, fewest_labelled, find_gates, fit_blend, upper_bound
from arxivclf.model.labels import BY_ENCODER, BY_GATE
from arxivclf.model.linear import Linear
from arxivclf.progress import Watcher
from arxivclf.reporting.metrics import best_threshold
from arxivclf.training import linear
from arxivclf.training.dataset import Dataset, collect
from arxivclf.training.joint import Joint

ALONE = ("--base", "none", "--since", "1990", "-q")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without an encoder, of the example papers. Do not write into it."""
    folder = tmp_path_factory.mktemp("alone") / "model"
    run("train", str(PAPERS), *ALONE, "-o", str(folder))
    return folder


WITHOUT_TORCH = """
import sys
from arxivclf.cli import main
try:
    main()
except SystemExit as left:
    heavy = {"torch", "transformers", "tokenizers"} & set(sys.modules)
    sys.exit(f"{heavy} imported" if heavy else left.code)
"""


def run(*arguments: str, cwd: Path | None = None) -> str:
    """The program in a process of its own, which must not import torch or transformers."""
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def population(papers: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Linear scores, and the labels of a model that agrees with them the less, the nearer they are to the threshold."""
    random = np.random.default_rng(seed)
    logits = random.normal(-3.0, 4.0, papers)
    labels = logits + random.standard_t(3, papers) > 0.0
    return (1 / (1 + np.exp(-logits))).astype(np.float32), labels


@given(st.integers(0, 60), st.integers(1, 20_000))
def test_the_bound_is_the_exact_binomial_one(events, papers):
    events = min(events, papers)
    bound = upper_bound(events, papers)

    exact = binomtest(events, papers, alternative="less").proportion_ci(0.95, method="exact").high
    assert bound == pytest.approx(exact, rel=1e-6)


def changed(gate: Gate, scores: np.ndarray, labels: np.ndarray, threshold: float) -> float:
    """Lost and gained labels as a share of the papers that are labelled without the gate."""
    differs = gate.decides(scores) & ((scores >= threshold) != labels)
    return float(differs.sum() / labels.sum())


def assert_few_broken(broken: int, draws: int) -> None:
    """Five in a hundred, and what chance may add to that once in a thousand tests."""
    assert binomtest(broken, draws, 0.05, alternative="greater").pvalue > 0.001


def assert_the_bound_holds(scores: np.ndarray, labels: np.ndarray, threshold: float, risk: float) -> None:
    """Draw validation papers from a population, fit a gate to them, and measure its risk on the population."""
    random = np.random.default_rng(2)
    draws, broken, gates = 400, 0, 0
    for _ in range(draws):
        drawn = random.integers(0, len(scores), 4_000)
        gate = find_gates({"ai": GateSample(scores[drawn], labels[drawn], threshold)}, risk)["ai"]
        if gate is not None:
            gates += 1
            broken += changed(gate, scores, labels, threshold) > risk
            assert gate.bound <= risk

    assert gates > draws / 2
    assert_few_broken(broken, draws)


def test_the_bound_is_broken_no_more_often_than_the_confidence_allows():
    assert_the_bound_holds(*population(400_000, seed=1), threshold=0.5, risk=0.02)


def test_the_bound_holds_for_all_labels_at_once():
    """Five labels: in 95 % of draws none of them breaks its bound."""
    names = ("ai", "cv", "nlp", "robotics", "cyber")
    labels = {name: population(100_000, seed) for seed, name in enumerate(names)}
    random = np.random.default_rng(3)
    draws, broken = 200, 0
    for _ in range(draws):
        drawn = random.integers(0, 100_000, 2_500)
        samples = {name: GateSample(scores[drawn], given[drawn], 0.5) for name, (scores, given) in labels.items()}
        gates = find_gates(samples, 0.02)
        risks = [changed(gate, *labels[name], 0.5) for name, gate in gates.items() if gate is not None]
        assert len(risks) == 5
        broken += max(risks) > 0.02

    assert_few_broken(broken, draws)


def logits_of_two_models(prevalence: float, papers: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correlated logits of a linear model and of a better encoder, and the ground truth, each (papers,)."""
    random = np.random.default_rng(seed)
    truth = random.random(papers) < prevalence
    noise = random.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], papers)
    prior = np.log(prevalence / (1 - prevalence))
    # Log-odds whose noise has the standard deviation s are calibrated where the classes are s squared apart.
    linear_logits, encoder_logits = (
        prior + spread**2 * (truth - 0.5) + spread * noise[:, at] for at, spread in enumerate((3.0, 3.5))
    )
    return linear_logits, encoder_logits, truth


@pytest.mark.parametrize(
    ("prevalence", "papers", "population_size"),
    [(0.12, 2_500, 60_000), (0.02, 15_000, 120_000), (0.005, 60_000, 400_000)],
)
def test_the_bound_holds_when_everything_is_fitted_on_the_same_papers(
    prevalence: float, papers: int, population_size: int
):
    """Stacking weights, calibrations, threshold and gate from one validation sample, as in a training."""
    draws, risk = 50, 0.02
    linear_logits, encoder_logits, truth = logits_of_two_models(prevalence, population_size, seed=1)
    random = np.random.default_rng(5)
    broken, decided = 0, []
    for _ in range(draws):
        drawn = random.integers(0, population_size, papers)
        true = truth[drawn]
        blend = fit_blend(encoder_logits[drawn], linear_logits[drawn], true)
        stacked = blend.logits(encoder_logits, linear_logits)
        calibrations = [fit(logits[drawn], true, "platt") for logits in (stacked, linear_logits)]
        scores, linear_scores = calibrated(np.stack([stacked, linear_logits], axis=1), calibrations).T
        threshold = best_threshold(true, scores[drawn])
        labels = scores >= threshold
        gate = find_gates({"ai": GateSample(linear_scores[drawn], labels[drawn], threshold)}, risk)["ai"]
        if gate is not None:
            broken += changed(gate, linear_scores, labels, threshold) > risk
            decided.append(gate.decides(linear_scores).mean())

    assert len(decided) > 0.9 * draws
    assert np.mean(decided) > 0.5
    assert_few_broken(broken, draws)


@real_data
def test_the_bound_holds_for_real_papers():
    """A small linear model in front of the bundled one, on papers that neither was trained on."""
    papers = pl.read_parquet(DATA / "cset-ai-dev.parquet")
    (bundled,) = Classifier.load("bundled").models
    logits = bundled.linear_logits(papers["text"])
    labels = bundled.scores(logits, bundled.undecided(logits), [])[:, 0] >= bundled.thresholds["ai"]

    known = pl.read_parquet(DATA / "arxiv-train.parquet").gather_every(30)
    truth = known["categories"].str.contains(r"cs\.(AI|CL|CV|LG|MA|RO)|stat\.ML").to_numpy()
    counted = linear.features(compose(known.with_columns(text=None), "cset2020"), Watcher())
    small = linear.fit(counted, truth[:, None].astype(np.float32), Watcher())
    scores = sigmoid(small.logits_of_many(papers["text"])[:, 0].astype(np.float64)).astype(np.float32)

    assert 0.01 < ((scores >= 0.3) != labels).mean() < 0.1
    assert_the_bound_holds(scores, labels, threshold=0.3, risk=0.1)


def test_a_gate_has_its_evidence():
    scores, labels = population(10_000, seed=3)
    gate = find_gates({"ai": GateSample(scores, labels, 0.5)}, 0.02)["ai"]

    assert gate is not None
    decided = gate.decides(scores)
    assert gate.decided == decided.mean() > 0.3
    assert gate.papers == 10_000
    assert gate.labelled == labels.sum()
    assert gate.lost == (decided & (scores < 0.5) & labels).sum() > 0
    assert gate.gained == (decided & (scores >= 0.5) & ~labels).sum() > 0
    share = upper_bound(gate.lost + gate.gained, gate.labelled + gate.gained)
    assert gate.bound == pytest.approx(share / (1 - share))
    assert gate.bound <= gate.risk == 0.02
    assert gate.low < 0.5 <= gate.high
    assert Gate.from_dict(json.loads(json.dumps(gate.as_dict()))) == gate


def flawless(labelled: int, others: int = 50) -> GateSample:
    """Papers on which the linear model never differs."""
    labels = np.arange(labelled + others) < labelled
    return GateSample(np.where(labels, 0.9999, 0.0001).astype(np.float32), labels, 0.5)


def test_too_few_labelled_papers_make_no_gate():
    # 152 labelled papers without a change are the fewest for one label: (1 / 1.02)^n = 0.05.
    assert fewest_labelled(0.02) == 152
    assert find_gates({"ai": flawless(151, others=5_000)}, 0.02)["ai"] is None
    assert find_gates({"ai": flawless(152)}, 0.02)["ai"] is not None
    # Several labels at one margin take 163, each: (1 / 1.02)^n = 0.04.
    assert fewest_labelled(0.02, 5) == 163
    names = ("ai", "cv", "nlp", "robotics", "cyber")
    assert all(find_gates(dict.fromkeys(names, flawless(163)), 0.02).values())
    assert not any(find_gates(dict.fromkeys(names, flawless(162)), 0.02).values())
    # A rare label does not take away the gates of those with papers enough, (1 / 1.02)^n = 0.01 / 5, to stand alone.
    gates = find_gates(dict.fromkeys(names, flawless(314)) | {"cyber": flawless(100)}, 0.02)
    assert [name for name, gate in gates.items() if gate is None] == ["cyber"]
    assert find_gates({"ai": flawless(0, others=0)}, 0.02)["ai"] is None


def test_a_label_without_a_gate_is_named_with_the_papers_it_would_take(tmp_path: Path):
    joint = trained_jointly(tmp_path, gate_risk=0.02)

    assert joint.cascade.gates == ()
    (line,) = [line for line in joint.told if line.startswith("ai: no gate")]
    fewest, labelled, papers, needed = (
        int(number) for number in re.findall(r"(?<!\S)\d+(?!\S)", line.replace(",", ""))
    )
    assert (fewest, papers) == (163, 100)
    assert 163 * 100 / labelled <= needed < 1.1 * 163 * 100 / labelled


def test_a_blend_takes_what_helps():
    random = np.random.default_rng(0)
    truth = random.random(4_000) < 0.3
    one, other = (np.where(truth, 1.0, -1.0) + random.normal(0, 2, 4_000) for _ in range(2))
    both = fit_blend(one, other, truth)

    assert both.encoder == pytest.approx(both.linear, rel=0.2)
    assert fit_blend(one, -other, truth) == Blend()


def test_trained_and_used_without_torch(alone: Path, tmp_path: Path):
    said = run("label", str(PAPERS), "--model", str(alone), "-o", "ai.parquet", cwd=tmp_path)
    labels = pl.read_parquet(tmp_path / "ai.parquet")

    assert labels.get_column("decided_by").unique().to_list() == [BY_GATE]
    assert f"gate {len(labels)} (100.0%)" in said
    assert (labels.get_column("ai") == labels.get_column("ai_truth")).mean() > 0.85
    assert not ModelInfo.read(alone).has_encoder
    assert not list(alone.glob("model.safetensors"))
    assert "the linear model alone" in (alone / "README.md").read_text()


def test_one_who_names_no_model_gets_the_bundled_one(tmp_path: Path):
    said = run("label", str(PAPERS), "-o", "all.parquet", cwd=tmp_path)
    labels = pl.read_parquet(tmp_path / "all.parquet")

    assert "No ./model here, so labelling with the bundled model: ai, cv, nlp, robotics, cyber" in said
    info = ModelInfo.read(Path(sys.modules["arxivclf"].__file__).parent / "bundled")
    assert f"-{max(info.papers['years'])}, F1" in said
    assert f"{info.metrics['test']['ai']['f1']:.3f} on its test papers" in said
    assert (labels.get_column("ai") == labels.get_column("ai_truth")).mean() > 0.7
    folder = Path(sys.modules["arxivclf"].__file__).parent / "bundled"
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "arxivclf.json",
        "arxivclf.toml",
        "linear.safetensors",
        "seen.safetensors",
    }
    assert sum(path.stat().st_size for path in folder.iterdir()) < 8 * 2**20


def test_what_a_model_without_an_encoder_does_not_heed_is_said(cli: Callable[..., Result]) -> None:
    done = cli("label", PAPERS, "--model", "bundled", "-o", "x.parquet", "--device", "cuda", "--no-gate")
    assert done.exit_code == 0, done.stderr
    assert "without an encoder nothing comes of --device and --no-gate" in " ".join(done.stderr.split())
    assert "nothing comes of" not in cli("label", PAPERS, "--model", "bundled", "-o", "y.parquet").stderr


@real_data
def test_the_bundled_model_is_as_good_as_it_says():
    labels = Classifier.load("bundled").label(DATA / "cset-ai-dev.parquet")
    truth = pl.read_parquet(DATA / "cset-ai-dev.parquet").get_column("label")
    hits = int((labels.get_column("ai") & truth).sum())

    assert 2 * hits / (labels.get_column("ai").sum() + truth.sum()) > 0.845


@real_data
@pytest.mark.parametrize(
    ("label", "f1"), [("ai", 0.905), ("cv", 0.855), ("nlp", 0.715), ("robotics", 0.83), ("cyber", 0.72)]
)
def test_the_bundled_model_labels_papers_of_today(label: str, f1: float):
    papers = DATA / "arxiv-2026-dev.parquet"
    if not papers.exists():
        pytest.skip(f"{papers} is absent")
    labels = Classifier.load("bundled").label(papers)
    predicted, truth = labels.get_column(label), labels.get_column(f"{label}_truth")

    assert 2 * (predicted & truth).sum() / (predicted.sum() + truth.sum()) > f1


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_score_depends_on_the_text_alone(data):
    linear = Linear.load(Path(sys.modules["arxivclf"].__file__).parent / "bundled", 5)
    rows = [json.loads(line) for line in PAPERS.read_text().splitlines()][:80]
    texts = pl.Series([f"{row['title']}. {row['abstract']}" for row in rows] + ["", "ξξξξ"])
    chosen = data.draw(st.lists(st.integers(0, len(texts) - 1), min_size=1, max_size=40))

    assert np.array_equal(linear.logits(texts.gather(chosen)), linear.logits(texts)[chosen])


def gated(model: Path, folder: Path, low: float, high: float) -> Path:
    """A copy of a model with a gate, for so few papers make none."""
    shutil.copytree(model, folder)
    info = ModelInfo.read(folder)
    gate = Gate(low, high, papers=5_000, labelled=900, lost=4, gained=3, bound=0.018, decided=0.5, risk=0.02)
    replace(info, gates=dict.fromkeys(info.task.names, gate)).write(folder)
    return folder


def test_a_gate_sends_only_the_undecided_on(cli: Callable[..., Result], model: Path, tmp_path: Path):
    info = ModelInfo.read(model)
    assert set(info.blends) == set(info.linear_calibrations) == {"ai"}
    assert not info.gates
    result = cli("label", PAPERS, "--model", gated(model, tmp_path / "gated", 0.1, 0.9), "-o", "with.parquet")
    assert result.exit_code == 0, result.output
    without = cli("label", PAPERS, "--model", tmp_path / "gated", "--no-gate", "-o", "without.parquet")
    assert without.exit_code == 0, without.output
    both = pl.read_parquet("with.parquet"), pl.read_parquet("without.parquet")
    by_gate = both[0].get_column("decided_by") == BY_GATE

    assert 0 < by_gate.sum() < len(by_gate)
    assert "changed by the gate  at most 2.00% of the papers labelled without it" in result.stdout
    assert "on validation, ai    4 lost and 3 gained of 900 labelled" in result.stdout
    assert "gate" not in without.stdout.replace("--no-gate", "")
    assert both[1].get_column("decided_by").unique().to_list() == [BY_ENCODER]
    # Those that the encoder saw have the same score to the bit; those that the gate decided, that of the linear model.
    same = both[0].get_column("ai_score") == both[1].get_column("ai_score")
    assert same.filter(~by_gate).all()
    sure = both[0].filter(by_gate).get_column("ai_score")
    assert ((sure <= np.float32(0.1)) | (sure >= np.float32(0.9))).all()


def test_another_threshold_rules_the_gate_out(cli: Callable[..., Result], model: Path, tmp_path: Path):
    folder = gated(model, tmp_path / "gated", 0.1, 0.9)
    result = cli("label", PAPERS, "--model", folder, "--threshold", "0.7", "-o", "with.parquet")

    assert "without a gate, which --threshold rules out" in result.stderr
    assert pl.read_parquet("with.parquet").get_column("decided_by").unique().to_list() == [BY_ENCODER]


def test_labels_through_a_gate_are_not_those_without(cli: Callable[..., Result], model: Path, tmp_path: Path):
    folder = gated(model, tmp_path / "gated", 0.1, 0.9)
    assert cli("label", PAPERS, "--model", folder, "-o", "a.parquet").exit_code == 0

    assert "differs" in error_line(cli("label", PAPERS, "--model", folder, "--no-gate", "-o", "a.parquet"), 2)


@pytest.mark.parametrize("fault", ["absent", "cut short", "of other labels"])
def test_a_broken_linear_model_is_told_in_a_line(cli: Callable[..., Result], alone: Path, tmp_path: Path, fault: str):
    shutil.copytree(alone, "broken")
    path = Path("broken/linear.safetensors")
    if fault == "absent":
        path.unlink()
        (Path("broken") / "other.safetensors").write_bytes(b"")
    elif fault == "cut short":
        path.write_bytes(path.read_bytes()[:1_000])
    else:
        shutil.copy(Path(sys.modules["arxivclf"].__file__).parent / "bundled" / "linear.safetensors", path)

    assert "linear.safetensors" in error_line(cli("label", PAPERS, "--model", "broken"), 1)


def test_zero_passes_keep_the_base_and_fit_the_rest(cli: Callable[..., Result], model: Path):
    result = cli("train", PAPERS, "--base", model, "--epochs", "0", "--since", "1990", "-o", "again", "-q")

    assert result.exit_code == 0, result.output
    assert Path("again/model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    assert ModelInfo.read(Path("again")).blends.keys() == {"ai"}


@pytest.mark.parametrize("more", [(), ("--task", "cyber", "--task", "ai")])
def test_zero_passes_take_a_base_with_these_labels_alone(
    cli: Callable[..., Result], model: Path, tiny_base: Path, more: tuple[str, ...]
):
    base = model if more else tiny_base
    result = cli("train", PAPERS, "--base", base, "--epochs", "0", "--since", "1990", "-o", "again", *more)
    assert "--epochs 0 leaves" in error_line(result, 2)
    assert not Path("again").exists()


def test_zero_passes_leave_a_plain_model_and_tell_of_a_checkpoint(cli: Callable[..., Result], model: Path):
    Path("again.toml").write_text('[train]\ntune = "lora"\nepochs = 0\n')
    checkpoint = Path(".again.checkpoint.safetensors")
    checkpoint.write_bytes(b"of an unfinished training")
    result = cli("train", PAPERS, "--config", "again.toml", "--base", model, "--since", "1990", "-o", "again")
    assert result.exit_code == 0, result.output
    assert "a checkpoint of an unfinished training of this model" in result.output
    assert Path("again/model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


def trained_jointly(tmp_path: Path, gate_risk: float) -> Joint:
    """Two labels: a validation set of 100 papers answers `ai`, the validation split of a dump answers `robotics`."""
    rows = [
        paper(f"2101.{n:05d}", title=f"{'robot' if n % 2 else 'galaxy'} {n}", categories="cs.RO" if n % 2 else "hep-th")
        for n in range(1, 1_001)
    ]
    own = [paper(f"2102.{n:05d}", title=f"{'robot' if n % 2 else 'galaxy'}", label=n % 2 == 1) for n in range(1, 101)]
    for one in own:
        del one["categories"]
    dump, dev = write_jsonl(tmp_path / "dump.jsonl", rows), write_jsonl(tmp_path / "dev.jsonl", own)
    settings = TrainSettings(
        (str(dump),), ("ai", "robotics"), validation=str(dev), validation_label="ai", gate_risk=gate_risk, epochs=0.0
    )
    with RejectsFile(tmp_path / "rejects.jsonl") as rejects:
        dataset = collect(settings, Task.load(settings.task), rejects, Watcher())
    words = linear.fit(linear.features(dataset.whole.texts, Watcher()), dataset.whole.truth, Watcher())
    logits = {side: words.logits_of_many(getattr(dataset, side).texts) for side in ("validation", "test")}
    trained = cast(Any, SimpleNamespace(validation_logits=logits["validation"], test_logits=logits["test"]))
    assert 200 < len(dataset.validation) < 300
    return Joint.fit(settings, dataset, words, trained)


def test_the_gate_is_fitted_to_papers_that_taught_nobody(tmp_path: Path):
    """Where a validation set answers one label, the validation split teaches that label, and judges only the other."""
    ai, robotics = trained_jointly(tmp_path, gate_risk=0.9).cascade.gates
    assert ai.papers == 100
    assert 100 < robotics.papers < 200


@pytest.fixture(scope="module")
def with_gate(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose gate was fitted: a high risk needs few papers, a wide margin leaves some to the encoder. Do not
    write into it."""
    folder = tmp_path_factory.mktemp("gated") / "model"
    options = ["--base", str(tiny_base), "--gate-risk", "0.9", "-o", str(folder), *TINY]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("arxivclf.model.gate._MARGINS", np.array([2.0]))
        result = CliRunner().invoke(main, ["train", str(PAPERS), *options])
    assert result.exit_code == 0, result.output
    assert "this gate by itself decides" in result.stderr
    assert "no gate" in result.stdout
    assert "The gate decides" in result.stdout
    return folder


def test_the_test_split_is_labelled_as_label_does(with_gate: Path, cli: Callable[..., Result]):
    kept = pl.read_parquet(with_gate / "test.labels.parquet")
    for option in ("--gate", "--no-gate"):
        result = cli("label", PAPERS, "--model", with_gate, option, "-o", f"{option}.parquet")
        assert result.exit_code == 0, result.output
    labelled, without = (
        kept.select("id").join(pl.read_parquet(f"{option}.parquet"), on="id", how="left", maintain_order="left")
        for option in ("--gate", "--no-gate")
    )
    assert kept.get_column("decided_by").to_list() == labelled.get_column("decided_by").to_list()
    assert set(kept.get_column("decided_by")) == {BY_GATE, BY_ENCODER}
    by_gate = (kept.get_column("decided_by") == BY_GATE).to_numpy()
    ours, theirs = (table.get_column("ai_score").to_numpy() for table in (kept, labelled))
    assert np.array_equal(ours[by_gate], theirs[by_gate])
    # The encoder may be computed in another precision.
    np.testing.assert_allclose(ours, theirs, atol=0.02)

    metrics = ModelInfo.read(with_gate).metrics
    assert metrics["decided_by_gate"]["test"] == by_gate.mean()
    for name, labels in (("test", labelled), ("test_without_gate", without)):
        truth, given = (labels.get_column(column) for column in ("ai_truth", "ai"))
        assert metrics[name]["ai"]["true_positives"] == (truth & given).sum()
        assert metrics[name]["ai"]["false_positives"] == (~truth & given).sum()


def test_card_and_report_show_the_figures_with_and_without_the_gate(with_gate: Path, cli: Callable[..., Result]):
    metrics = ModelInfo.read(with_gate).metrics
    card = (with_gate / "README.md").read_text()
    header = next(line for line in card.splitlines() if line.startswith("| on | label"))
    row = next(line for line in card.splitlines() if line.startswith("| the test split | `ai`"))
    cells = dict(zip(header.split(" | "), row.split(" | "), strict=True))
    assert cells["F1"] == f"{metrics['test']['ai']['f1']:.4f}"
    assert cells["F1, no gate"] == f"{metrics['test_without_gate']['ai']['f1']:.4f}"

    (ai,) = report(with_gate).labels
    figures = {figure.name: figure for figure in ai.figures}
    assert figures["F1"].interval.value == metrics["test"]["ai"]["f1"]
    assert figures["F1"].without_gate == metrics["test_without_gate"]["ai"]["f1"]
    assert figures["calibration error"].without_gate == metrics["test_without_gate"]["ai"]["calibration_error"]
    shown = cli("report", with_gate, env={"COLUMNS": "80"})
    assert "no gate" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    for more in (("--threshold", "0.5"), ("--unseen-by", "bundled")):
        assert "no gate" not in cli("report", with_gate, *more).stdout


def test_what_is_excluded_takes_no_part(cli: Callable[..., Result]):
    rows = PAPERS.read_text().splitlines()
    Path("out.jsonl").write_text("\n".join(rows[:50]) + "\n")
    result = cli("train", PAPERS, *ALONE[:-1], "--exclude", "out.jsonl", "-o", "model")

    assert result.exit_code == 0, result.output
    kept = ModelInfo.read(Path("model")).papers
    assert kept["excluded"] == 50
    assert sum(kept[side]["papers"] for side in ("train", "validation", "test")) == len(rows) - 50


@pytest.mark.parametrize("form", ["ids.jsonl", "ids.parquet", "labels.parquet", "damaged.jsonl"])
def test_what_is_excluded_may_be_a_list_of_ids(cli: Callable[..., Result], form: str):
    """Labels too, and ids that were numbers once."""
    rows = [json.loads(line) for line in PAPERS.read_text().splitlines()]
    plain = [row["id"] for row in rows if row["id"].startswith("2") and row["id"].endswith("0")]
    assert len(plain) > 5
    if form == "damaged.jsonl":
        write_jsonl(Path(form), [{"id": str(float(one)), "categories": "cs.LG"} for one in plain])
    elif form == "ids.jsonl":
        write_jsonl(Path(form), [{"id": one} for one in plain])
    else:
        pl.DataFrame(
            {"id": plain, **({"ai_score": [0.5] * len(plain)} if form == "labels.parquet" else {})}
        ).write_parquet(form)

    assert cli("train", PAPERS, *ALONE[:-1], "--exclude", form, "-o", "model").exit_code == 0
    assert json.loads(Path("model/arxivclf.json").read_text())["papers"]["excluded"] == len(plain)


def test_what_is_excluded_neither_validates_nor_counts_as_negative(tmp_path: Path):
    def gather(**how: Any) -> Dataset:
        settings = TrainSettings((str(write_jsonl(tmp_path / "dump.jsonl", papers(300))),), **how)
        with RejectsFile(tmp_path / "rejects.jsonl") as rejects:
            return collect(settings, Task.load(settings.task), rejects, Watcher())

    works = [{"id": f"W{n}", "text": f"On cells {n}"} for n in range(200)]
    dev = [paper(f"2104.{n:05d}", categories=("cs.AI", "hep-th")[n % 2]) for n in range(1, 41)]
    held_out = write_jsonl(tmp_path / "held-out.jsonl", works[:150])
    out = write_jsonl(tmp_path / "out.jsonl", [*dev[:30], *papers(20)])
    weak, validation = write_jsonl(tmp_path / "weak.jsonl", works), write_jsonl(tmp_path / "dev.jsonl", dev)
    how = {"weak_negatives": str(weak), "weak_negative_share": 0.5, "validation": str(validation)}
    assert gather(exclude=str(held_out), **how).counts["weak_negatives"] == 50
    dataset = gather(exclude=str(out), **how)
    assert dataset.counts["weak_negatives"] == 200
    assert set(dataset.validation.frame.get_column("id")) == {row["id"] for row in dev[30:]}
    # A positive paper of the dump that a sample left out is no negative.
    assert (
        gather(weak_negatives=str(write_jsonl(tmp_path / "x.jsonl", papers(300))), sample=50).counts["weak_negatives"]
        == 0
    )


@pytest.mark.parametrize("threads", ["4,2", "0", "many", "", "3"])
def test_threads_in_any_form(alone: Path, monkeypatch: pytest.MonkeyPatch, threads: str):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    texts = pl.Series([f"robot number {n}" for n in range(1_200)])
    words = Linear.load(alone, 1)
    np.testing.assert_array_equal(words.logits_of_many(texts), words.logits(texts))


def test_no_gate_needs_an_encoder(cli: Callable[..., Result]):
    assert "an encoder" in error_line(cli("train", PAPERS, "--base", "none", "--no-gate"), 2)
    alone = cli("train", PAPERS, "--base", "none", "--since", "1990", "--epochs", "3", "--loss", "focal", "--seed", "1")
    assert "Without an encoder these change nothing: epochs, loss\n" in alone.stderr


def test_what_tells_more_counts_more() -> None:
    """Of four papers, two of them positive, the features are in both positives, in one of each, and in one positive."""
    matrix = csr_array(np.array([[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 0]], np.float32))
    found = linear._telling(matrix, np.array([True, True, False, False]))
    both, either, one = found.tolist()
    assert both > one > either == 0.0
    ratio = (np.log((2 + 0.25) / 0.25) / np.log((1 + 0.25) / 0.25)) ** 0.5
    assert both / one == pytest.approx(ratio, rel=1e-5)
    assert (found**2 * [2, 2, 1]).sum() / 5 == pytest.approx(1.0)
