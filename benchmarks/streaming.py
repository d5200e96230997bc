"""The stream from a real Kafka broker into a Milvus server and the embedded store, beside the encoder and a naive loop.

One worker, one broker and one Milvus server share this machine's cores, so the encoder alone has more of them than the
pipeline. Contenders take turns, many short ones: what else goes on, on the machine or on its host, moves one turn by a
quarter. Python's own documentation is what is read; MiniLM in ONNX fp32 encodes it.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from statistics import median
from threading import Event, Thread
from typing import Any

import numpy as np

from bartizan_connector.base.console import err
from bartizan_connector.base.errors import Stop
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.encode.settings import OnnxSettings
from bartizan_connector.space.vectors import Vectors
from bartizan_connector.store.backend import Store
from bartizan_connector.stream.work import run as ingest
from bartizan_encoders.importing import Wishes, import_tower
from bartizan_training.demo import corpus as corpora
from bartizan_training.demo.servers.kafka import Broker
from bartizan_training.demo.servers.milvus import milvus_server
from benchmarks.record import Record, Table
from benchmarks.stream_parts import BATCH, Begun, Bench, Cheap, Watched, alone, contract, records_of, row_of

JARS = Path(__file__).parents[1] / ".tools" / "kafka"
_TOKENS = 64
_ROUNDS = 6
"""Of which each is as often before the others as behind them: a server goes on working after its turn. A turn is judged
beside the encoder alone in the same turn."""
_NAIVE_ROUNDS = 2
_DOCUMENTS, _NAIVE, _ASKED = 3_000, 500, 1_500
_POLL = 100
"""Records that the naive loop takes at once, as tutorials do."""
_LOADS = (0.2, 0.5, 0.8)
_LOAD_SECONDS = 15.0
_QUERIES = 200
_SIZES = (1_000, 10_000, 100_000)
_UPDATES = 3_000
_GROWN_ROUNDS = 5
"""Of which every second goes from the large collection to the small one."""


def run() -> None:
    """Measure; raise when a promise is not kept."""
    record = Record("streaming")
    results: dict[str, Any] = {}
    tables: dict[str, Table] = {}
    promises: list[tuple[str, bool]] = []
    with tempfile.TemporaryDirectory() as place, ExitStack() as on:
        bench = _bench(Path(place), on)
        for part in (_throughput, _freshness, _queries, _growth):
            err.print(part.__name__.strip("_"), markup=False)
            found, table, kept = part(bench, results)
            results[part.__name__.strip("_")] = found
            tables[(part.__doc__ or "").partition("\n")[0]] = table
            promises += kept
            verdicts = [{"promise": name, "kept": "yes" if is_kept else "NO"} for name, is_kept in promises]
            record.write(results | {"promises": dict(promises)}, tables | {"Promises": verdicts})
    record.show()
    if broken := [name for name, is_kept in promises if not is_kept]:
        raise Stop(f"not kept: {'; '.join(broken)}")


Part = tuple[dict[str, Any], Table, list[tuple[str, bool]]]


def _bench(place: Path, on: ExitStack) -> Bench:
    tower, export = place / "tower", place / "export"
    import_tower("minilm", Wishes(max_tokens=_TOKENS)).save(tower)
    (exporter,) = [point for point in entry_points(group="bartizan.exporters") if point.name == "onnx"]
    exporter.load()(tower, export, "fp32")
    broker = Broker(place / "kafka", JARS)
    on.callback(broker.stop)
    broker.start()
    milvus = milvus_server(place / "milvus", place / "programs")
    on.callback(milvus.stop)
    encoder = on.enter_context(closing(OnnxSettings().open(export)))
    documents = corpora.build().documents
    return Bench(broker=broker, milvus=milvus, folder=place, export=export, encoder=encoder, documents=documents)


def _throughput(bench: Bench, before: Mapping[str, Any]) -> Part:
    """Documents a second: the encoder alone, the pipeline into each store, and a naive loop"""
    documents = bench.documents[:_DOCUMENTS]
    texts = [f"{each['title']} {each['text']}" for each in documents]
    topic, few = bench.topic(records_of(documents)), bench.topic(records_of(documents[:64]))
    rates: dict[str, list[float]] = {name: [] for name in ("encoder alone", "embedded", "milvus", "naive")}
    busy: dict[str, list[float]] = {name: [] for name in rates}
    bench.encoder.encode(texts[:64], "document")
    for store in ("embedded", "milvus"):
        _piped(bench, store, few, -1)  # what has just started is slow: broker, servers and this process
    model = _sentence_transformer()
    for turn in range(_ROUNDS):
        contenders: dict[str, Callable[[], float]] = {
            "encoder alone": partial(_encoded, bench.encoder, texts),
            "embedded": partial(_piped, bench, "embedded", topic, turn),
            "milvus": partial(_piped, bench, "milvus", topic, turn),
        }
        if turn < _NAIVE_ROUNDS:
            contenders["naive"] = partial(_naive, bench, topic, model, turn)
        for name in list(contenders)[:: 1 if turn % 2 == 0 else -1]:
            begun = time.process_time()
            rates[name].append(contenders[name]())
            count = _NAIVE if name == "naive" else len(documents)
            busy[name].append(1_000 * (time.process_time() - begun) / count)
            err.print(f"   {name}: {rates[name][-1]:.0f} a second", markup=False)
    best = {name: max(each) for name, each in rates.items()}
    turns = {name: list(zip(each, rates["encoder alone"], strict=False)) for name, each in rates.items()}
    beside = {name: median(rate / alone for rate, alone in each) for name, each in turns.items()}
    ratios = {name: round(beside[name], 3) for name in ("embedded", "milvus")}
    over = round(median(rate / naive for rate, naive in zip(rates["milvus"], rates["naive"], strict=False)), 2)
    table = [
        {
            "contender": name,
            "documents a second, best of each": f"{best[name]:.0f}",
            "÷ encoder alone, median of the turns": f"{beside[name]:.2f}",
            "the other turns": ", ".join(f"{rate:.0f}" for rate in sorted(rates[name])[:-1]),
            "processor s of this process for 1,000, least": f"{min(busy[name]):.2f}",
        }
        for name in rates
    ]
    promises = [
        (f"{name}: pipeline ÷ encoder alone at least .9 ({ratio})", ratio >= 0.9) for name, ratio in ratios.items()
    ]
    promises.append((f"into Milvus at least 2 × as fast as a naive loop ({over} ×)", over >= 2))
    return {"rates": rates, "processor_seconds": busy, "ratios": ratios, "over_naive": over}, table, promises


def _encoded(encoder: Encoder, texts: Sequence[str]) -> float:
    begun = time.perf_counter()
    for start in range(0, len(texts), BATCH):
        encoder.encode(texts[start : start + BATCH], "document")
    return len(texts) / (time.perf_counter() - begun)


def _piped(bench: Bench, store: str, topic: str, turn: int) -> float:
    """From the first text that is encoded to the last write; a group and a collection of its own each time."""
    name = f"{store}_{turn}"
    settings = bench.settings(topic).model_copy(update={"group": name})
    encoder = Begun(bench.encoder)
    collection = contract(encoder.spec, name)
    with (
        closing(Watched.open(settings, follow=False)) as source,
        closing(bench.opener(store, name)()) as backend,
    ):
        ingest(source, {collection.legs[0].name: encoder}, backend, collection, watch=source)
    return source.count / (source.last - encoder.at)


def _sentence_transformer() -> Any:
    from sentence_transformers import SentenceTransformer

    from bartizan_encoders.hub import locate

    model = SentenceTransformer(str(locate("minilm")), device="cpu")
    model.max_seq_length = _TOKENS
    return model


def _naive(bench: Bench, topic: str, model: Any, turn: int) -> float:
    """What tutorials show: encode each poll, insert, flush, commit."""
    import kafka
    from pymilvus import MilvusClient

    client, name = MilvusClient(bench.milvus.uri), f"naive_{turn}"
    client.create_collection(
        name,
        dimension=int(model.get_embedding_dimension()),
        id_type="string",
        max_length=512,
        metric_type="IP",
    )
    count, begun = 0, 0.0
    with closing(
        kafka.KafkaConsumer(
            topic, bootstrap_servers=bench.broker.bootstrap, group_id=name, auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
    ) as consumer:  # fmt: skip
        while count < _NAIVE:
            for records in consumer.poll(1000, max_records=_POLL).values():
                begun = begun or time.perf_counter()
                told = [(record.key.decode(), json.loads(record.value)) for record in records]
                vectors = model.encode([f"{each['title']} {each['text']}" for _, each in told])
                client.insert(name, [
                    {"id": id, "vector": vector.tolist(), **each}
                    for (id, each), vector in zip(told, vectors, strict=True)
                ])  # fmt: skip
                client.flush(name)
                consumer.commit()
                count += len(records)
    seconds = time.perf_counter() - begun
    client.drop_collection(name)
    client.close()
    return count / seconds


def _freshness(bench: Bench, before: Mapping[str, Any]) -> Part:
    """Seconds from produced to stored and searchable, by load (share of the pipeline's own best)"""
    table, found = [], {}
    for store in ("embedded", "milvus"):
        most = max(before["throughput"]["rates"][store])
        for load in _LOADS:
            topic, name = bench.topic(), f"fresh_{store}_{int(100 * load)}"
            collection, stop = contract(bench.encoder.spec, name), Event()
            with closing(bench.source(topic, follow=True)) as source, closing(bench.opener(store, name)()) as backend:
                encoders = {collection.legs[0].name: bench.encoder}
                worker = Thread(
                    target=ingest, args=(source, encoders, backend, collection), kwargs={"stop": stop, "watch": source}
                )
                worker.start()
                _produce(bench, topic, 1.0, 0.5, lambda: False)
                while not source.count and worker.is_alive():  # the group's first join is no part of it
                    time.sleep(0.05)
                source.freshness = []
                _produce(bench, topic, load * most, _LOAD_SECONDS, lambda: False)
                time.sleep(2.0)
                stop.set()
                worker.join()
            waited = source.freshness
            p50, p99 = (float(np.percentile(waited, at)) for at in (50, 99))
            found[f"{store} at {load:.0%}"] = {"p50": round(p50, 3), "p99": round(p99, 3), "documents": len(waited)}
            table.append({
                "store": store, "load": f"{load:.0%}", "documents a second": f"{load * most:.0f}",
                "p50 s": f"{p50:.2f}", "p99 s": f"{p99:.2f}",
            })  # fmt: skip
    return found, table, []


def _produce(bench: Bench, topic: str, rate: float, seconds: float, over: Callable[[], bool]) -> None:
    """Documents that are new each, evenly, so many a second."""
    from kafka import KafkaProducer

    begun, number = time.monotonic(), 0
    with closing(KafkaProducer(bootstrap_servers=bench.broker.bootstrap)) as producer:
        while (passed := time.monotonic() - begun) < seconds and not over():
            while number < passed * rate:
                (record,) = records_of([bench.documents[number % len(bench.documents)]], mark=f"{number} ")
                producer.send(topic, key=record[0].encode(), value=record[1])
                number += 1
            time.sleep(0.005)
        producer.flush(30)


def _queries(bench: Bench, before: Mapping[str, Any]) -> Part:
    """Milliseconds of one search, quiet and while a worker (`nice = 10`) ingests at half its load in another process"""
    table, found = [], {}
    asked = bench.encoder.encode([each["title"] for each in bench.documents[:_QUERIES]], "query")
    for store in ("embedded", "milvus"):
        name, topic = f"asked_{store}", bench.topic(records_of(bench.documents[:_ASKED]))
        rate, ends = 0.5 * max(before["throughput"]["rates"][store]), Event()
        with closing(bench.opener(store, name)()) as backend:
            opened = backend.open(contract(bench.encoder.spec, name))
            with _worker(bench, store, name, topic) as process:
                while opened.count() < _ASKED:
                    if process.poll() is not None:
                        raise Stop(f"the worker into {store} has ended with {process.returncode}")
                    time.sleep(0.5)
                _look(opened, asked)
                quiet = _look(opened, asked) + _look(opened, asked)
                maker = Thread(target=_produce, args=(bench, topic, rate, 120.0, ends.is_set))
                maker.start()
                time.sleep(3.0)
                busy = _look(opened, asked) + _look(opened, asked)
                ends.set()
                maker.join()
                process.terminate()
                process.wait()
        p99 = {kind: float(np.percentile(each, 99)) for kind, each in (("quiet", quiet), ("ingesting", busy))}
        p50 = {kind: float(np.percentile(each, 50)) for kind, each in (("quiet", quiet), ("ingesting", busy))}
        found[store] = {"p50": p50, "p99": p99, "ratio": p99["ingesting"] / p99["quiet"]}
        table.append({
            "store": store, "p50 quiet": f"{p50['quiet']:.2f}", "p50 ingesting": f"{p50['ingesting']:.2f}",
            "p99 quiet": f"{p99['quiet']:.2f}", "p99 ingesting": f"{p99['ingesting']:.2f}",
            "p99 ÷ quiet p99": f"{found[store]['ratio']:.2f}",
        })  # fmt: skip
    return found, table, []


def _look(store: Store, asked: Vectors) -> list[float]:
    """Milliseconds of each search."""
    times = []
    for vector in asked:
        begun = time.perf_counter()
        store.search("dense", alone(asked, vector), 10)
        times.append(1e3 * (time.perf_counter() - begun))
    return times


def _worker(bench: Bench, store: str, name: str, topic: str) -> "subprocess.Popen[bytes]":
    uri = f"{name}.bartizan" if store == "embedded" else bench.milvus.uri
    config = bench.folder / f"{name}.toml"
    config.write_text(
        f'[collection]\nname = "{name}"\n[spaces.dense]\ndocument_tower = "export"\n[backend]\nuri = "{uri}"\n'
        f'[source]\nkind = "kafka"\nbootstrap = "{bench.broker.bootstrap}"\ntopic = "{topic}"\ngroup = "q-{topic}"\n'
        "[ingest]\nnice = 10\n"
    )
    command = [sys.executable, "-m", "bartizan_connector", "ingest", str(config), "--follow"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _growth(bench: Bench, before: Mapping[str, Any]) -> Part:
    """Documents a second that are replaced, as the corpus grows: 16 numbers a vector, an encoder that costs nothing"""
    cheap = Cheap(dim=16)
    table, found, kept = [], {}, []
    for store in ("embedded", "milvus"):
        rates: dict[int, list[float]] = {size: [] for size in _SIZES}
        for size in _SIZES:
            _grown(bench, store, cheap, size)
        for turn in range(_GROWN_ROUNDS):
            for size in _SIZES[:: 1 if turn % 2 == 0 else -1]:
                rates[size].append(_replaced(bench, store, cheap, size, turn))
                err.print(f"   {store} at {size:,}: {rates[size][-1]:.0f} a second", markup=False)
        share = round(
            median(large / small for small, large in zip(rates[_SIZES[0]], rates[_SIZES[-1]], strict=True)), 2
        )
        found[store] = {"rates": rates, "share": share}
        kept.append((f"{store}: at 100k at least .8 of the rate at 1k ({share})", share >= 0.8))
        line = {f"at {size:,}, median": f"{median(each):.0f}" for size, each in rates.items()}
        table.append({"store": store} | line | {"100,000 ÷ 1,000, median of the turns": f"{share:.2f}"})
    return found, table, kept


def _grown(bench: Bench, store: str, cheap: Cheap, size: int) -> None:
    """Fill a collection with so many documents."""
    collection = contract(cheap.spec, f"grown_{store}_{size}")
    with closing(bench.opener(store, collection.name)()) as backend, closing(backend.open(collection)) as opened:
        for start in range(0, size, 5_000):
            numbers = range(start, min(size, start + 5_000))
            opened.upsert([row_of(cheap, collection.legs[0].name, number) for number in numbers])


def _replaced(bench: Bench, store: str, cheap: Cheap, size: int, turn: int) -> float:
    """Documents a second, some drawn at random; each turn has a topic of its own, newer by its stamps."""
    collection = contract(cheap.spec, f"grown_{store}_{size}")
    drawn = np.random.default_rng(size + turn).integers(0, size, _UPDATES)
    topic = bench.topic([
        (f"d{number}", json.dumps({"text": f"new {n} in turn {turn}"}).encode()) for n, number in enumerate(drawn)
    ])  # fmt: skip
    timed = Begun(cheap)
    with (
        closing(bench.source(topic, follow=False)) as source,
        closing(bench.opener(store, collection.name)()) as backend,
    ):
        ingest(source, {collection.legs[0].name: timed}, backend, collection, watch=source)
    return source.count / (source.last - timed.at)
