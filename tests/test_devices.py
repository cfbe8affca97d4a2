"""Which device computes, and what is said where one is missing. What runs on XLA is in tests/xla."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from conftest import error_line, papers, write_jsonl
from transformers import AutoConfig, AutoModelForSequenceClassification, get_scheduler

from arxivclf.errors import DeviceError
from arxivclf.model import encoder, xla
from arxivclf.model.batches import of_one_shape, pad, shape_of
from arxivclf.model.devices import Device, find
from arxivclf.training.schedule import share_of_rate


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """As if these packages were installed, in these versions; no TPU is attached, and the environment is bare."""
    there = {"torch": "2.9.1", "torch-xla": "2.9.0", "libtpu": "0.0.21"}
    monkeypatch.setattr(xla, "find_spec", lambda name: there.get(name.replace("_", "-")))
    monkeypatch.setattr(xla, "version", lambda name: there[name])
    monkeypatch.setattr(xla, "_chips", lambda: 0)
    for name in ("PJRT_DEVICE", "WORLD_SIZE", "TPU_LIBRARY_PATH"):
        monkeypatch.delenv(name, raising=False)
    return there


@pytest.mark.skipif(xla.find_spec("torch_xla") is not None, reason="torch-xla is installed here")
@pytest.mark.parametrize("command", ["train", "label"])
def test_a_tpu_without_torch_xla(cli: Callable[..., Result], model: Path, command: str) -> None:
    write_jsonl(Path("dump.jsonl"), papers(3))
    result = cli(command, "dump.jsonl", "--device", "tpu", *(["--model", model] if command == "label" else []))
    said = error_line(result, 1)
    assert said == (
        "Error: no such device: tpu (torch-xla is not installed: pip install 'arxivclf[tpu]' on a TPU machine)"
    )


def test_a_tpu_that_is_not_there_is_said_to_be_missing(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said() -> str:
        assert find("auto").where.type == ("cuda" if torch.cuda.is_available() else "cpu")
        with pytest.raises(DeviceError) as raised:
            find("tpu")
        return str(raised.value)

    assert said() == "no such device: tpu (this machine has none); --device cpu works everywhere"
    monkeypatch.setattr(xla, "_chips", lambda: 4)
    monkeypatch.setenv("PJRT_DEVICE", "CUDA")
    assert "PJRT_DEVICE=CUDA in the environment wants another" in said()
    monkeypatch.setenv("PJRT_DEVICE", "TPU")
    del installed["libtpu"]
    assert "libtpu is not installed" in said()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert said() == "tpu: one process drives all of its cores; start arxivclf without torchrun"
    installed["torch"] = "2.13.0+cpu"
    assert "torch-xla 2.9.0 does not fit torch 2.13.0+cpu: pip install 'arxivclf[tpu]'" in said()


def test_a_tpu_is_taken_where_there_is_one(installed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(xla, "find", lambda precision: asked.append(precision) or "the TPU")
    assert find("auto") != "the TPU"
    monkeypatch.setattr(xla, "_chips", lambda: 4)
    assert find("auto", "bfloat16") == find("tpu") == "the TPU"
    assert asked == ["bfloat16", "auto"]
    monkeypatch.setenv("PJRT_DEVICE", "CPU")
    assert find("auto") != "the TPU"


def test_chips_are_known_by_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, (vendor, device) in enumerate([("0x1ae0", "0x0063"), ("0x1ae0", "0x0063"), ("0x1ae0", "0x001f")]):
        folder = tmp_path / str(place)
        folder.mkdir()
        (folder / "vendor").write_text(vendor + "\n")
        (folder / "device").write_text(device + "\n")
    monkeypatch.setattr(xla, "_PCI", tmp_path)
    assert xla._chips() == 2
    monkeypatch.setattr(xla, "_PCI", tmp_path / "absent")
    assert xla._chips() == 0


def test_widths_end_at_the_longest_text() -> None:
    device = Device(torch.device("cpu"), torch.float32, "a test", (64, 128, 256))
    assert device.fit(100).widths == (64, 100)
    assert device.fit(64).widths == (64,)
    assert device.fit(512).widths == (64, 128, 256, 512)
    assert Device(torch.device("cpu"), torch.float32, "a test").fit(100).widths == ()


def test_batches_of_few_shapes() -> None:
    assert shape_of([3, 70], 10, (64, 128), 4) == (12, 128)
    assert shape_of([3, 64], 10, (64, 128), 4) == (12, 64)
    assert shape_of([3, 64], 10, ()) is None
    lengths = [5, 64, 65, 128, 7, 9]
    found = [(rows.tolist(), shape) for rows, shape in of_one_shape(lengths, 256, (64, 128), 2)]
    assert found == [([2, 3], (2, 128)), ([0, 1, 4, 5], (4, 64))]
    ids, mask = pad([[5, 6], [7]], 0, (4, 3))
    assert ids.tolist() == [[5, 6, 0], [7, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert mask.tolist() == [[1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("kind", encoder._TAKE_READY_MASKS)
def test_bases_that_take_a_ready_mask_give_the_same_logits(kind: str) -> None:
    sizes = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
    if kind == "distilbert":
        sizes = {"n_layers": 2, "dim": 32, "n_heads": 2, "hidden_dim": 64}
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=100, initializer_range=0.5, **sizes)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    ids, mask = pad([list(range(5, 5 + length)) for length in (24, 17, 3)], config.pad_token_id, (4, 24))
    ready = (mask > 0)[:, None, None, :].expand(-1, 1, 24, -1)
    with torch.no_grad():
        usual, fast, bare = (model(input_ids=ids, attention_mask=one).logits for one in (mask, ready, None))
    assert torch.equal(usual, fast)
    assert (usual - bare)[2].abs().max() > 1e-3


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0, 3])
def test_the_learning_rate_is_that_of_transformers(schedule: str, warmup: int) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    kind = "constant_with_warmup" if schedule == "constant" else schedule
    theirs = get_scheduler(kind, optimizer, warmup, 20)
    for step in range(21):
        assert 0.5 * share_of_rate(schedule, step, warmup, 20) == theirs.get_last_lr()[0]
        optimizer.step()
        theirs.step()


def test_the_extra_pins_what_fits_together() -> None:
    wanted = [one for one in importlib.metadata.requires("arxivclf") or [] if "extra == 'tpu'" in one]
    assert sorted(one.split(";")[0].strip() for one in wanted) == ["torch-xla[tpu]==2.9.0", "torch==2.9.1"]
