"""kill -9 anywhere in a run or a swap: the same command again ends as if nothing had happened."""

import signal
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from bartizan_connector.config.towers import collection_of
from bartizan_connector.documents.documents import Documents
from bartizan_connector.store.backend import Backend
from bartizan_connector.stream.reembed import names
from tests.connector.stream.reembed.killed import project
from tests.connector.stream.reembed.project import text

DOCUMENTS = 30


@pytest.mark.packaging
def test_a_run_and_a_swap_that_are_killed_again_and_again_end_well(tmp_path: Path) -> None:
    both = project(tmp_path, "first")
    with Documents(both.old) as documents:
        documents.put({"_id": f"d{n}", "text": text(n)} for n in range(DOCUMENTS))
        documents.delete(["d3", "never"])
    kills = [1, 2, 3, 4, 5, 6, 8, 10, 1, 2, 3, 4, 5, 6, 7, 1_000_000]
    done = subprocess.run(
        [sys.executable, "-m", "tests.connector.stream.reembed.killed", str(tmp_path), *map(str, kills)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    codes = [int(line) for line in done.stdout.split()]
    assert codes[-1] == 0, done.stderr
    assert codes.count(-signal.SIGKILL) >= 8, (codes, done.stderr)
    assert set(codes) <= {0, -signal.SIGKILL}, done.stderr
    with closing(both.new.backend.open()) as backend:
        place = names.look(backend, collection_of(both.new))
        assert place.state == "swapped"
        assert len(backend.collections()) == 2
        assert place.former is not None
        assert everything(backend, place.serving) == everything(backend, place.former)
    encoded = Counter((tmp_path / "encoded").read_text().splitlines())
    assert set(encoded) == {text(n) for n in range(DOCUMENTS) if n != 3}
    # what was in flight is encoded again, what was stored is not: no kill costs more than the batches in flight
    assert sum(encoded.values()) <= len(encoded) + 4 * 5 * codes.count(-signal.SIGKILL)


def everything(backend: Backend, physical: str) -> object:
    with closing(backend.open(backend.collections()[physical], create=False, name=physical)) as store:
        heads = [head for page in store.audit().heads() for head in page]  # type: ignore[attr-defined]
        return heads, sorted((document.id, document.rows[0].fields["text"]) for document in store.scan())
