"""A soak of the real Triton server: 200,000 requests of random lengths, and the memory of server and client on the way.

The tower is MiniLM's first layer in int8: its vocabulary and its lengths, so that the time goes into requests. It fails
when either side grows by more than a twentieth after the first fifth of the requests.
"""

import asyncio
import random
import tempfile
from collections import deque
from contextlib import closing
from pathlib import Path

from bartizan_connector.base.console import err
from bartizan_connector.base.errors import Stop
from bartizan_connector.encode.export import Export
from bartizan_connector.encode.triton.calls import Access
from bartizan_connector.encode.triton.encoder import TritonEncoder
from bartizan_connector.space.spec import TowerSpec
from bartizan_connector.space.tokens import Tokens
from bartizan_encoders.importing import Wishes, import_tower
from bartizan_triton.export import export_tower
from bartizan_triton.repository.serving import Serving
from bartizan_triton.repository.write import add_version
from benchmarks.record import Record, Table
from tests.servers.triton import TritonServer

REQUESTS = 200_000
_PARTS = 20
_SETTLED = 4
"""Parts after which every length has come, and memory is held to what it was then."""
_GROWTH = 1.05
_CLIENTS = 32
_USUAL_WORDS, _MOST_WORDS, _LONG = 8, 250, 0.002
TEXT = "how do i make a server answer many people at once with towers that hang on walls"


def run() -> None:
    """Ask, look at the memory after each part, and write the result."""
    record = Record("soak_triton")
    with tempfile.TemporaryDirectory(prefix="bartizan-soak-") as scratch:
        place = Path(scratch)
        import_tower("minilm", Wishes(max_tokens=256, layers=[0])).save(place / "tower")
        export_tower(place / "tower", place / "export", "int8")
        add_version(place / "models", Export.read(place / "export"), Serving(backend="python"), name="minilm")
        server = TritonServer(place / "models")
        server.start()
        try:
            found = asyncio.run(_soaked(server, place / "export"))
        finally:
            server.stop()
    record.write({"soak": found}, {"Memory, and what came": _table(found)})
    record.show()
    for side in ("server", "client"):
        settled, most = found[_SETTLED][side], max(part[side] for part in found[_SETTLED:])
        if most > settled * _GROWTH:
            raise Stop(f"the {side} grew from {settled:.0f} to {most:.0f} MiB: memory is not level")


async def _soaked(server: TritonServer, export: Path) -> list[dict[str, float]]:
    """Mostly short texts, one in five hundred of any length up to what the tower takes; MiB after each part."""
    spec = TowerSpec.read(export)
    chance, words = random.Random(0), TEXT.split()
    found: list[dict[str, float]] = []
    lengths: deque[int] = deque(maxlen=REQUESTS // _PARTS)
    with closing(
        TritonEncoder.open(Access(url=server.url), Tokens.read(export, spec), spec, model="minilm")
    ) as encoder:
        done = 0

        async def client(until: int) -> None:
            nonlocal done
            while done < until:
                done += 1
                usual = 1 + int(chance.expovariate(1 / _USUAL_WORDS))
                count = chance.randint(1, _MOST_WORDS) if chance.random() < _LONG else usual
                came = await encoder.aencode([" ".join(chance.choices(words, k=count))], "query")
                lengths.append(came.tokens[0])

        for part in range(_PARTS + 1):
            found.append(
                {
                    "requests": done,
                    "server": _memory(server.pid, tree=True),
                    "client": _memory(),
                    "longest": max(lengths, default=0),
                }
            )
            err.print(f"{done:,} requests, {found[-1]}", markup=False)
            if part < _PARTS:
                await asyncio.gather(*(client((part + 1) * REQUESTS // _PARTS) for _ in range(_CLIENTS)))
    return found


def _memory(pid: int | None = None, *, tree: bool = False) -> float:
    """MiB resident, of a process and, with `tree`, of its children."""
    folder = Path(f"/proc/{pid or 'self'}")
    pages = int((folder / "statm").read_text().split()[1])
    children = (folder / "task" / str(pid) / "children").read_text().split() if tree else []
    return pages * 4096 / 2**20 + sum(_memory(int(child), tree=True) for child in children)


def _table(found: list[dict[str, float]]) -> Table:
    return [
        {
            "requests": f"{part['requests']:,}",
            "server, MiB": f"{part['server']:.0f}",
            "client, MiB": f"{part['client']:.0f}",
            "longest text, tokens": f"{part['longest']:.0f}",
        }
        for part in found
    ]
