"""Export: what is served is what was trained, or nothing is written."""

import json
import shutil
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import typer
from typer.testing import CliRunner

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.encode.export import MODEL_FILE, PARITY_FILE
from bartizan_connector.encode.onnx import OnnxEncoder, session_options
from bartizan_connector.space.spec import Precision, TowerSpec
from bartizan_encoders.local import TorchEncoder
from bartizan_encoders.tower import Tower
from bartizan_triton import export as export_module
from bartizan_triton.commands.export import export
from bartizan_triton.export import export_tower
from bartizan_triton.golden import golden_texts, mixes
from bartizan_triton.graph import graph_of
from bartizan_triton.parity import LIMITS, Parity, compare, require
from tests.encoders import tiny
from tests.exports import export_folder, tower_folder

COMMAND = typer.Typer()
COMMAND.command()(export)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _session(tower: Tower) -> OnnxEncoder:
    model = graph_of(tower).SerializeToString()
    session = onnxruntime.InferenceSession(model, session_options(), providers=["CPUExecutionProvider"])
    return OnnxEncoder(session, tower.tokens, tower.spec, threads=1)


@pytest.mark.packaging
@pytest.mark.parametrize(
    ("kind", "dim"),
    [("distilbert", None), ("t5", 8), ("roberta", None), ("gpt2", 8), ("modernbert", None)],
)
def test_every_architecture_passes_the_gate(kind: str, dim: int | None) -> None:
    tower = tiny.tower(kind, dim=dim)
    parity = compare(tower, _session(tower))
    require(parity, tower.spec)
    assert parity.longest == 32
    assert parity.difference < 1e-5


@pytest.mark.parametrize("pooling", ["cls", "max"])
def test_every_pooling_passes_the_gate_raw(pooling: str) -> None:
    tower = tiny.tower(pooling=pooling, normalise=False)  # type: ignore[arg-type]
    require(compare(tower, _session(tower)), tower.spec)


@pytest.mark.parametrize(
    ("kind", "precision"), [("bert", "fp32"), ("bert", "int8"), ("llama", "fp32"), ("gpt2", "int8")]
)
def test_an_export_answers_like_its_tower_without_torch(kind: str, precision: Precision) -> None:
    folder, source = export_folder(kind, precision), Tower.load(tower_folder(kind))
    encoder = OnnxEncoder.open(folder)
    texts = ["the tower of two", "", "how many 42?", "a, the tower! " * 9]
    for role in ("query", "document"):
        expected = TorchEncoder(source).encode(texts, role).values
        came = encoder.encode(texts, role).values
        assert isinstance(came, np.ndarray)
        if precision == "fp32":
            np.testing.assert_allclose(came, expected, atol=1e-5)
        assert (came * expected).sum(axis=1).min() >= LIMITS["dense"][precision].cosine
    encoder.close()


def test_fp32_keeps_the_identity_and_int8_keeps_the_space() -> None:
    source = TowerSpec.read(tower_folder("bert"))
    assert TowerSpec.read(export_folder("bert", "fp32")) == source
    coarse = TowerSpec.read(export_folder("bert", "int8"))
    assert coarse.tower_id != source.tower_id
    assert coarse.space_id == source.space_id


def test_the_report_says_what_was_compared() -> None:
    report = json.loads((export_folder("bert", "int8") / PARITY_FILE).read_bytes())
    spec = TowerSpec.read(export_folder("bert", "int8"))
    assert (report["tower_id"], report["space_id"], report["precision"]) == (spec.tower_id, spec.space_id, "int8")
    assert report["compared"]["longest"] == 32
    assert report["compared"]["texts"] == len(golden_texts(20)) + len(golden_texts(32))  # two roles, unlike
    assert report["limits"]["cosine"] <= report["compared"]["cosine"] < 1


def test_an_export_is_the_same_each_time(tmp_path: Path) -> None:
    export_tower(tower_folder("bert"), tmp_path / "again")
    assert (tmp_path / "again" / MODEL_FILE).read_bytes() == (export_folder("bert", "fp32") / MODEL_FILE).read_bytes()


def test_the_gate_refuses_a_tower_whose_weights_changed_after_export() -> None:
    tower = tiny.tower(dim=8)
    encoder = _session(tower)
    require(compare(tower, encoder), tower.spec)
    with torch.no_grad():
        tower.get_parameter("backbone.encoder.layer.1.output.dense.weight")[3, 4] += 0.05
    with pytest.raises(Stop, match=r"does not agree with the tower: a component differs by"):
        require(compare(tower, encoder), tower.spec)


