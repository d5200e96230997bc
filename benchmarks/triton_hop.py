"""What a hop to Triton costs: MiniLM int8 in process, and on the real server by ids and by texts, for 1 to 32 clients.

Beside it Infinity on the same weights, by texts. All of them take turns in one run.
"""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bartizan_connector.base.console import err
from bartizan_connector.base.errors import Stop
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
from benchmarks.infinity import Asking, rival_model, running, version
from benchmarks.record import Record, Table
from tests.servers.triton import TritonServer

CLIENTS = (1, 8, 32)
ROUNDS = 5
_SECONDS = 1.2
_LEAST_AGREEMENT = 0.97
"""Cosine of the rival's vector to ours: both are int8 of one model, made by two ways."""
QUERY = "how do i make a server answer many people at once"
"""Thirteen tokens."""
Ask = Callable[[], Awaitable[object]]
IN_PROCESS, RIVAL = "in process", "Infinity: texts, tokenised by the server"


def run() -> None:
    """Measure, and write the result."""
    record = Record("triton_hop")
    with tempfile.TemporaryDirectory(prefix="bartizan-hop-") as scratch:
        place = Path(scratch)
        minilm(place / "tower")
        export_tower(place / "tower", place / "export", "int8")
        rival_model(place / "rival")
        with _serving(place) as server, running(place / "rival") as port:
            hop = _hop(server, place / "export", port)
    rival = f"infinity-emb {version()}"
    title = f"One query of thirteen tokens, int8, median of {ROUNDS} rounds, beside {rival}"
    record.write({"rival": rival, "hop": hop}, {title: _table(hop)})
    record.show()


@contextmanager
def _serving(place: Path) -> Iterator[TritonServer]:
    """The export as model `joined`, which also takes texts, and as `single`, whose requests are not joined."""
    repository = place / "models"
    export = Export.read(place / "export")
    add_version(repository, export, Serving(backend="python"), name="joined", text=True)
    add_version(repository, export, Serving(backend="python"), name="single")
    config = repository / "single" / CONFIG_FILE
    config.write_text(config.read_text().replace("dynamic_batching {\n}\n", ""))
    server = TritonServer(repository)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _hop(server: TritonServer, export: Path, port: int) -> dict[str, dict[str, dict[str, float]]]:
    times: dict[str, dict[int, list[list[float]]]] = {}
    for turn in range(ROUNDS):
        err.print(f"round {turn + 1} of {ROUNDS} …", markup=False)
        for clients in CLIENTS:
            for name, found in asyncio.run(_one_round(server, export, port, clients, turn)).items():
                times.setdefault(name, {}).setdefault(clients, []).append(found)
    return {
        name: {str(clients): _summary(rounds) for clients, rounds in by_clients.items()}
        for name, by_clients in times.items()
    }


async def _one_round(server: TritonServer, export: Path, port: int, clients: int, turn: int) -> dict[str, list[float]]:
    spec = TowerSpec.read(export)
    tokens, access = Tokens.read(export, spec), Access(url=server.url)
    rival = Asking(port)
    with (
        closing(OnnxEncoder.open(export, threads=1)) as here,
        closing(TritonEncoder.open(access, tokens, spec, model="joined", calls=clients)) as by_server,
        closing(TritonEncoder.open(access, tokens, spec, model="joined")) as by_client,
        closing(TritonEncoder.open(access, tokens, spec, model="single", calls=clients)) as single,
        closing(Server(access)) as bare,
    ):
        _require_agreement(here, await rival.vector(QUERY))
        ways: dict[str, Ask] = {
            IN_PROCESS: lambda: here.aencode([QUERY], "query"),
            "ids, batches joined by the server": lambda: by_server.aencode([QUERY], "query"),
            "ids, joined by the client too": lambda: by_client.aencode([QUERY], "query"),
            "ids, no dynamic batching": lambda: single.aencode([QUERY], "query"),
            "texts, tokenised by the server": lambda: _by_text(bare),
            RIVAL: lambda: rival.vector(QUERY),
        }
        names = list(ways)[turn % len(ways) :] + list(ways)[: turn % len(ways)]
        try:
            return {name: await _timed(ways[name], clients) for name in names}
        finally:
            await rival.close()


def _require_agreement(here: OnnxEncoder, came: Any) -> None:
    ours = np.asarray(here.encode([QUERY], "query").values)[0]
    cosine = float(ours @ came / np.linalg.norm(ours) / np.linalg.norm(came))
    if not cosine >= _LEAST_AGREEMENT:
        raise Stop(f"the rival gives another vector: cosine {cosine:.4f}, expected {_LEAST_AGREEMENT} or more")


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


def _table(hop: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    return [
        {
            "clients": clients,
            "way": name,
            "requests/s": f"{found['per_second']:,.0f}",
            "p50 ms": f"{found['p50_ms']:.2f}",
            "p99 ms": f"{found['p99_ms']:.2f}",
            "p50 beyond in process": f"{found['p50_ms'] - hop[IN_PROCESS][clients]['p50_ms']:+.2f}",
        }
        for clients in hop[IN_PROCESS]
        for name, found in ((name, by_clients[clients]) for name, by_clients in hop.items())
    ]
