"""OnnxEncoder under the conformance suite, and its refusal of files that do not belong together."""

import hashlib
import json
import shutil
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from bartizan_connector.base.errors import Retry, SpaceMismatch, Stop, WrongUse
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.encode.export import MODEL_FILE, MODEL_HASH, PARITY_FILE, SPEC_KEY, Export
from bartizan_connector.encode.onnx import OnnxEncoder, OnnxEngine, open_session
from bartizan_connector.space.spec import SPEC_FILE, TowerSpec
from bartizan_connector.space.tokens import TOKENIZER_FILE
from bartizan_connector.testing.encoder import TEXTS, EncoderSuite, Opener
from tests.exports import export_folder


class TestExact(EncoderSuite):
    def make(self) -> Encoder:
        return OnnxEncoder.open(export_folder("bert", "fp32"))

    def opener(self) -> Opener:
        return OnnxEncoder.open, export_folder("bert", "fp32")


@pytest.mark.packaging
class TestExactOnOneThreadInSmallBatches(EncoderSuite):
    def make(self) -> Encoder:
        return OnnxEncoder.open(export_folder("bert", "fp32"), threads=1, batch_tokens=50)


class TestInt8(EncoderSuite):
    def make(self) -> Encoder:
        return OnnxEncoder.open(export_folder("bert", "int8"))


class TestDecoder(EncoderSuite):
    def make(self) -> Encoder:
        return OnnxEncoder.open(export_folder("llama", "fp32"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of an export to spoil."""
    return Path(shutil.copytree(export_folder("bert", "fp32"), tmp_path / "export"))


def _accepted(folder: Path) -> None:
    """Let the parity record name the model that is there now."""
    parity = json.loads((folder / PARITY_FILE).read_bytes())
    parity[MODEL_HASH] = hashlib.sha256((folder / MODEL_FILE).read_bytes()).hexdigest()
    (folder / PARITY_FILE).write_text(json.dumps(parity))


def test_a_running_batch_is_broken_off_at_its_deadline() -> None:
    export = Export.read(export_folder("bert", "fp32"))
    engine = OnnxEngine(open_session(export), export.spec, threads=1)
    ids = np.full((4000, 32), 5, dtype=np.int64)
    begun = time.monotonic()
    engine.run(ids, np.ones_like(ids), deadline=None)
    whole = time.monotonic() - begun

    def broken_off() -> float:
        begun = time.monotonic()
        with pytest.raises(Retry, match="took longer than its timeout"):
            engine.run(ids, np.ones_like(ids), deadline=begun + whole / 10)
        return time.monotonic() - begun

    assert any(broken_off() < whole / 2 for _ in range(5)), "each of five was held up"
    few = ids[:4]
    assert len(engine.run(few, np.ones_like(few), deadline=time.monotonic() + 600).values) == 4


def test_threads_share_a_corpus_and_change_no_vector() -> None:
    texts = [f"{text} {i}" for i in range(40) for text in TEXTS]
    one, four = (OnnxEncoder.open(export_folder("bert", "fp32"), threads=threads) for threads in (1, 4))
    np.testing.assert_allclose(one.encode(texts, "document").values, four.encode(texts, "document").values, atol=1e-6)
    one.close()
    four.close()


@pytest.mark.parametrize("name", [MODEL_FILE, PARITY_FILE, TOKENIZER_FILE])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(Stop, match=name.replace(".", r"\.")):
        OnnxEncoder.open(folder)


def test_a_folder_that_is_no_tower_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="is not a tower"):
        OnnxEncoder.open(tmp_path)


@pytest.mark.parametrize("content", [b"", b"garbage" * 99, None])
def test_a_damaged_model_is_refused(folder: Path, content: bytes | None) -> None:
    whole = (folder / MODEL_FILE).read_bytes()
    (folder / MODEL_FILE).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(Stop, match=r"model\.onnx is damaged"):
        OnnxEncoder.open(folder)


def test_a_model_that_did_not_pass_the_gate_is_refused(folder: Path) -> None:
    model = onnx.load(folder / MODEL_FILE)
    model.doc_string = "changed afterwards"
    onnx.save(model, folder / MODEL_FILE)
    with pytest.raises(Stop, match="not the file that passed the parity gate"):
        OnnxEncoder.open(folder)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff"])
def test_a_damaged_parity_report_is_refused(folder: Path, content: bytes) -> None:
    (folder / PARITY_FILE).write_bytes(content)
    with pytest.raises(Stop, match=r"parity\.json is damaged"):
        OnnxEncoder.open(folder)


def test_another_exports_model_is_another_space(folder: Path) -> None:
    for name in (MODEL_FILE, PARITY_FILE):
        shutil.copy(export_folder("llama", "fp32") / name, folder / name)
    with pytest.raises(SpaceMismatch, match="exported from another tower") as caught:
        OnnxEncoder.open(folder)
    llama = TowerSpec.read(export_folder("llama", "fp32"))
    assert (caught.value.expected, caught.value.came) == (TowerSpec.read(folder).space_id, llama.space_id)
    assert caught.value.exit_code == 3


def test_a_model_of_the_same_space_but_another_precision_is_refused(folder: Path) -> None:
    for name in (MODEL_FILE, PARITY_FILE):
        shutil.copy(export_folder("bert", "int8") / name, folder / name)
    with pytest.raises(SpaceMismatch, match=TowerSpec.read(export_folder("bert", "int8")).tower_id):
        OnnxEncoder.open(folder)


def test_a_model_without_a_spec_is_refused(folder: Path) -> None:
    model = onnx.load(folder / MODEL_FILE)
    del model.metadata_props[:]
    onnx.save(model, folder / MODEL_FILE)
    _accepted(folder)
    with pytest.raises(Stop, match="carries no spec"):
        OnnxEncoder.open(folder)


def test_an_edited_spec_and_an_edited_tokenizer_are_refused(folder: Path) -> None:
    spec, tokenizer = (folder / SPEC_FILE).read_text(), json.loads((folder / TOKENIZER_FILE).read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (folder / TOKENIZER_FILE).write_text(json.dumps(tokenizer))
    with pytest.raises(SpaceMismatch, match="not the tokenizer"):
        OnnxEncoder.open(folder)
    (folder / SPEC_FILE).write_text(spec.replace('"max_tokens": 32', '"max_tokens": 16'))
    with pytest.raises(SpaceMismatch, match="was changed after it was written"):
        OnnxEncoder.open(folder)


def test_the_spec_inside_the_model_is_the_spec_beside_it() -> None:
    folder = export_folder("bert", "int8")
    inside = {entry.key: entry.value for entry in onnx.load(folder / MODEL_FILE).metadata_props}
    assert TowerSpec.from_json(inside[SPEC_KEY], origin="model") == TowerSpec.read(folder)