@pytest.mark.parametrize(
    ("found", "why"),
    [
        ({"difference": 2e-5}, "a component differs by 2e-05, at most 1e-05 may"),
        ({"cosine": 0.9}, "a vector has cosine 0.90000 to the tower's"),
        ({"drift": 1e-4}, "moves by 0.0001 with its batch"),
        ({"difference": float("nan")}, "a component differs by nan"),
        ({"cosine": float("nan")}, "has cosine nan"),
    ],
)
def test_each_limit_refuses_on_its_own(found: dict[str, float], why: str) -> None:
    fine = {"difference": 0.0, "cosine": 1.0, "drift": 0.0}
    spec = TowerSpec.read(export_folder("bert", "fp32"))
    require(Parity(texts=1, batches=1, longest=1, **fine), spec)
    with pytest.raises(Stop, match=why):
        require(Parity(texts=1, batches=1, longest=1, **(fine | found)), spec)


def test_a_refused_export_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = graph_of(tiny.tower(dim=8, seed=1))  # a real graph, of another tower
    monkeypatch.setattr(export_module, "graph_of", lambda tower: wrong)
    with pytest.raises(Stop, match="does not agree with the tower"):
        export_tower(tower_folder("bert"), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    shutil.copytree(export_folder("bert", "fp32"), tmp_path / "out")
    before = (tmp_path / "out" / MODEL_FILE).read_bytes()
    with pytest.raises(Stop, match="nothing was written"):
        export_tower(tower_folder("bert"), tmp_path / "out")
    assert (tmp_path / "out" / MODEL_FILE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_export_replaces_an_export_and_never_a_tower(tmp_path: Path) -> None:
    shutil.copytree(tower_folder("bert"), tmp_path / "tower")
    with pytest.raises(WrongUse, match=r"holds no model\.onnx"):
        export_tower(tmp_path / "tower", tmp_path / "tower")
    assert Tower.load(tmp_path / "tower").spec == TowerSpec.read(tower_folder("bert"))


def test_an_export_of_another_tower_or_precision_stays_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    out = shutil.copytree(export_folder("bert", "fp32"), tmp_path / "out")
    other = tiny.saved(tmp_path / "other", seed=1)
    for tower, precision in ((other, "fp32"), (tower_folder("bert"), "int8")):
        with pytest.raises(WrongUse, match="holds the export of another tower") as refusal:
            export_tower(tower, out, precision)
        assert "--replace" in str(refusal.value)
        assert TowerSpec.read(out) == TowerSpec.read(export_folder("bert", "fp32"))
    assert export_tower(tower_folder("bert"), out) == TowerSpec.read(out)
    run = CliRunner().invoke(COMMAND, [str(other), "--out", str(out), "--replace"])
    assert run.exit_code == 0, run.output
    assert TowerSpec.read(out).tower_id == TowerSpec.read(other).tower_id


def test_an_export_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(Stop, match="an export cannot be loaded as a tower"):
        export_tower(export_folder("bert", "fp32"), tmp_path / "out")


def test_a_precision_or_a_format_that_is_not_offered_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="'fp16' is not one of fp32, int8"):
        export_tower(tower_folder("bert"), tmp_path / "out", "fp16")
    for option, value in (("--format", "gguf"), ("--precision", "int4")):
        run = CliRunner().invoke(COMMAND, [str(tower_folder("bert")), "--out", str(tmp_path / "o"), option, value])
        assert isinstance(run.exception, WrongUse), run.output
    assert list(tmp_path.iterdir()) == []


def test_the_command_exports_and_says_how_close_it_is(tmp_path: Path) -> None:
    run = CliRunner().invoke(COMMAND, [str(tower_folder("bert")), "--out", str(tmp_path / "out")])
    assert run.exit_code == 0, run.output
    assert TowerSpec.read(tmp_path / "out").tower_id in run.stdout
    assert "smallest cosine 1.0000" in run.stdout


def test_others_find_the_exporter_by_name() -> None:
    (point,) = entry_points(group="bartizan.exporters", name="onnx")
    assert point.load() is export_tower


def test_golden_texts_reach_the_longest_length_and_mixes_hold_every_text() -> None:
    tokens = tiny.tower().tokens
    texts = golden_texts(32)
    lengths = {min(text.length, 32) for text in tokens.encode(texts, "document")}
    assert {2, 3, 32} <= lengths
    groups = mixes(texts)
    for position in range(len(texts)):
        sizes = {len(group) for group in groups if position in group}
        assert {1, len(texts)} <= sizes


def test_the_graph_is_what_others_rely_on() -> None:
    model = onnx.load(export_folder("bert", "fp32") / MODEL_FILE)
    onnx.checker.check_model(model)
    inputs = {i.name: [d.dim_param for d in i.type.tensor_type.shape.dim] for i in model.graph.input}
    assert inputs == {"input_ids": ["batch", "length"], "attention_mask": ["batch", "length"]}
    assert {i.type.tensor_type.elem_type for i in model.graph.input} == {onnx.TensorProto.INT64}
    (output,) = model.graph.output
    assert output.name == "vectors"
    assert [d.dim_param or d.dim_value for d in output.type.tensor_type.shape.dim] == ["batch", 8]
