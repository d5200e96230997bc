"""Killed inside commits of the word index, at random moments: every resume succeeds, no id stands twice or apart."""

import json
import random
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.connector.stream.streams import CONTENTS, IDS, Change
from tests.connector.stream.test_crashes import Nursery, compare, write_log
from tests.connector.stream.worker import Job, observing

KILLS = 10
"""In the soak: 120."""
LONGEST_COMMIT = 0.03
"""Seconds; what is quicker was killed after it."""
KILLED = -signal.SIGALRM


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.mark.server  # no server, but as much time
def test_killed_inside_a_commit(nursery: Nursery, tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    survive(nursery, tmp_path, KILLS, seed)


def survive(nursery: Nursery, folder: Path, kills: int, seed: int) -> int:
    """One index under so many kills; gives how many runs that took."""
    dice, ids = random.Random(seed), [*IDS, *(f"d{number}" for number in range(20))]
    job = Job(
        log=str(folder / "log.jsonl"),
        cursor=False,
        batch_size=dice.choice((8, 16)),
        collection="docs",
        words=str(folder / "words"),
        embedded=str(folder / "index.bartizan"),
    )
    log: list[Change] = []
    deaths = tried = 0
    while deaths < kills:
        tried += 1
        assert tried < 20 * kills + 100, "too few deaths: is LONGEST_COMMIT far off on this machine?"
        changes = [Change(id, tried, dice.choice((*CONTENTS, None))) for id in dice.sample(ids, 16)]
        write_log(job, changes)
        moment = (dice.randint(1, 4), dice.uniform(0.0001, LONGEST_COMMIT))
        status = nursery.run(replace(job, kill_in_commit=moment))
        assert status in (0, KILLED)
        deaths += status == KILLED
        result = folder / "result.json"
        if status == KILLED and dice.random() < 0.5:  # what comes next says nothing of what was cut off
            write_log(job, [])
            assert nursery.run(observing(job, ids, result)) == 0, "a resume that failed"
            require_agreement(json.loads(result.read_text()))
        write_log(job, changes)
        log += changes
        assert nursery.run(observing(job, ids, result)) == 0, "a resume that failed"
        compare(json.loads(result.read_text()), log)
    return tried


def require_agreement(seen: dict[str, object]) -> None:
    """What is found by vectors and what is found by words is the same."""
    found, words = seen["found"], seen["words"]
    assert isinstance(found, list)
    assert isinstance(words, dict)
    stored = {id: str(fields["text"]).split()[-1] for id, fields, _ in found[0]}
    for word in CONTENTS:
        assert len(words[word]) == len(set(words[word])), "an id that stands twice"
        assert set(words[word]) == {id for id, text in stored.items() if text == word}, "an id that is apart"
