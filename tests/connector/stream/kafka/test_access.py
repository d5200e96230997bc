"""Who is let in: TLS, SASL, a worker's own certificate; and what is told where a broker or a topic is missing."""

import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bartizan_connector.base.errors import Retry, WrongUse
from bartizan_connector.stream.kafka.source import KafkaSource
from bartizan_training.demo.servers.ports import free_ports
from tests.connector.stream.kafka.media import settings_for, wait_for
from tests.servers.kafka import KafkaServer

pytestmark = pytest.mark.server
_LOGIN = "org.apache.kafka.common.security"
_PLAIN = f"{_LOGIN}.plain.PlainLoginModule"


class Guarded:
    """A broker that asks who comes, and the files that say it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sign("ca", [])
        for name in ("server", "worker"):
            self._sign(name, ["-CA", str(folder / "ca.pem"), "-CAkey", str(folder / "ca.key")])
        bundle = folder / "bundle.pem"
        bundle.write_text("".join((folder / name).read_text() for name in ("server.key", "server.pem", "ca.pem")))
        self.server = KafkaServer(
            folder / "kafka",
            listeners={"LOGIN": "SASL_SSL", "MTLS": "SSL"},
            properties={
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(bundle),
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(folder / "ca.pem"),
                "listener.name.mtls.ssl.client.auth": "required",
                "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256",
                "listener.name.login.plain.sasl.jaas.config": f'{_PLAIN} required user_a="open";',
                "listener.name.login.scram-sha-256.sasl.jaas.config": f"{_LOGIN}.scram.ScramLoginModule required;",
            },
            scram=["SCRAM-SHA-256=[name=a,password=sesame]"],
        )

    def _sign(self, name: str, by: list[str]) -> None:
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
        command += ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", *by]
        files = ["-out", str(self.folder / f"{name}.pem"), "-keyout", str(self.folder / f"{name}.key")]
        subprocess.run([*command, *files], check=True, capture_output=True)

    def first(self, topic: str, listener: str, **more: Any) -> bytes | None:
        """What a worker reads who comes in there."""
        settings = settings_for(self.server, topic, bootstrap=f"127.0.0.1:{self.server.ports[listener]}", **more)
        with closing(KafkaSource.open(settings)) as source:
            found: list[bytes | None] = []

            def read() -> bool:
                batch = source.poll(0.2)
                found.extend(message.value for message in (batch.messages if batch else ()))
                return bool(found)

            wait_for(read)
        return found[0]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    found = Guarded(tmp_path_factory.mktemp("guarded"))
    found.server.start()
    yield found
    found.server.stop()


@pytest.fixture(scope="module")
def topic(guarded: Guarded) -> str:
    name = guarded.server.topic()
    guarded.server.produce(name, [{"key": b"a", "value": b"1"}])
    return name


def test_who_shows_what_is_asked_for_is_let_in(guarded: Guarded, topic: str) -> None:
    tls = {"tls": True, "ca": guarded.folder / "ca.pem"}
    login = tls | {"user": "a"}
    assert guarded.first(topic, "LOGIN", group="g1", sasl="PLAIN", password="open", **login) == b"1"
    assert guarded.first(topic, "LOGIN", group="g2", sasl="SCRAM-SHA-256", password="sesame", **login) == b"1"
    own = {"certificate": guarded.folder / "worker.pem", "key": guarded.folder / "worker.key"}
    assert guarded.first(topic, "MTLS", group="g3", **tls, **own) == b"1"


@pytest.mark.parametrize(
    ("listener", "how"),
    [
        ("LOGIN", {"tls": True, "sasl": "PLAIN", "user": "a", "password": "wrong"}),
        ("LOGIN", {}),
        ("MTLS", {"tls": True}),
    ],
)
def test_who_does_not_is_told_what_to_look_at(guarded: Guarded, topic: str, listener: str, how: dict[str, Any]) -> None:
    ca = {"ca": guarded.folder / "ca.pem"} if how.get("tls") else {}
    with pytest.raises(Retry, match=r"no broker answered at .* are user, password and ca right\?") as refused:
        guarded.first(topic, listener, connect_timeout=4.0, **how, **ca)
    assert "wrong" not in str(refused.value)


def test_nobody_there_a_topic_that_is_not_there_and_a_file_that_is_not_there(
    guarded: Guarded, topic: str, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    with pytest.raises(Retry, match=f"no broker answered at 127.0.0.1:{port} within 1 s"):
        KafkaSource.open(settings_for(guarded.server, topic, bootstrap=f"127.0.0.1:{port}", connect_timeout=1.0))
    with pytest.raises(WrongUse, match=r"has no topic nowhere that this worker may describe"):
        KafkaSource.open(settings_for(guarded.server, "nowhere"))
    with pytest.raises(WrongUse, match=r"there is no file .*gone.pem"):
        KafkaSource.open(settings_for(guarded.server, topic, tls=True, ca=tmp_path / "gone.pem"))
