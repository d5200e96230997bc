"""Killed at any moment, in commits and while indexes are built: every leg, the words too, is what was committed."""

import os
import random
import signal
import subprocess
import sys
import threading
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from bartizan_connector.store import filters
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.store.memory import MemoryBackend
from bartizan_connector.testing.rows import batch
from tests.connector.store.embedded.worker import COLLECTION, DOCUMENTS, WORDS, apply, changes, row

ROOT = Path(__file__).parents[4]
KILLS = 6
"""In the soak: 300."""


def started(path: Path, seed: int, done: int, last: int) -> "subprocess.Popen[str]":
    words = [sys.executable, "-m", "tests.connector.store.embedded.worker", str(path), str(seed), str(done), str(last)]
    folders = [ROOT / name for name in ("connector", "encoders", "training", "triton_models")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, [*folders, ROOT]))}
    return subprocess.Popen(words, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def killed(process: "subprocess.Popen[str]", dice: random.Random, done: int) -> int:
    """The last change that it said was durable before it died."""
    assert process.stdout is not None
    with process:
        for line in process.stdout:
            done = int(line)
            if dice.random() < 0.1:
                threading.Timer(dice.random() * 0.05, process.send_signal, [signal.SIGKILL]).start()
    assert process.returncode == -signal.SIGKILL
    return done


@pytest.mark.packaging
def test_nothing_is_lost_doubled_torn_or_brought_back(tmp_path: Path) -> None:
    seed, last = random.randrange(10**6), 100_000
    print(f"seed {seed}")
    dice = random.Random(seed)
    path = tmp_path / "index.bartizan"
    oracle = MemoryBackend().open(COLLECTION)
    coming = changes(seed)
    applied = 0
    for _ in range(KILLS):
        done = killed(started(path, seed, applied, last), dice, applied)
        backend = EmbeddedBackend(path, index="hnsw")
        store = backend.open(COLLECTION, create=False)
        reached = max(head.version for head in store.heads([f"d{i:05}" for i in range(DOCUMENTS)]).values())
        assert reached in (done, done + 1), "what was said to be durable is there, and at most one batch beyond"
        for verb, rows in islice(coming, reached - applied):
            apply(oracle, verb, rows)
        applied = reached
        assert_same(store, oracle, dice)
        backend.close()


def assert_same(store, oracle, dice: random.Random) -> None:  # type: ignore[no-untyped-def]
    ids = [f"d{i:05}" for i in range(DOCUMENTS)]
    assert store.heads(ids) == oracle.heads(ids)
    documents = oracle.get(ids)
    assert store.get(ids) == documents
    queries = [row(dice, 0, 0).vectors for _ in range(4)]
    for leg in ("dense", "sparse"):
        values = [query[leg].value for query in queries]
        asked = batch(tuple(values) if leg == "sparse" else np.stack(values))
        for filter in (None, filters.parse("year < 3")):
            found, wanted = (each.search(leg, asked, 20, filter) for each in (store, oracle))
            if leg == "sparse":
                assert found == wanted
            else:  # a graph may miss some; what it finds must be there, with its true score
                at_hand = {hit.id: hit for answer in oracle.search(leg, asked, DOCUMENTS, filter) for hit in answer}
                assert all(hit.id in at_hand and hit.fields == at_hand[hit.id].fields for hits in found for hit in hits)
                scores = [[hit.score for hit in hits] for hits in found]
                assert [len(each) for each in scores] == [len(hits) for hits in wanted]
                share = [
                    len({h.id for h in a} & {h.id for h in b}) / max(1, len(b))
                    for a, b in zip(found, wanted, strict=True)
                ]
                assert np.mean(share) > 0.8
    for word in WORDS:
        having = {id for id, document in documents.items() if word in str(document.rows[0].fields["text"]).split()}
        hits = store.words.search(word, DOCUMENTS)
        assert {hit.id for hit in hits} == having
        assert len(hits) == len(having)
