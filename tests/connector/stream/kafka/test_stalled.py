"""A worker that stalls in the very call that writes and wakes when its partition is another's: newer rows stand."""

import json
import signal
import subprocess
import time
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from tests.connector.stream.kafka.media import wait_for
from tests.connector.stream.kafka.mortals import ENCODER, Post, opened
from tests.connector.stream.streams import collection_for
from tests.connector.stream.test_crashes import start
from tests.servers.kafka import KafkaServer
from tests.servers.milvus import MilvusServer

pytestmark = pytest.mark.server
_WORKER = """
import json, logging, sys, time, pymilvus
from pathlib import Path
from pymilvus import MilvusException
from tests.connector.stream.kafka import mortals
logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
post, mark = mortals.Post(**json.loads(sys.argv[1])), Path(sys.argv[2])
upsert, tries = pymilvus.MilvusClient.upsert, [0]
def stalling(self, name, data, **more):
    if any(row.get("text") == "old" for row in data) and tries[0] < 3:
        tries[0] += 1
        if tries[0] < 3:
            raise MilvusException(code=1, message="service unavailable")
        mark.write_text("asleep")
        while mark.read_text() != "awake":  # stopped from outside: who stops itself may still do more than that
            time.sleep(0.01)
        while True:
            try:
                answer = upsert(self, name, data, **more)
            except MilvusException as error:
                if error.code != 100:  # the server has not answered: it is to say what it thinks of this write
                    time.sleep(0.2)
                    continue
                mark.write_text("refused")
                raise
            mark.write_text("written")
            return answer
    return upsert(self, name, data, **more)
if post.name == "stalled":
    pymilvus.MilvusClient.upsert = stalling
mortals.work(post)
"""


def test_what_a_stalled_worker_still_writes_is_refused_by_the_server(
    kafka_server: KafkaServer, milvus: MilvusServer, tmp_path: Path
) -> None:
    topic = kafka_server.topic(partitions=1)
    post = Post(name="stalled", folder=str(tmp_path), bootstrap=kafka_server.bootstrap, topic=topic, uri=milvus.uri)
    ids = [f"d{number}" for number in range(5)]
    mark = tmp_path / "mark"
    workers: list[subprocess.Popen[str]] = []
    try:
        workers.append(_begun(post, mark))
        kafka_server.produce(topic, [{"key": id.encode(), "value": b'{"text": "first"}'} for id in ids])
        with closing(opened(milvus.uri)) as backend:
            collection = collection_for(ENCODER.spec, name=post.collection)
            store = backend.open(collection)

            def texts() -> set[str]:
                return {str(each.rows[0].fields["text"]) for each in store.get(ids).values()}

            wait_for(lambda: texts() == {"first"}, 120)
            kafka_server.produce(topic, [{"key": id.encode(), "value": b'{"text": "old"}'} for id in ids])
            wait_for(lambda: mark.exists() and mark.read_text() == "asleep", 60)
            workers[0].send_signal(signal.SIGSTOP)
            workers.append(_begun(replace(post, name="other"), mark))
            wait_for(lambda: texts() == {"old"}, 120)
            kafka_server.produce(topic, [{"key": id.encode(), "value": b'{"text": "new"}'} for id in ids])
            offsets = range(2 * len(ids), 3 * len(ids))
            wait_for(
                lambda: texts() == {"new"} and {head.offset for head in store.heads(ids).values()} == {*offsets}, 60
            )
            written = store.heads(ids)
            mark.write_text("awake")
            workers[0].send_signal(signal.SIGCONT)
            wait_for(lambda: mark.read_text() in ("refused", "written"), 40)
            assert mark.read_text() == "refused"
            time.sleep(1.5)  # what it would decide anew
            for worker in workers:
                worker.terminate()
                assert worker.wait(30) == 0, (tmp_path / "stalled.log").read_text()[-3000:]
            assert texts() == {"new"}
            assert store.heads(ids) == written
            assert store.count() == len(ids)
            store.close()
            backend.drop(post.collection)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def _begun(post: Post, mark: Path) -> "subprocess.Popen[str]":
    with Path(post.folder, f"{post.name}.log").open("wb") as log:
        return start("-c", _WORKER, json.dumps(asdict(post)), str(mark), stderr=log)
