"""A Milvus Lite folder on a full disk, or one that may only be read: a clear error, nothing committed, and then on."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.needs import unavailable

pytestmark = pytest.mark.server
"""No server, but a file system of 4 MiB that the machine must let us mount."""
SCRIPT = """
import os, subprocess, sys
from pathlib import Path
from bartizan_connector.base.errors import Stop
from bartizan_connector.store.milvus import MilvusBackend
from tests.connector.stream.faults import COLLECTION, Encoder, run_dense
from tests.connector.stream.streams import ListSource, message
place = Path(sys.argv[1])
texts = [message(f"d{number}", f"text {number} " + "word " * 200, 1) for number in range(60)]
first, rest = ListSource(texts[:20], 10), ListSource(texts[20:], 10)

def ingested(source):
    backend = MilvusBackend(str(place / "index.db"))
    try:
        report = run_dense(source, Encoder(), backend, COLLECTION)
        return f"{report.written} written, {source.committed} committed"
    except Stop as error:
        return f"{error}; {source.committed} committed"
    finally:
        try:
            backend.close()
        except Stop:
            pass

def full():
    with open(place / "filler", "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass

def stored():
    backend = MilvusBackend(str(place / "index.db"))
    count = backend.open(COLLECTION, create=False).count()
    backend.close()
    return count

def read_only(yes):
    subprocess.run(["mount", "-o", "remount,ro" if yes else "remount,rw", str(place)], check=True)

print(ingested(first))
make, undo = {"full": (full, lambda: os.unlink(place / "filler")),
              "read-only": (lambda: read_only(True), lambda: read_only(False))}[sys.argv[2]]
make()
print(ingested(rest))
rest.close()
undo()
print(stored())
print(ingested(rest))
print(stored())
"""


@pytest.mark.parametrize(("kind", "told"), [("full", "has no room to write"), ("read-only", "Read-only file system")])
def test_where_nothing_can_be_written_nothing_is_committed_and_the_next_run_goes_on(
    tmp_path: Path, kind: str, told: str
) -> None:
    mount = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=4m n "$1" && exec "$2" -c "$3" "$1" "$4"', "sh"]
    ran = subprocess.run(
        [*mount, str(tmp_path), sys.executable, SCRIPT, kind], capture_output=True, text=True, timeout=120
    )
    if "unshare" in ran.stderr or "mount:" in ran.stderr:
        unavailable("this machine lets us mount nothing")
    assert ran.returncode == 0, ran.stderr
    before, refused, kept, after, whole = ran.stdout.splitlines()
    assert before == "20 written, 20 committed"
    assert told in refused
    assert refused.endswith("; 0 committed")
    assert (kept, after, whole) == ("20", "40 written, 40 committed", "60")
