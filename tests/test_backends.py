"""Faster ways through the encoder: the same logits as transformers', whoever the neighbours are, or refused."""

from __future__ import annotations

import gc
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from conftest import PAPERS, read_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st

from arxivclf import Classifier
from arxivclf.errors import ModelError
from arxivclf.model import backends, packed
from arxivclf.model.backends import Candidate, Checked, Judge, Reference, candidates, check, choose
from arxivclf.model.calibration import sigmoid
from arxivclf.model.compiled import Compiled, SignalStack, _converted, _Parted
from arxivclf.model.devices import Device, bfloat16_is_fast, find
from arxivclf.model.encoder import Encoder
from arxivclf.model.first_token import FirstToken, fits
from arxivclf.model.packed import Packed
from arxivclf.model.safety import REFERENCE_FILE

CAPABILITIES = torch.cpu.get_capabilities()
BFLOAT16 = bfloat16_is_fast(torch.device("cpu"))[0]
# What is used on this processor, and float32.
ABLE = {(one.engine, one.kind) for one in candidates(find("cpu"), CAPABILITIES, openvino=True)}
WAYS = [
    pytest.param(
        engine,
        kind,
        marks=pytest.mark.skipif(
            kind != "float32" and (engine, kind) not in ABLE, reason=f"this processor is not made for {kind}"
        ),
    )
    for engine, kinds in (("torch", ("float32", "bfloat16")), ("openvino", ("float32", "bfloat16", "int8")))
    for kind in kinds
]
JUDGE = Judge(
    lambda linear_logits, logits: sigmoid(logits.astype(np.float64)).astype(np.float32), [0.5, 0.5], "sigmoid"
)


@pytest.fixture(scope="module")
def encoder(tiny_base: Path) -> Encoder:
    """Two labels, weights large enough that attention has something to choose between."""
    torch.manual_seed(7)
    made = Encoder.start(tiny_base, ["ai", "cv"], 128, find("cpu", "float32"))
    with torch.no_grad():
        for name, weights in made.model.named_parameters():
            if name.endswith("weight") and weights.ndim == 2:
                weights.mul_(4)
    return made


@pytest.fixture(scope="module")
def token_ids(encoder: Encoder) -> list[list[int]]:
    texts = [f"{row['title']}. {row['abstract']}" for row in read_jsonl(PAPERS)][:80]
    return encoder.tokenize([text[: 40 + 37 * place % 900] for place, text in enumerate(texts)])


@pytest.fixture(scope="module")
def spans(encoder: Encoder, token_ids: list[list[int]]) -> Any:
    return Packed(encoder.model, "float32").watch(token_ids)


@pytest.fixture(scope="module")
def faster(encoder: Encoder, token_ids: list[list[int]], spans: Any, tmp_path_factory: Any) -> Callable[..., Encoder]:
    """The encoder with a backend, each made once."""

    @cache
    def made(engine: str, kind: Any) -> Encoder:
        if engine == "torch":
            return replace(encoder, backend=Packed(encoder.model, kind))
        folder = tmp_path_factory.mktemp("openvino") / "converted"
        return replace(encoder, backend=Compiled(encoder.model, kind, token_ids, spans, 0, BFLOAT16, folder))

    return made


@pytest.mark.parametrize(("engine", "kind"), WAYS)
def test_it_equals_transformers(engine: str, kind: str, encoder: Encoder, token_ids: Any, faster: Any) -> None:
    """Against transformers itself, one paper at a time, without padding."""
    with torch.inference_mode():
        want = np.concatenate([encoder.model(torch.tensor([paper])).logits.numpy() for paper in token_ids])
    counted: list[int] = []
    got = faster(engine, kind).logits(token_ids, counted.append)
    assert got.dtype == np.float32
    assert sum(counted) == len(token_ids)
    error, spread = np.abs(got - want), want.std()
    assert error.max() < {"float32": 1e-4, "bfloat16": 0.1, "int8": 0.5}[kind] * spread
    assert error.mean() < {"float32": 1e-5, "bfloat16": 0.02, "int8": 0.1}[kind] * spread


@pytest.mark.parametrize(("engine", "kind"), WAYS)
@settings(max_examples=15, deadline=None)
@given(order=st.permutations(range(80)), count=st.integers(1, 80))
def test_a_score_does_not_depend_on_the_neighbours(
    engine: str, kind: str, order: list[int], count: int, token_ids: list[list[int]], faster: Any
) -> None:
    """Any papers in any order: each gets the bits that it gets among all."""
    quick = faster(engine, kind)
    whole = quick.logits(token_ids)
    chosen = order[:count]
    np.testing.assert_array_equal(quick.logits([token_ids[row] for row in chosen]), whole[chosen])


