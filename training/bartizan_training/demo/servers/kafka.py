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

from bartizan_connector.base.alone import alone_in
from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_training.demo.servers.ports import free_ports

HERE = Path(__file__).parent
POM, LOGGING = HERE / "kafka.pom.xml", HERE / "kafka.log4j2.properties"
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_STAMP = ".pom"
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


class Broker:
    """One node, broker and controller, with its own folder. `listeners` are those beside the plain one, by name and
    protocol, and `properties` what is said of them. `jars`: where the broker's jars are, or are brought to."""

    def __init__(
        self,
        folder: Path,
        jars: Path,
        *,
        listeners: Mapping[str, str] | None = None,
        properties: Mapping[str, str] | None = None,
        scram: Sequence[str] = (),
    ) -> None:
        self.folder = folder
        self._class_path = class_path(jars)
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
            raise Stop(f"the Kafka broker's folder cannot be made; see {self.log}")

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
        raise Stop(f"the Kafka broker did not start; see {self.log}")

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

    def _java(self, *command: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(
                ["java", *_JVM, "-cp", self._class_path, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def require(folder: Path) -> None:
    """Refuse where a program is missing; Maven is needed only where the jars are not there yet."""
    _require("java", "install a Java runtime, 17 or newer (Debian: apt install default-jre-headless)")
    if not _are_there(folder):
        _require("mvn", f"install Maven (Debian: apt install maven), which brings the broker's jars to {folder} once")


def class_path(folder: Path) -> str:
    """The broker's jars, fetched when they are missing or the list of them has changed."""
    require(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder):
        if not _are_there(folder):
            command = ["mvn", "-B", "-ntp", "-q", "-f", str(POM), _PLUGIN, "-DincludeScope=runtime"]
            fetched = subprocess.run(
                [*command, f"-DoutputDirectory={folder.absolute()}"],
                timeout=_MAKE_SECONDS,
                capture_output=True,
                text=True,
                check=False,
            )
            if fetched.returncode:
                raise Stop(f"Maven cannot bring the Kafka broker: {fetched.stdout[-1000:]}{fetched.stderr[-1000:]}")
            (folder / _STAMP).write_bytes(POM.read_bytes())
    return os.pathsep.join(sorted(str(path.absolute()) for path in folder.glob("*.jar")))


def _are_there(folder: Path) -> bool:
    stamp = folder / _STAMP
    return stamp.exists() and stamp.read_bytes() == POM.read_bytes()


def _require(program: str, way_out: str) -> None:
    if shutil.which(program) is None:
        raise WrongUse(f"the Kafka broker needs {program}, which is not installed here: {way_out}")
