"""A Milvus server that wants a token: whom it lets in, what the others are told, and that no secret is ever shown."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pymilvus import MilvusClient

from bartizan_connector.__main__ import main
from bartizan_connector.base.errors import WrongUse
from bartizan_connector.config import Config
from bartizan_connector.store.milvus import MilvusBackend
from bartizan_connector.testing.rows import COLLECTION, queries, row
from tests.exports import export_folder
from tests.servers.milvus import ROOT_TOKEN, MilvusServer, milvus_server

pytestmark = pytest.mark.server

WAY_OUT = r"Set \[backend\] token_file, or the environment's BARTIZAN__BACKEND__TOKEN, or \[backend\] token"
SECRET = "s3cret-of-nobody"
ENVIRONMENT = "BARTIZAN__BACKEND__TOKEN"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, milvus_binaries: Path) -> Iterator[MilvusServer]:
    server = milvus_server(tmp_path_factory.mktemp("guarded"), milvus_binaries, ROOT_TOKEN)
    yield server
    server.stop()


@pytest.fixture
def config(tmp_path: Path, guarded: MilvusServer) -> Path:
    """A configuration without a token, and a corpus of one document."""
    (tmp_path / "corpus.jsonl").write_text(json.dumps({"_id": "a", "text": "the tower"}), encoding="utf-8")
    path = tmp_path / "bartizan.toml"
    path.write_text(
        f'[collection]\nname = "docs"\n[spaces.dense]\ndocument_tower = "{export_folder("bert", "fp32")}"\n'
        "[encoders.document]\nthreads = 1\n"
        f'[source]\npath = "corpus.jsonl"\n[backend]\nconsistency = "Strong"\nuri = "{guarded.uri}"\n',
        encoding="utf-8",
    )
    return path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exited:
        main(arguments)
    return int(exited.value.code or 0)


def test_the_right_token_lets_in(guarded: MilvusServer) -> None:
    backend = MilvusBackend(guarded.uri, token=ROOT_TOKEN, consistency="Strong")
    store = backend.open(COLLECTION)
    store.upsert([row("a", [1, 0, 0, 0])])
    assert store.search("dense", queries([1, 0, 0, 0]), 1)[0][0].id == "a"
    assert set(store.heads(["a"])) == {"a"}
    backend.close()


@pytest.mark.parametrize("token", [None, f"root:{SECRET}", f"nobody:{SECRET}", SECRET])
def test_no_token_and_a_wrong_one_are_refused_at_once_and_told_what_to_set(
    guarded: MilvusServer, token: str | None
) -> None:
    begun = time.monotonic()
    with pytest.raises(WrongUse, match=WAY_OUT) as refusal:
        MilvusBackend(guarded.uri, token=token).open(COLLECTION)
    assert time.monotonic() - begun < 8
    assert refusal.value.exit_code == 2
    assert guarded.uri in str(refusal.value)
    assert SECRET not in str(refusal.value)


def test_the_token_comes_from_the_file_the_environment_or_the_configuration(config: Path) -> None:
    (config.parent / "token").write_text(f"{ROOT_TOKEN}\n", encoding="utf-8")
    text = config.read_text(encoding="utf-8")
    given: list[tuple[str, dict[str, str]]] = [
        ('token_file = "token"\n', {}),
        (f'token = "{ROOT_TOKEN}"\n', {}),
        ("", {ENVIRONMENT: ROOT_TOKEN}),
    ]
    for line, environment in given:
        config.write_text(text + line, encoding="utf-8")
        backend = Config.load(config, environment).backend.open()
        backend.open(COLLECTION)
        backend.close()


def test_the_commands_get_in_by_a_token_file_and_are_told_without_one(
    config: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in (["ingest", str(config)], ["search", "tower", "--config", str(config)]):
        assert run(*command) == 2
        assert "missing authorization" in capfd.readouterr().err
    monkeypatch.setenv(ENVIRONMENT, f"root:{SECRET}")
    assert run("doctor", "--config", str(config)) == 2
    printed = "".join(capfd.readouterr())
    assert "does not let us in" in " ".join(printed.split())
    assert SECRET not in printed
    monkeypatch.delenv(ENVIRONMENT)
    (config.parent / "token").write_text(ROOT_TOKEN, encoding="utf-8")
    config.write_text(config.read_text(encoding="utf-8") + 'token_file = "token"\n', encoding="utf-8")
    assert run("ingest", str(config)) == 0
    assert run("search", "tower", "--config", str(config), "--json") == 0
    printed = "".join(capfd.readouterr())
    assert '"id": "a"' in printed
    assert ROOT_TOKEN not in printed


def test_a_user_without_the_privilege_is_told_to_get_it(guarded: MilvusServer) -> None:
    root = MilvusClient(guarded.uri, token=ROOT_TOKEN, timeout=10)
    root.create_user("reader", SECRET, timeout=10)
    root.close()
    with pytest.raises(WrongUse, match=r"does not let this user do it: .*Grant that user the privilege") as refusal:
        MilvusBackend(guarded.uri, token=f"reader:{SECRET}").open(COLLECTION.model_copy(update={"name": "new"}))
    assert SECRET not in str(refusal.value)