def test_the_largest_inner_values_are_apart_and_add_up(encoder: Encoder, token_ids: list[list[int]]) -> None:
    """What int8 is made of gives the same logits, and has in floating point what it was to have there."""
    spans = Packed(encoder.model, "float32").watch(token_ids)
    spans["0.down"][1, 5], spans["0.down"][0, 3] = 100.0, -100.0
    parted = _Parted(encoder.model, spans).eval()
    ids = torch.tensor([max(token_ids, key=len)])
    mask = torch.ones_like(ids)
    with torch.inference_mode():
        torch.testing.assert_close(parted(ids, mask), FirstToken(encoder.model)(ids, mask), rtol=1e-4, atol=1e-4)
    half, layer = cast(Any, parted.halves[0]), cast(Any, encoder.model).bert.encoder.layer[0]
    apart = half.up_apart.weight
    assert len(apart) + len(half.up.weight) == len(layer.intermediate.dense.weight)
    assert 2 <= len(apart) < len(half.up.weight)
    for place in (3, 5):
        assert (apart == layer.intermediate.dense.weight[place]).all(1).any()
    assert len(parted.halves) == encoder.model.config.num_hidden_layers - 1


def test_what_errs_most_stays_out_of_integers(encoder: Encoder, token_ids: list[list[int]], spans: Any) -> None:
    """Patterns that no longer match would cost accuracy, and say nothing."""
    layers = encoder.model.config.num_hidden_layers
    in_integers: dict[str, bool] = {}
    for node in _converted(encoder.model, "int8", token_ids[:20], spans, 0).get_ops():
        if node.get_type_name() == "MatMul":
            sources = {one.get_source_output().get_node().get_type_name() for one in node.inputs()}
            in_integers[node.get_friendly_name()] = "FakeQuantize" in sources
    floating = [name for name, whether in in_integers.items() if not whether]
    kinds = [r"up_apart", r"down_apart", r"\.first[./]", r"pooler", r"classifier", rf"layer\.{layers - 1}\.output"]
    for kind in kinds:
        assert any(re.search(kind, name) for name in floating), kind
    strange = rf"{'|'.join(kinds)}|layer\.{layers - 1}\.(attention|intermediate)"
    assert [name for name in floating if not re.search(strange, name)] == []
    # Query, key, value, what follows the attention, up and down, of each layer but the last.
    assert len(in_integers) - len(floating) >= 6 * (layers - 1)


@given(st.lists(st.integers(1, 128), min_size=0, max_size=300))
def test_batches_hold_every_paper_once(lengths: list[int]) -> None:
    papers = [[length] * length for length in lengths]
    seen = []
    for batch in packed.packed(papers, 256):
        assert len(batch.ids) == len(batch.positions) == 256
        assert 0 < len(batch.rows) <= len(batch.firsts) == packed.papers_at_most(256)
        for place, row in enumerate(batch.rows):
            start, end = batch.starts[place : place + 2]
            assert batch.ids[start:end].tolist() == papers[row]
            assert batch.positions[start:end].tolist() == list(range(len(papers[row])))
            assert batch.firsts[place] == start
        seen += batch.rows.tolist()
    assert sorted(seen) == list(range(len(lengths)))


