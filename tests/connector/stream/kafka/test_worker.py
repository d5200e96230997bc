"""The worker as an operator runs it: a process with an address, brokers that go away, and SIGTERM."""

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.connector.stream.kafka.media import wait_for
from tests.exports import export_folder
from tests.servers.kafka import KafkaServer

pytestmark = pytest.mark.server
AWAY_SECONDS = 60.0


class Worker:
    """`bartizan ingest --follow --listen` in a process of its own."""

    def __init__(self, folder: Path, server: KafkaServer, topic: str) -> None:
        config, self.log = folder / "bartizan.toml", folder / "log"
        config.write_text(
            f'[collection]\nname = "docs"\n[spaces.dense]\ndocument_tower = "{export_folder("bert", "int8")}"\n'
            f'[backend]\nuri = "index"\n[source]\nkind = "kafka"\nbootstrap = "{server.bootstrap}"\n'
            f'topic = "{topic}"\ngroup = "of-{topic}"\nsession_timeout = 4\n'
        )
        command = [sys.executable, "-m", "bartizan_connector", "ingest", str(config), "--follow", "--json"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE, stderr=log, text=True
            )
        wait_for(lambda: "metrics and health at" in self.log.read_text(), 60)
        found = re.search(r"metrics and health at (\S+):", self.log.read_text())
        assert found is not None
        self.url = found[1]

    def get(self, page: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"{self.url}/{page}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def value(self, series: str) -> float:
        found = re.search(rf"^{re.escape(f'bartizan_ingest_{series}')} (\S+)$", self.get("metrics")[1], re.MULTILINE)
        return float(found[1]) if found else -1.0


def test_brokers_that_are_away_for_a_minute_are_waited_for_and_told(tmp_path: Path) -> None:
    server = KafkaServer(tmp_path / "kafka")
    server.start()
    worker = None
    try:
        topic = server.topic(partitions=2)
        records = [{"key": f"d{n}".encode(), "value": b'{"text": "a tower"}'} for n in range(40)]
        server.produce(topic, [*records, {"key": b"bad", "value": b"{"}])
        worker = Worker(tmp_path, server, topic)
        written = 'messages_total{collection="docs",outcome="written"}'
        wait_for(lambda: worker.value(written) == 40, 60)
        wait_for(lambda: worker.get("readyz") == (200, "ok\n"), 20)
        wait_for(lambda: worker.value(f'lag{{collection="docs",partition="{topic}[0]"}}') == 0, 20)
        assert worker.value('messages_total{collection="docs",outcome="dead"}') == 1
        assert worker.value('freshness_seconds_count{collection="docs"}') == 40
        server.kill()
        gone = time.monotonic()
        wait_for(lambda: worker.get("readyz")[0] == 503, 40)
        assert "do not answer" in worker.get("readyz")[1]
        while time.monotonic() - gone < AWAY_SECONDS:
            assert worker.get("healthz") == (200, "ok\n")
            assert worker.process.poll() is None
            time.sleep(2.0)
        server.start()
        server.produce(topic, [{"key": b"after", "value": b'{"text": "a bartizan"}'}])
        wait_for(lambda: worker.value(written) == 41, 90)
        wait_for(lambda: worker.get("readyz") == (200, "ok\n"), 30)
        worker.process.terminate()
        out, _ = worker.process.communicate(timeout=40)
        assert worker.process.returncode == 0, worker.log.read_text()
        report = json.loads(out)
        assert (report["written"], report["dead"]) == (41, 1)
    finally:
        if worker is not None and worker.process.poll() is None:
            worker.process.kill()
            worker.process.communicate()
        server.stop()


def test_who_is_told_to_end_while_brokers_are_away_ends_soon(tmp_path: Path) -> None:
    server = KafkaServer(tmp_path / "kafka")
    server.start()
    worker = None
    try:
        worker = Worker(tmp_path, server, server.topic())
        wait_for(lambda: worker.get("readyz") == (200, "ok\n"), 60)
        server.kill()
        worker.process.terminate()
        worker.process.communicate(timeout=40)
        assert worker.process.returncode == 0, worker.log.read_text()
    finally:
        if worker is not None and worker.process.poll() is None:
            worker.process.kill()
            worker.process.communicate()
        server.stop()
