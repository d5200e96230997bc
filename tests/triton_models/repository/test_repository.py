"""A repository on disk: versions that are never edited, one that is pinned, and what is refused."""

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.encode.onnx import OnnxEncoder
from bartizan_connector.space.spec import TowerSpec
from bartizan_triton.export import export_tower
from bartizan_triton.golden import golden_texts
from bartizan_triton.repository import write
from bartizan_triton.repository.config import CONFIG_FILE, parsed
from bartizan_triton.repository.pin import pin
from bartizan_triton.repository.prune import prune
from bartizan_triton.repository.serving import Serving
from bartizan_triton.repository.shelf import model_in, models_in
from tests.encoders import tiny
from tests.exports import export_folder
from tests.served import added


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_version_is_an_export_itself(tmp_path: Path) -> None:
    version = added(tmp_path, export_folder("bert", "int8"), "model")
    original, served = OnnxEncoder.open(export_folder("bert", "int8")), OnnxEncoder.open(version.folder)
    texts = golden_texts(32)
    np.testing.assert_array_equal(original.encode(texts, "document").values, served.encode(texts, "document").values)
    assert version.spec == original.spec


def test_each_export_is_a_new_version_and_older_ones_stay_as_they_are(tmp_path: Path) -> None:
    added(tmp_path, export_folder("bert", "fp32"), "model")
    before = files(tmp_path)
    assert added(tmp_path, export_folder("bert", "fp32"), "model").number == 2
    assert added(tmp_path, export_folder("bert", "int8"), "model").number == 3
    after = files(tmp_path)
    assert {name: after[name] for name in before} == before  # the pinned version too
    model = model_in(tmp_path, "model")
    assert (list(model.versions), model.pinned) == ([1, 2, 3], 1)
    pin(tmp_path, "model", 3)
    config = parsed((tmp_path / "model" / CONFIG_FILE).read_text())
    assert list(config.version_policy.specific.versions) == [3]
    assert config.parameters["bartizan.tower_id"].string_value == model.versions[3].spec.tower_id


@pytest.mark.packaging
def test_exports_at_the_same_moment_become_versions_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill = write._fill

    def slowly(*what: Any) -> None:
        time.sleep(0.05)  # long enough for the others to take the same number, if they could
        fill(*what)

    monkeypatch.setattr(write, "_fill", slowly)
    repository = tmp_path / "models"
    exports = [export_folder("bert", "fp32"), export_folder("bert", "int8")] * 3
    with ThreadPoolExecutor(len(exports)) as several:
        versions = list(several.map(lambda export: added(repository, export, "model"), exports))
    assert sorted(version.number for version in versions) == [1, 2, 3, 4, 5, 6]
    model = model_in(repository, "model")
    assert model.pinned == 1
    for version, export in zip(versions, exports, strict=True):
        assert model.versions[version.number].spec == TowerSpec.read(export)
        OnnxEncoder.open(version.folder).close()


def test_prune_keeps_what_is_pinned_what_is_newer_and_a_way_back(tmp_path: Path) -> None:
    for _ in range(5):
        added(tmp_path, export_folder("bert", "fp32"), "model")
    pin(tmp_path, "model", 4)
    assert [version.number for _, version in prune(tmp_path, 1)] == [1, 2]
    assert list(model_in(tmp_path, "model").versions) == [3, 4, 5]
    assert [version.number for _, version in prune(tmp_path, 0)] == [3]
    assert prune(tmp_path, 0) == []
    with pytest.raises(WrongUse, match="keep = -1"):
        prune(tmp_path, -1)


def test_the_number_of_a_pruned_version_is_not_given_again(tmp_path: Path) -> None:
    added(tmp_path, export_folder("bert", "fp32"), "model")
    added(tmp_path, export_folder("bert", "fp32"), "model")
    pin(tmp_path, "model", 2)
    prune(tmp_path, 0)
    assert added(tmp_path, export_folder("bert", "fp32"), "model").number == 3


def test_a_tower_that_reads_other_tokens_cannot_be_a_version(tmp_path: Path) -> None:
    added(tmp_path, export_folder("bert", "fp32"), "model")
    spec = TowerSpec.read(export_folder("bert", "fp32"))
    other = spec.model_copy(update={"roles": {"query": spec.roles["query"]}, "space": spec.space_id})
    with pytest.raises(WrongUse, match=r"they differ in roles.*under another --name"):
        write.require_replacement("the tower", before=spec, after=other)


def test_another_backend_is_another_model(tmp_path: Path) -> None:
    added(tmp_path, export_folder("bert", "fp32"), "model")
    with pytest.raises(WrongUse, match="is run by backend 'python'"):
        added(tmp_path, export_folder("bert", "fp32"), "model", Serving())


def test_a_tensorrt_version_brings_the_step_that_builds_its_engine(tmp_path: Path) -> None:
    version = added(tmp_path, export_folder("bert", "fp32"), "model", Serving(backend="tensorrt", device="gpu"))
    script = version.folder / "build-engine.sh"
    assert script.stat().st_mode & 0o100
    assert "maxShapes=input_ids:64x32" in script.read_text()
    assert not (version.folder / "model.py").exists()


def test_what_fails_on_the_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    added(tmp_path, export_folder("bert", "fp32"), "model")
    before = files(tmp_path)
    other = tmp_path.with_name("other-export")
    export_tower(tiny.saved(tmp_path.with_name("other"), "bert", dim=8, seed=1), other)
    wrong = (other / "model.onnx").read_bytes()
    monkeypatch.setattr(write, "for_serving", lambda *_: write.onnx.load_from_string(wrong))
    with pytest.raises(Stop):
        added(tmp_path, export_folder("bert", "fp32"), "model")
    assert files(tmp_path) == before
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["1", CONFIG_FILE]


@pytest.mark.parametrize("name", ["", ".hidden", "a/b", "../up", "a b"])
def test_a_name_that_is_no_folder_of_its_own_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(WrongUse, match="model name"):
        added(tmp_path, export_folder("bert", "fp32"), name or " ")


def test_a_damaged_repository_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="expected a model repository"):
        list(models_in(tmp_path / "nowhere"))
    added(tmp_path, export_folder("bert", "fp32"), "model")
    with pytest.raises(WrongUse, match=r"has no version 9; there are 1"):
        pin(tmp_path, "model", 9)
    (tmp_path / "model" / CONFIG_FILE).write_text("max_batch_size: many")
    with pytest.raises(Stop, match=r"cannot be read as Triton would.*bartizan repo pin"):
        model_in(tmp_path, "model")
    (tmp_path / "model" / CONFIG_FILE).unlink()
    shutil.rmtree(tmp_path / "model" / "1" / "serving.json", ignore_errors=True)
    (tmp_path / "model" / "1" / "serving.json").write_text("[]")
    with pytest.raises(Stop, match="is no version of an exported model"):
        model_in(tmp_path, "model")
