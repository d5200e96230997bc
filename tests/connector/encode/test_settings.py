"""Encoders' tables: each engine has its own keys, others bring theirs by entry point, and mistakes are named."""

import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field, SecretStr

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.base.tables import Table, check
from bartizan_connector.encode import settings as settings_module
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.encode.settings import AnyEncoder, EncoderSettings, OnnxSettings, encoder_settings
from bartizan_connector.encode.triton.settings import TritonSettings
from bartizan_connector.testing.encoder_fake import HashEncoder
from bartizan_encoders.settings import TorchSettings
from tests.encoders import tiny
from tests.exports import export_folder


class RemoteSettings(EncoderSettings):
    """A third party's engine, elsewhere: no threads, but an address."""

    class Tls(Table):
        """A table inside the table."""

        authority: Path | None = None

    engine: Literal["remote"] = "remote"
    address: str
    version: int | None = None
    token: SecretStr | None = None
    tls: Tls = Tls()

    def open(self, folder: Path) -> Encoder:
        return HashEncoder(seed=self.version or 0)


class File(Table):
    """A configuration with encoders in it, one alone and one for each role."""

    encoder: AnyEncoder = OnnxSettings()
    roles: dict[str, AnyEncoder] = Field(default={})


@pytest.fixture
def _others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines of other packages: one, and one whose entry point names something else."""
    known = {
        name: EntryPoint(name, f"{value}", settings_module.GROUP)
        for name, value in {
            "onnx": "bartizan_connector.encode.settings:OnnxSettings",
            "remote": f"{__name__}:RemoteSettings",
            "wrong": "bartizan_connector.testing.encoder_fake:HashEncoder",
        }.items()
    }
    monkeypatch.setattr(settings_module, "_engines", lambda: known)


def test_the_installed_engines_are_settings_of_their_name() -> None:
    found = {point.name: point.load() for point in entry_points(group=settings_module.GROUP)}
    assert found == {"onnx": OnnxSettings, "torch": TorchSettings, "triton": TritonSettings}
    assert {name: model.model_fields["engine"].default for name, model in found.items()} == {
        name: name for name in found
    }


def test_a_table_is_of_the_engine_that_it_names_and_of_onnx_otherwise() -> None:
    assert encoder_settings({}) == OnnxSettings()
    assert encoder_settings({"threads": 2}) == OnnxSettings(threads=2)
    assert encoder_settings({"engine": "torch", "batch_tokens": 64}) == TorchSettings(batch_tokens=64)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"engine": "abacus"}, "unknown engine 'abacus'; known: onnx, torch"),
        ({"engine": 3}, "unknown engine 3; known: onnx, torch"),
        ({"engine": "torch", "thread": 3}, "unknown key thread; known here: batch_tokens, engine, threads"),
        ({"threads": -1}, "threads: must be greater than or equal to 0, but -1 came"),
        ({"threads": "many", "batch_tokens": 0}, "threads: must be a whole number.*batch_tokens: must be greater"),
    ],
)
def test_a_table_that_cannot_be_is_refused_with_what_is_known(table: dict[str, Any], why: str) -> None:
    with pytest.raises(WrongUse, match=why):
        encoder_settings(table)


@pytest.mark.parametrize(("engine", "make"), [("onnx", export_folder), ("torch", None)])
def test_the_table_opens_the_encoder(engine: str, make: Any, tmp_path: Path) -> None:
    folder = make("bert", "fp32") if make else tiny.saved(tmp_path / "tower")
    encoder = encoder_settings({"engine": engine, "threads": 1, "batch_tokens": 32}).open(folder)
    assert len(encoder.encode(["the tower"] * 20, "query")) == 20
    encoder.close()


@pytest.mark.usefixtures("_others")
def test_an_engine_of_another_package_has_keys_of_its_own() -> None:
    table = {"engine": "remote", "address": "host:8001", "version": 3, "tls": {"authority": "ca.pem"}}
    file = check(File, {"encoder": table, "roles": {"query": {"threads": 1}, "document": table}}, Path("x.toml"))
    assert file.encoder == file.roles["document"]
    assert file.encoder == RemoteSettings(
        address="host:8001", version=3, tls=RemoteSettings.Tls(authority=Path("ca.pem"))
    )
    assert file.roles["query"] == OnnxSettings(threads=1)
    assert file.encoder.open(Path()).spec.name == "hash-3"
    assert File.model_validate(file.model_dump()) == file  # every key of the engine's own is in the dump
    with pytest.raises(WrongUse, match=r"the entry point bartizan_connector\.testing.* names no EncoderSettings"):
        encoder_settings({"engine": "wrong"})


@pytest.mark.usefixtures("_others")
def test_in_a_file_every_mistake_is_told_with_its_place_and_where_it_came_from() -> None:
    tables = {
        "encoder": {"engine": "remote", "adress": "x", "tls": {"key": "y"}, "version": "new"},
        "roles": {"query": {"engine": "abacus"}, "document": {"threads": -1}},
        "roads": {},
    }
    origins = {("encoder", "version"): "BARTIZAN__ENCODER__VERSION"}
    with pytest.raises(WrongUse) as refusal:
        check(File, tables, Path("x.toml"), origins=origins)
    told = str(refusal.value)
    for part in (
        "unknown key encoder.adress; known here: address, engine, tls, token, version",
        "encoder.address: is missing",
        "unknown key encoder.tls.key; known here: authority",
        "BARTIZAN__ENCODER__VERSION: encoder.version: must be a whole number, but 'new' came",
        "roles.query: unknown engine 'abacus'; known: onnx, remote, wrong",
        "roles.document.threads: must be greater than or equal to 0, but -1 came",
        "unknown key roads; known here: encoder, roles",
    ):
        assert part in told
    with pytest.raises(WrongUse, match=r"encoder: must be a table, but 'onnx' came"):
        check(File, {"encoder": "onnx"}, Path("x.toml"))


@pytest.mark.usefixtures("_others")
def test_a_secret_is_not_told() -> None:
    with pytest.raises(WrongUse) as refusal:
        check(File, {"encoder": {"engine": "remote", "address": "x", "token": 12345}}, Path("x.toml"))
    assert "12345" not in str(refusal.value)


def test_reading_tables_imports_no_engine() -> None:
    probe = (
        "import sys; from bartizan_connector.encode.settings import encoder_settings as of, AnyEncoder;"
        "import bartizan_connector.encode.export; of({}); of({'engine': 'torch'});"
        "print(*sorted({'torch', 'transformers', 'onnxruntime', 'tokenizers'} & set(sys.modules)), 'fine')"
    )
    printed = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["fine"]
