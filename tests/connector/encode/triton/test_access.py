"""Who is let in: TLS with and without a client's certificate, tokens, and addresses that are none."""

import subprocess
from pathlib import Path

import pytest

from bartizan_connector.base.errors import Retry, WrongUse
from bartizan_connector.encode.settings import encoder_settings
from bartizan_connector.encode.triton.calls import Access
from bartizan_connector.encode.triton.encoder import TritonEncoder
from bartizan_connector.space.spec import TowerSpec
from bartizan_connector.space.tokens import Tokens
from tests.exports import export_folder, tower_folder
from tests.served import added
from tests.servers.triton import TritonServer


def opened(access: Access) -> TritonEncoder:
    spec = TowerSpec.read(tower_folder("bert"))
    return TritonEncoder.open(access, Tokens.read(tower_folder("bert"), spec), spec, model="model", timeout=3)


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for loopback, and its key."""
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-out", paths[0], "-keyout", paths[1]],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return paths


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    added(tmp_path / "models", export_folder("bert", "fp32"), "model")
    return tmp_path / "models"


@pytest.mark.server
def test_tls_both_ways(repository: Path, tmp_path: Path) -> None:
    ours, theirs = certificate(tmp_path, "server"), certificate(tmp_path, "client")
    server = TritonServer(
        repository,
        options=(
            "--grpc-use-ssl=true",
            "--grpc-use-ssl-mutual=true",
            f"--grpc-server-cert={ours[0]}",
            f"--grpc-server-key={ours[1]}",
            f"--grpc-root-cert={theirs[0]}",
        ),
    )
    server.start()
    try:
        url = server.url.replace("grpc://", "grpcs://")
        encoder = opened(Access(url=url, ca=ours[0], certificate=theirs[0], key=theirs[1]))
        assert len(encoder.encode(["a", "b"], "query")) == 2
        encoder.close()
        for stranger in (Access(url=url), Access(url=url, ca=ours[0]), Access(url=server.url)):
            with pytest.raises(Retry):
                opened(stranger)
    finally:
        server.stop()


@pytest.mark.server
def test_a_token_that_the_server_wants(repository: Path, tmp_path: Path) -> None:
    server = TritonServer(repository, options=("--grpc-restricted-protocol=inference,metadata:admin=open sesame",))
    server.start()
    try:
        with pytest.raises(WrongUse, match=r"restricted.*give the token"):
            opened(Access(url=server.url))
        secret = tmp_path / "secret"
        secret.write_text("open sesame\n")
        table = {"engine": "triton", "url": server.url, "model": "model", "token_file": secret}
        table["token_header"] = "triton-grpc-protocol-admin"
        encoder = encoder_settings(table).open(tower_folder("bert"))
        assert len(encoder.encode(["a"], "query")) == 1
        encoder.close()
    finally:
        server.stop()


def test_a_bearer_token_by_default_and_never_shown() -> None:
    assert Access(url="grpc://h:1", token="sesame").metadata == (("authorization", "Bearer sesame"),)
    assert Access(url="grpc://h:1", token="sesame", token_header="X-Key").metadata == (("x-key", "sesame"),)
    settings = encoder_settings({"engine": "triton", "url": "grpc://h:1", "token": "sesame"})
    assert "sesame" not in repr(settings) + settings.model_dump_json()
    assert "sesame" not in repr(Access(url="grpc://h:1", token="sesame"))


@pytest.mark.parametrize("url", ["localhost:8001", "http://localhost:8000", "grpc://localhost", "grpc://u:p@h:1", ""])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(WrongUse, match="grpc://host:port or grpcs://host:port"):
        Access(url=url)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"url": "grpc://h:1", "ca": Path("ca.pem")}, "is no TLS address"),
        ({"url": "grpcs://h:1", "key": Path("key.pem")}, "needs its key"),
    ],
)
def test_certificates_that_do_not_fit_are_refused(how: dict[str, object], why: str) -> None:
    with pytest.raises(WrongUse, match=why):
        Access(**how)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({}, "url"),
        ({"url": "grpc://h:1", "token": "a", "token_file": "b"}, "not both"),
        ({"url": "grpc://h:1", "threads": 2}, "threads"),
        ({"url": "grpc://h:1", "timeout": 0}, "timeout"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(table: dict[str, object], why: str) -> None:
    with pytest.raises(WrongUse, match=why):
        encoder_settings({"engine": "triton", **table})
