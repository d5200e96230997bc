"""A real Apache Kafka broker in KRaft mode: one process on loopback, from jars that Maven brings once."""

import os
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from bartizan_connector.base.alone import alone_in
from tests.needs import unavailable
from tests.servers.ports import free_ports

HERE = Path(__file__).parent
JARS = HERE.parents[1] / ".tools" / "kafka"
POM, LOGGING = HERE / "kafka.pom.xml", HERE / "kafka.log4j2.properties"
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_CLUSTER = "MkU3OEVBNTcwNTJENDM2Qg"
_MAKE_SECONDS, _START_SECONDS, _STOP_SECONDS = 300.0, 60.0, 10.0
_JVM = (
    "-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData", "-Xlog:disable",
    "-Xlog:all=error:stderr", "-Djava.net.preferIPv4Stack=true", f"-Dlog4j2.configurationFile={LOGGING}",
)  # fmt: skip
_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "num.network.threads": "1",
    "num.io.threads": "2",
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "500",
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "200",
    "log.cleaner.dedupe.buffer.size": "2097152",
    "log.retention.ms": "-1",
}


class KafkaServer:
    """One node, broker and controller, with its own folder. `more` are listeners beside the plain one, by name:
    `{"SASL_SSL": port}` and what `properties` say of them."""

    def __init__(
        self,
        folder: Path,
        *,
        listeners: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        scram: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self._class_path = _class_path()
        self._process: subprocess.Popen[bytes] | None = None
        self._from = 0
        names = ["PLAINTEXT", *(listeners or {})]
        *ports, controller = free_ports(len(names) + 1)
        self.ports = dict(zip(names, ports, strict=True))
        facing = [f"{name}://127.0.0.1:{port}" for name, port in self.ports.items()]
        protocols = {"CONTROLLER": "PLAINTEXT", "PLAINTEXT": "PLAINTEXT", **(listeners or {})}
        facts = _PROPERTIES | {
            "log.dirs": str(folder / "data"),
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": ",".join([*facing, f"CONTROLLER://127.0.0.1:{controller}"]),
            "advertised.listeners": ",".join(facing),
            "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in protocols.items()),
            "inter.broker.listener.name": "PLAINTEXT",
            **(properties or {}),
        }
        folder.mkdir(parents=True, exist_ok=True)
        self._settings = folder / "server.properties"
        self._settings.write_text("".join(f"{key}={value}\n" for key, value in facts.items()))
        users = [part for user in scram for part in ("--add-scram", user)]
        if self._java("kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c", str(self._settings), *users).wait(60):
            unavailable(f"the Kafka broker's folder cannot be made; see {self.log}")

    @property
    def bootstrap(self) -> str:
        """Where it listens in the clear."""
        return f"127.0.0.1:{self.ports['PLAINTEXT']}"

    @property
    def log(self) -> Path:
        """What it said."""
        return self.folder / "broker.log"

    def start(self) -> None:
        """Start the process and wait until it says that it has started."""
        self._from = self.log.stat().st_size
        self._process = self._java("kafka.Kafka", str(self._settings))
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if b"Kafka Server started" in self.log.read_bytes()[self._from :]:
                return
            time.sleep(0.02)
        unavailable(f"the Kafka broker did not start; see {self.log}")

    def kill(self) -> None:
        """Kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Ask the process to end; kill it when it does not."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_SECONDS)
        self.kill()

    def topic(self, partitions: int = 1, **settings: str) -> str:
        """A new topic of a name of its own."""
        from kafka.admin import KafkaAdminClient

        name = f"docs-{uuid.uuid4().hex[:8]}"
        with closing(KafkaAdminClient(bootstrap_servers=self.bootstrap)) as admin:
            admin.create_topics({name: {"num_partitions": partitions, "configs": settings}}, wait_for_metadata=True)
        return name

    def produce(self, topic: str, records: Sequence[Mapping[str, Any]]) -> None:
        """Write records: `key`, `value`, and what else `KafkaProducer.send` takes; all are there when it returns."""
        from kafka import KafkaProducer

        with closing(KafkaProducer(bootstrap_servers=self.bootstrap, linger_ms=5)) as producer:
            for sent in [producer.send(topic, **record) for record in records]:
                sent.get(timeout=30)

    def read(self, topic: str) -> list[Any]:
        """Every record of a topic, as another program reads it; none where there is no such topic."""
        from kafka import KafkaConsumer, TopicPartition

        with closing(KafkaConsumer(bootstrap_servers=self.bootstrap, enable_auto_commit=False)) as consumer:
            numbers = consumer.partitions_for_topic(topic)
            if not numbers:
                return []
            places = [TopicPartition(topic, number) for number in sorted(numbers)]
            consumer.assign(places)
            consumer.seek_to_beginning(*places)
            ends, found = consumer.end_offsets(places), []
            while any(consumer.position(place) < ends[place] for place in places):
                for records in consumer.poll(500).values():
                    found += records
        return found

    def _java(self, *command: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                ["java", *_JVM, "-cp", self._class_path, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def _class_path() -> str:
    """The broker's jars, fetched when they are missing or the list of them has changed."""
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            unavailable(f"the Kafka broker needs {program}, which is not installed")
    JARS.mkdir(parents=True, exist_ok=True)
    stamp, wanted = JARS / ".pom", POM.read_bytes()
    with alone_in(JARS):
        if not stamp.exists() or stamp.read_bytes() != wanted:
            command = ["mvn", "-B", "-ntp", "-q", "-f", str(POM), _PLUGIN, "-DincludeScope=runtime"]
            fetched = subprocess.run(
                [*command, f"-DoutputDirectory={JARS}"],
                timeout=_MAKE_SECONDS,
                capture_output=True,
                text=True,
                check=False,
            )
            if fetched.returncode:
                unavailable(f"Maven cannot bring the Kafka broker: {fetched.stdout[-1000:]}{fetched.stderr[-1000:]}")
            stamp.write_bytes(wanted)
    return os.pathsep.join(sorted(str(path) for path in JARS.glob("*.jar")))
