"""What a hop to Triton costs: MiniLM int8 in process, and on the real server by ids and by texts, for 1 to 32 clients.

Then a soak: many requests of random lengths, and the memory of server and client before, on the way and afterwards.
"""

import asyncio
import random
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from bartizan_connector.base.console import err
from bartizan_connector.encode.export import Export
from bartizan_connector.encode.onnx import OnnxEncoder
from bartizan_connector.encode.triton.calls import Access, Server, service_pb2
from bartizan_connector.encode.triton.encoder import TritonEncoder
from bartizan_connector.space.spec import TowerSpec
from bartizan_connector.space.tokens import Tokens
from bartizan_triton.export import export_tower
from bartizan_triton.repository.config import CONFIG_FILE
from bartizan_triton.repository.serving import Serving
from bartizan_triton.repository.text import TextModel
from bartizan_triton.repository.write import add_version
from benchmarks.collections import minilm
from benchmarks.record import Record, Table
from tests.servers.triton import TritonServer

CLIENTS = (1, 8, 32)
ROUNDS = 3
_SECONDS = 2.0
_SOAK_REQUESTS = 200_000
_SOAK_CLIENTS = 32
QUERY = "how do i make a server answer many people at once"
"""Twelve tokens."""
Ask = Callable[[], Awaitable[object]]


def run() -> None:
    """Measure, and write the result."""
    record = Record("triton_hop")
    with tempfile.TemporaryDirectory(prefix="bartizan-hop-") as scratch:
        place = Path(scratch)
        minilm(place / "tower")
        export_tower(place / "tower", place / "export", "int8")
        repository = place / "models"
        export = Export.read(place / "export")
        add_version(repository, export, Serving(backend="python"), name="joined", text=True)
        add_version(repository, export, Serving(backend="python"), name="single")
        config = repository / "single" / CONFIG_FILE
        config.write_text(config.read_text().replace("dynamic_batching {\n}\n", ""))
        server = TritonServer(repository)
        server.start()
        try:
            hop = _hop(server, place / "export")
            record.write({"hop": hop}, {"Hop": _table(hop)})
            soak = _soak(server, place / "export")
        finally:
            server.stop()
    record.write({"hop": hop, "soak": soak}, {"Hop": _table(hop), "Soak": _soak_table(soak)})
    record.show()


def _hop(server: TritonServer, export: Path) -> dict[str, dict[str, dict[str, float]]]:
    times: dict[str, dict[int, list[list[float]]]] = {}
    for turn in range(ROUNDS):
        err.print(f"round {turn + 1} of {ROUNDS} …", markup=False)
        for clients in CLIENTS:
            for name, found in asyncio.run(_one_round(server, export, clients, turn)).items():
                times.setdefault(name, {}).setdefault(clients, []).append(found)
    return {
        name: {str(clients): _summary(rounds) for clients, rounds in by_clients.items()}
        for name, by_clients in times.items()
    }


async def _one_round(server: TritonServer, export: Path, clients: int, turn: int) -> dict[str, list[float]]:
    spec = TowerSpec.read(export)
    tokens, access = Tokens.read(export, spec), Access(url=server.url)
    with (
        closing(OnnxEncoder.open(export, threads=1)) as here,
        closing(TritonEncoder.open(access, tokens, spec, model="joined", calls=clients)) as by_server,
        closing(TritonEncoder.open(access, tokens, spec, model="joined")) as by_client,
        closing(TritonEncoder.open(access, tokens, spec, model="single", calls=clients)) as single,
        closing(Server(access)) as bare,
    ):
        ways: dict[str, Ask] = {
            "in process": lambda: here.aencode([QUERY], "query"),
            "ids, batches joined by the server": lambda: by_server.aencode([QUERY], "query"),
            "ids, joined by the client too": lambda: by_client.aencode([QUERY], "query"),
            "ids, no dynamic batching": lambda: single.aencode([QUERY], "query"),
            "texts, tokenised by the server": lambda: _by_text(bare),
        }
        names = list(ways)[turn % len(ways) :] + list(ways)[: turn % len(ways)]
        return {name: await _timed(ways[name], clients) for name in names}


def _by_text(server: Server) -> Awaitable[Any]:
    request = service_pb2.ModelInferRequest(model_name=TextModel(model="joined", role="query").text)
    request.inputs.add(name="text", datatype="BYTES", shape=[1, 1])
    raw = QUERY.encode()
    request.raw_input_contents.append(len(raw).to_bytes(4, "little") + raw)
    return server.infer(request, 30.0).ado()


async def _timed(ask: Ask, clients: int) -> list[float]:
    """Seconds of each call of that many clients, who ask without a pause."""
    for _ in range(10):
        await ask()
    took: list[float] = []
    ends = time.perf_counter() + _SECONDS

    async def client() -> None:
        while (begun := time.perf_counter()) < ends:
            await ask()
            took.append(time.perf_counter() - begun)

    await asyncio.gather(*(client() for _ in range(clients)))
    return took


def _summary(rounds: list[list[float]]) -> dict[str, float]:
    """The median round's figures."""
    return {
        "per_second": float(np.median([len(took) / _SECONDS for took in rounds])),
        "p50_ms": float(np.median([np.quantile(took, 0.5) for took in rounds])) * 1000,
        "p99_ms": float(np.median([np.quantile(took, 0.99) for took in rounds])) * 1000,
    }


def _soak(server: TritonServer, export: Path) -> list[dict[str, float]]:
    return asyncio.run(_soaked(server, export))


async def _soaked(server: TritonServer, export: Path) -> list[dict[str, float]]:
    """Texts of 1 to 30 words at random; memory in MiB after each tenth."""
    spec = TowerSpec.read(export)
    chance = random.Random(0)
    words = QUERY.split()
    found: list[dict[str, float]] = []
    with closing(
        TritonEncoder.open(Access(url=server.url), Tokens.read(export, spec), spec, model="joined")
    ) as encoder:
        done = 0

        async def client(until: int) -> None:
            nonlocal done
            while done < until:
                done += 1
                await encoder.aencode([" ".join(chance.choices(words, k=chance.randint(1, 30)))], "query")

        for part in range(11):
            found.append({"requests": done, "server": _memory(server.pid, tree=True), "client": _memory()})
            if part < 10:
                await asyncio.gather(*(client((part + 1) * _SOAK_REQUESTS // 10) for _ in range(_SOAK_CLIENTS)))
                err.print(f"soak: {done:,} requests, {found[-1]}", markup=False)
    return found


def _memory(pid: int | None = None, *, tree: bool = False) -> float:
    """MiB resident, of a process and, with `tree`, of its children."""
    folder = Path(f"/proc/{pid or 'self'}")
    pages = int((folder / "statm").read_text().split()[1])
    children = (folder / "task" / str(pid) / "children").read_text().split() if tree else []
    return pages * 4096 / 2**20 + sum(_memory(int(child), tree=True) for child in children)


def _table(hop: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    return [
        {
            "way": name,
            "clients": clients,
            "requests/s": f"{found['per_second']:,.0f}",
            "p50 ms": f"{found['p50_ms']:.2f}",
            "p99 ms": f"{found['p99_ms']:.2f}",
        }
        for name, by_clients in hop.items()
        for clients, found in by_clients.items()
    ]


def _soak_table(soak: list[dict[str, float]]) -> Table:
    return [
        {
            "requests": f"{found['requests']:,}",
            "server, MiB": f"{found['server']:.0f}",
            "client, MiB": f"{found['client']:.0f}",
        }
        for found in soak
    ]
