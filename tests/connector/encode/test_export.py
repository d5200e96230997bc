"""What an export is: whole files of one tower, and golden texts that this machine must encode as the tower did."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.encode.export import GOLDEN_HASH, MODEL_FILE, PARITY_FILE, Export
from bartizan_connector.encode.golden import GOLDEN_FILE, Golden, golden_json, golden_of, require_golden
from bartizan_connector.encode.onnx import OnnxEncoder
from bartizan_connector.encode.settings import OnnxSettings
from bartizan_connector.space.spec import Kind, Precision
from bartizan_connector.space.vectors import sparse_rows
from bartizan_encoders.local import TorchEncoder
from bartizan_encoders.settings import TorchSettings
from tests.connector.encode.engines import counting
from tests.exports import export_folder, tower_folder

TEXTS = ("the tower", "", "one of two", "?")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of an export to spoil."""
    return Path(shutil.copytree(export_folder("bert", "fp32"), tmp_path / "export"))


def _recorded(folder: Path, content: str) -> None:
    """Golden texts that the parity record knows."""
    (folder / GOLDEN_FILE).write_text(content, encoding="utf-8")
    parity = json.loads((folder / PARITY_FILE).read_bytes())
    parity[GOLDEN_HASH] = hashlib.sha256(content.encode()).hexdigest()
    (folder / PARITY_FILE).write_text(json.dumps(parity))


@pytest.mark.packaging
@pytest.mark.parametrize("name", [MODEL_FILE, PARITY_FILE, GOLDEN_FILE])
def test_a_flipped_bit_anywhere_is_told_and_never_loaded(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    places = np.random.default_rng(0).integers(0, len(whole) * 8, size=60)
    for place in places.tolist():
        spoilt = bytearray(whole)
        spoilt[place // 8] ^= 1 << place % 8
        (folder / name).write_bytes(spoilt)
        if name == PARITY_FILE and _same_hashes(bytes(spoilt), whole):
            continue  # a flip among the figures that are only for people
        with pytest.raises(
            Stop, match=rf"({name.replace('.', chr(92) + '.')}|{GOLDEN_FILE}|{MODEL_FILE}).* is damaged"
        ):
            OnnxEncoder.open(folder)


def _same_hashes(one: bytes, other: bytes) -> bool:
    try:
        facts = [json.loads(each) for each in (one, other)]
    except ValueError:
        return False
    return all(facts[0].get(key) == facts[1][key] for key in ("model_sha256", GOLDEN_HASH))


def test_an_export_carries_short_texts_for_each_unlike_role_with_the_towers_own_vectors() -> None:
    golden = Export.read(export_folder("bert", "fp32")).golden()
    assert [each.role for each in golden] == ["query", "document"]
    tower = TorchEncoder.open(tower_folder("bert"))
    for each in golden:
        assert 10 <= len(each.texts) <= 24
        np.testing.assert_allclose(each.values, tower.encode(each.texts, each.role).values, atol=1e-6)


def test_an_export_without_golden_texts_opens_as_before(folder: Path) -> None:
    parity = json.loads((folder / PARITY_FILE).read_bytes())
    del parity[GOLDEN_HASH]
    (folder / PARITY_FILE).write_text(json.dumps(parity))
    (folder / GOLDEN_FILE).unlink()
    assert Export.read(folder).golden() == ()
    OnnxEncoder.open(folder).close()


def test_golden_texts_that_were_lost_are_missed(folder: Path) -> None:
    (folder / GOLDEN_FILE).unlink()
    with pytest.raises(Stop, match=r"lacks golden\.json: it is not a finished export"):
        OnnxEncoder.open(folder)


@pytest.mark.parametrize("content", ["", "[]", "{}x", '{"query": {"texts": ["a"]}}', '{"query": {"texts": 3}}'])
def test_golden_texts_that_cannot_be_read_are_told(folder: Path, content: str) -> None:
    _recorded(folder, content)
    with pytest.raises(Stop, match=r"golden\.json is damaged"):
        OnnxEncoder.open(folder)


@pytest.mark.parametrize(
    ("precision", "way_out"),
    [
        ("fp32", r"at least 0\.9999 is asked\. Export the tower again on a machine like this one$"),
        (
            "int8",
            r"at least 0\.98 is asked\. Export.*or use its fp32 export: on some processors int8 products saturate",
        ),
    ],
)
def test_a_machine_that_gives_other_vectors_is_refused(tmp_path: Path, precision: Precision, way_out: str) -> None:
    folder = Path(shutil.copytree(export_folder("bert", precision), tmp_path / "export"))
    (query, document) = Export.read(folder).golden()
    assert isinstance(document.values, np.ndarray)
    moved = document.values.copy()
    moved[3] = np.roll(moved[3], 1)
    _recorded(folder, golden_json([query, Golden(role="document", texts=document.texts, values=moved)]))
    with pytest.raises(Stop, match=way_out) as refusal:
        OnnxEncoder.open(folder)
    assert f"text {document.texts[3]!r}" in str(refusal.value)
    assert "gives other vectors on this machine" in str(refusal.value)


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_golden_vectors_survive_the_file_bit_for_bit(kind: Kind) -> None:
    values = np.random.default_rng(1).standard_normal((4, 100)).astype(np.float32)
    values[values < 0.5] = 0
    given = Golden(role="query", texts=TEXTS, values=values if kind == "dense" else sparse_rows(values))
    (back,) = golden_of(golden_json([given]).encode(), origin="test")
    assert (back.role, back.texts) == (given.role, given.texts)
    for one, other in zip(given.values, back.values, strict=True):
        if isinstance(one, np.ndarray):
            np.testing.assert_array_equal(one, other)
        else:
            np.testing.assert_array_equal(one.indices, other.indices)
            np.testing.assert_array_equal(one.weights, other.weights)


def test_sparse_golden_texts_are_compared_by_cosine_too() -> None:
    loop, _ = counting("sparse")
    golden = Golden(role="query", texts=TEXTS, values=loop.encode(TEXTS, "query").values)
    require_golden(loop, [golden], "the export")
    for answers in (
        lambda counts: counts[:, ::-1],
        lambda counts: counts * 0,
        lambda counts: counts + 1,
        lambda counts: counts * 2,
    ):
        other, _ = counting("sparse", answers=answers)
        with pytest.raises(Stop, match="the export gives other vectors"):
            require_golden(other, [golden], "the export")
    scaled, _ = counting("sparse", answers=lambda counts: counts * np.float32(1 + 1e-4))
    require_golden(scaled, [golden], "the export")


def test_a_tower_as_it_was_trained_is_told_how_to_become_an_export() -> None:
    tower = tower_folder("bert")
    for use in (Export.read, OnnxEncoder.open, OnnxSettings().open, OnnxSettings().require):
        with pytest.raises(WrongUse, match="is a tower as it was trained, not an export") as refusal:
            use(tower)
        assert f"bartizan export {tower} --out DIR" in str(refusal.value)
        assert 'engine = "torch"' in str(refusal.value)


def test_an_export_is_nothing_for_torch() -> None:
    with pytest.raises(WrongUse, match="is an export, and torch runs towers as they were trained"):
        TorchSettings().require(export_folder("bert", "fp32"))
    TorchSettings().require(tower_folder("bert"))
    OnnxSettings().require(export_folder("bert", "fp32"))