def test_what_was_converted_is_kept(
    encoder: Encoder, token_ids: list[list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time nothing is converted; what is broken is made again, and nowhere to keep it is no error."""
    import openvino

    def made(folder: Path) -> Any:
        compiled = Compiled(encoder.model, "float32", token_ids, {}, 0, False, folder)
        return compiled.logits(token_ids, 2, lambda papers: None)

    right, conversions = openvino.convert_model, []
    monkeypatch.setattr(openvino, "convert_model", lambda *a, **k: conversions.append(1) or right(*a, **k))
    first = made(tmp_path / "cache")
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    np.testing.assert_array_equal(made(tmp_path / "cache"), first)
    assert len(conversions) == 1
    (tmp_path / "cache" / "model.xml").write_text("<not a model")
    np.testing.assert_array_equal(made(tmp_path / "cache"), first)
    (tmp_path / "file").touch()
    np.testing.assert_array_equal(made(tmp_path / "file" / "cache"), first)
    assert len(conversions) == 3


@pytest.mark.parametrize("order", ["012", "210", "102"])
def test_signals_are_handled_where_they_were_before(
    encoder: Encoder, token_ids: list[list[int]], tmp_path: Path, order: str
) -> None:
    """In whatever order models go: on a stack that went with one of them the next Ctrl-C is a segmentation fault."""

    def stack() -> tuple[int | None, int, int]:
        now = SignalStack.now()
        return now.at, now.flags, now.bytes

    before = stack()
    made: dict[str, Compiled] = {
        name: Compiled(encoder.model, "float32", token_ids, {}, 0, False, tmp_path / "cache") for name in "012"
    }
    assert stack() == before
    for name in order:
        del made[name]
        gc.collect()
        assert stack() == before


def test_nobody_is_told_of_a_conversion(encoder: Encoder, token_ids: list[list[int]], tmp_path: Path) -> None:
    """OpenVINO reports its use over the network unless it was told not to."""
    from openvino_telemetry.utils.opt_in_checker import ConsentCheckResult, OptInChecker

    Compiled(encoder.model, "float32", token_ids, {}, 0, False, tmp_path / "cache")
    assert OptInChecker().check(False) == ConsentCheckResult.DECLINED


def test_other_architectures_are_left_to_transformers(encoder: Encoder, tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification, DistilBertConfig
    from transformers import DistilBertForSequenceClassification as Other

    assert fits(encoder.model)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    assert not fits(BertForSequenceClassification(BertConfig(**small, hidden_act="relu")))
    assert not fits(Other(DistilBertConfig(dim=16, n_layers=1, n_heads=2, hidden_dim=16)))


@pytest.mark.parametrize("size", [0.5, 10.0])
def test_attention_in_steps_is_attention(size: float) -> None:
    """Also where the exponential of a score would overflow."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, 40, 16).mul_(size if at < 2 else 1).bfloat16() for at in range(3))
    want = torch.nn.functional.scaled_dot_product_attention(query.float(), key.float(), value.float(), scale=1.0)
    assert (packed._attend(query, key, value).float() - want).abs().mean() < 0.02


def test_the_processor_decides() -> None:
    cpu, as_asked = Device(torch.device("cpu"), torch.bfloat16, "cpu in bfloat16: why"), torch.device("cpu")
    both = {"avx512_vnni": True, "avx512_bf16": True}

    def names(device: Device, processor: dict[str, bool], openvino: bool = False) -> list[str]:
        return [one.name for one in candidates(device, processor, openvino)]

    assert names(cpu, both) == ["bfloat16 without padding"]
    compiled = ["int8 by OpenVINO", "bfloat16 by OpenVINO"]
    assert names(cpu, both, openvino=True) == [*compiled, "bfloat16 without padding"]
    laptop = replace(cpu, precision=torch.float32)
    assert names(laptop, {}) == names(laptop, both) == ["float32 without padding"]
    assert names(laptop, {"avx_vnni": True}, openvino=True)[0] == "int8 by OpenVINO"
    asked = Device(as_asked, torch.float32, "cpu in float32, as asked for", asked=True)
    assert names(asked, both) == ["float32 without padding"]
    gpu = Device(torch.device("cuda"), torch.bfloat16, "cuda in bfloat16: compute capability 9.0")
    assert list(candidates(gpu, both, True)) == [Candidate("torch", "bfloat16", "compute capability 9.0")]
    assert not names(replace(gpu, widths=(64, 128)), both)


def test_a_trained_model_keeps_its_reference(model: Path) -> None:
    """The papers of the test split, with the logits that transformers gives them in float32."""
    reference = Reference.read(model)
    assert reference is not None
    plain = Encoder.load(model, 48, find("cpu", "float32"))
    np.testing.assert_allclose(reference.logits, plain.logits(reference.token_ids), rtol=1e-5, atol=1e-6)
    (loaded,) = Classifier.load(model, device="cpu").models
    assert loaded.encoder.backend is not None
    assert loaded.encoder.backend.name in loaded.encoder.device.reason


def test_a_model_without_reference_stays_with_transformers(model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model, tmp_path / "older")
    (folder / REFERENCE_FILE).unlink()
    (loaded,) = Classifier.load(folder, device="cpu").models
    assert loaded.encoder.backend is None
    assert "without padding" not in loaded.encoder.device.reason


def test_a_backend_that_drifts_is_refused(
    encoder: Encoder, token_ids: list[list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is checked once, and what was found is believed from then on."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    device = replace(encoder.device, precision=torch.float32, asked=False, reason="cpu in float32: nothing better")
    plain = replace(encoder, device=device)
    backends.keep_reference(tmp_path, plain, token_ids)
    monkeypatch.setattr("torch.cpu.get_capabilities", dict)
    assert choose(tmp_path, plain, JUDGE).device.reason == "cpu in float32 by OpenVINO: nothing better"
    monkeypatch.setattr(backends, "openvino_versions", lambda: None)
    good = choose(tmp_path, plain, JUDGE)
    assert good.backend is not None
    assert good.device.reason == "cpu in float32 without padding: nothing better"

    right = Packed.logits
    monkeypatch.setattr(Packed, "logits", lambda self, *more: right(self, *more) + 0.5)
    assert choose(tmp_path, plain, JUDGE).backend is not None, "checked again"
    other = replace(JUDGE, mark="another")
    for _ in range(2):
        refused = choose(tmp_path, plain, other)
        assert refused.backend is None
        assert refused.device.reason.startswith("cpu in float32: nothing better; float32 without padding refused: on")
        monkeypatch.setattr(Packed, "logits", None)


def test_a_backend_that_fails_is_not_taken(
    encoder: Encoder, token_ids: list[list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was remembered: the next is tried, and the user told."""

    def fails(*_: Any) -> Any:
        raise RuntimeError("no such\ninstruction")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    backends.keep_reference(tmp_path, encoder, token_ids)
    monkeypatch.setattr("torch.cpu.get_capabilities", dict)
    monkeypatch.setattr(Compiled, "logits", fails)
    chosen = choose(tmp_path, encoder, JUDGE)
    assert chosen.arithmetic == "float32 without padding"
    assert chosen.device.reason.endswith("; float32 by OpenVINO failed: no such instruction")


def test_what_is_refused() -> None:
    assert Checked(0.02, 2, 2_000, 1_000).good
    assert not Checked(0.021, 0, 2_000, 1_000).good
    assert not Checked(0.0, 3, 2_000, 1_000).good


def test_a_check_counts_labels_and_the_largest_drift(encoder: Encoder, token_ids: list[list[int]]) -> None:
    logits = encoder.logits(token_ids)
    moved = logits.copy()
    moved[3, 1] = -logits[3, 1]
    found = check(encoder, Reference(token_ids, moved, np.zeros_like(moved), {}), JUDGE)
    scores = sigmoid(np.array([logits[3, 1], moved[3, 1]], dtype=np.float64))
    assert found == Checked(pytest.approx(abs(scores[0] - scores[1]), abs=1e-5), 1, 160, 80)


def test_a_reference_of_another_model_is_an_error(
    encoder: Encoder, token_ids: list[list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Reference(token_ids, *(np.zeros((len(token_ids), 3), dtype=np.float32) for _ in range(2)), {}).write(tmp_path)
    with pytest.raises(ModelError, match="of another model"):
        choose(tmp_path, encoder, JUDGE)
    (tmp_path / REFERENCE_FILE).write_bytes(b"no tensors")
    with pytest.raises(ModelError, match="cannot be read"):
        choose(tmp_path, encoder, JUDGE)


@pytest.mark.parametrize("broken", ["no spans", "other labels", "no token", "too long", "nothing"])
def test_a_reference_that_fits_in_part_is_an_error(
    encoder: Encoder, token_ids: list[list[int]], spans: Any, tmp_path: Path, monkeypatch: Any, broken: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    ids, logits = [*token_ids[:5]], encoder.logits(token_ids[:5])
    good = Reference(ids, logits, np.zeros_like(logits), spans)
    changed: dict[str, Any] = {
        "no spans": {"spans": {}},
        "other labels": {"linear_logits": np.zeros((5, 3), np.float32)},
        "no token": {"token_ids": [[-1, 3], *ids[1:]]},
        "too long": {"token_ids": [[3] * 1_000, *ids[1:]]},
        "nothing": {},
    }[broken]
    replace(good, **changed).write(tmp_path)
    if broken == "nothing":
        choose(tmp_path, encoder, JUDGE)
        return
    with pytest.raises(ModelError, match="of another model"):
        choose(tmp_path, encoder, JUDGE)


def test_the_attention_of_a_gpu_is_there() -> None:
    """No GPU computes here; but what is asked of torch there exists, with these parameters."""
    import inspect

    from torch.nn.attention.varlen import varlen_attn

    parameters = list(inspect.signature(varlen_attn).parameters)
    assert parameters[:7] == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]
    assert "scale" in parameters


def test_threads_change_nothing(token_ids: list[list[int]], faster: Any) -> None:
    """Batches are parted among threads, never a batch; whoever stops the work in between leaves torch as it was."""
    before = torch.get_num_threads()
    quick = faster("torch", "float32")
    one = quick.logits(token_ids * 5)
    try:
        torch.set_num_threads(3)
        np.testing.assert_array_equal(quick.logits(token_ids * 5), one)

        def stop(papers: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            quick.logits(token_ids * 5, stop)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
