"""A process whose files may not grow beyond a limit, as on a full disk: what was stored is served, and it goes on."""

import resource
import sys
from contextlib import suppress
from pathlib import Path

from bartizan_connector.base.errors import Stop
from bartizan_connector.store.collection import Collection, FieldSpec, Head
from bartizan_connector.store.embedded import EmbeddedBackend
from bartizan_connector.testing.rows import COLLECTION, queries, row

TEXT = FieldSpec(name="text", type="string", default="")
WORDED = Collection(name="suite", legs=COLLECTION.legs, fields=(*COLLECTION.fields, TEXT))
_, _HARD = resource.getrlimit(resource.RLIMIT_FSIZE)


def limit(size: int | None) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (_HARD if size is None else size, _HARD))


def write(backend: EmbeddedBackend, number: int) -> None:
    store = backend.open(WORDED)
    rows = [
        row(f"d{number:03}-{i}", [number, 1, 0, 0], text=f"batch{number} " * 200, version=number) for i in range(20)
    ]
    store.upsert([*rows, row("moving", [0, 0, number, 0], text=f"moves{number}", version=number)])
    store.delete([Head(id=f"d{number - 1:03}-0", version=number)])


def seen(backend: EmbeddedBackend, number: int) -> list[object]:
    """All that can be read after that many batches; the last delete may be missing."""
    store = backend.open(WORDED, create=False)
    (hits,) = store.search("dense", queries([1, 1, 1, 0]), 5000)
    assert store.words is not None
    words = [[(hit.id, hit.chunk) for hit in store.words.search(f"batch{n} moves{n}", 100)] for n in range(number + 2)]
    ids = sorted(document.id for document in store.scan())
    assert sorted(hit.id for hit in hits) == ids
    assert sorted(id for found in words for id, _ in found) == ids
    return [hits, words, ids, store.count(), dict(store.heads(ids))]


def main(path: Path, size: int) -> None:
    """Write until there is no room; look; make room; go on."""
    backend = EmbeddedBackend(path)
    limit(size)
    done, told, before = 0, "", None
    try:
        while done < 60:
            write(backend, done + 1)
            done += 1
            before = seen(backend, done)
    except Stop as error:
        told = str(error)
    assert "has no room to write" in told, told
    assert "Nothing of this batch was written" in told, told
    if done:
        for _ in range(2):  # in this process, and in one that opens the store only now
            now = seen(backend, done)
            assert now == before or len(now[2]) == len(before[2]) + 20, "a batch halfway"  # type: ignore[index,arg-type]
            backend.close()
            backend = EmbeddedBackend(path)
        with suppress(Stop):
            write(backend, done + 1)
    limit(None)
    for number in range(done + 1, done + 4):
        write(backend, number)
    seen(backend, done + 3)
    backend.close()
    assert [each.name for each in path.parent.iterdir() if each.name != path.name] == []
    print(done)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
