"""What distilling the query tower buys: latency of single queries, and what is kept of nDCG@10 on held-out queries.

Every engine runs in one thread of this process. They take turns in blocks of queries, in another order each round, so
that whatever else the machine does hits all of them alike: ratios within one run count, absolute times do not.
"""

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.encode.settings import OnnxSettings
from bartizan_connector.space.spec import Precision, TowerSpec
from bartizan_training.data.collections import BeirData
from bartizan_training.demo.layout import Layout
from bartizan_training.evaluate import timing
from bartizan_training.evaluate.judging import Judged, encode_documents, judge
from bartizan_training.evaluate.significance import compare
from bartizan_training.evaluate.timing import Times
from bartizan_training.run import Run
from benchmarks.record import Record

ROUNDS = 10
_QUERIES = 60
"""Timed in each round by each engine."""
_WARM_UP = 5
"""Encoded untimed at the head of each block: a service is warm, too."""
_SAME_MODEL = 0.9999
"""Least cosine between sentence-transformers and the tower that it is made from: it must be the same model."""

SENTENCE_TRANSFORMERS = "teacher, sentence-transformers"
TEACHER, STUDENT = "teacher, onnx fp32", "distilled, onnx fp32"
TEACHER_INT8, STUDENT_INT8 = "teacher, onnx int8", "distilled, onnx int8"
_MEASURE = "nDCG@10"

Encode = Callable[[str], Any]


@dataclass(frozen=True, slots=True)
class Chain:
    """The towers of one training run, and the collection that it was trained and is judged on."""

    teacher: Path
    student: Path
    document: Path
    data: Path


def find(folder: Path) -> Chain:
    """What the demo left: the teacher is the query tower of the step before the distillation."""
    demo = Layout(folder)
    run = Run(demo.run)
    steps = sorted(path.name.split("-", 1) for path in (demo.run / "steps").glob("*"))
    distillations = [position for position, (_, name) in enumerate(steps) if name == "distil_query"]
    before = steps[distillations[0] - 1] if distillations[:1] not in ([], [0]) else None
    made = run.done(int(before[0]), before[1]) if before else None
    if made is None or not run.towers.is_dir():
        raise WrongUse(f"{folder} holds no finished run with a distilled query tower; make it: bartizan demo")
    return Chain(made.folder / "query", run.towers / "query", run.towers / "document", demo.corpus)


def run(demo: Path = Path("bartizan-demo")) -> None:
    """Measure latency and quality, and say whether the promises hold."""
    chain = find(demo)
    record = Record("query_tower")
    data = BeirData.read(chain.data)
    with tempfile.TemporaryDirectory() as aside, ExitStack() as stack:
        encoders: dict[str, Encoder] = {}
        for name, tower, precision in _variants(chain):
            export = Path(aside) / name.replace(" ", "-")
            _export(tower, export, precision)
            encoders[name] = OnnxSettings(threads=1).open(export)
            stack.callback(encoders[name].close)
        judged = _judge(data, chain, Path(aside), encoders)
        texts = [data.queries[query] for query in sorted(data.qrels("test"))]
        engines: dict[str, Encode] = {
            SENTENCE_TRANSFORMERS: _sentence_transformers(chain.teacher, Path(aside), encoders[TEACHER], texts[:20])
        }
        engines |= {name: timing.one_query(encoder) for name, encoder in encoders.items()}
        times = take_turns(engines, texts)
    specs = {"teacher": TowerSpec.read(chain.teacher), "distilled": TowerSpec.read(chain.student)}
    promises = _promises(times, judged)
    results = {
        "towers": {role: {"name": spec.name, "tower_id": spec.tower_id} for role, spec in specs.items()},
        "space_id": specs["distilled"].space_id,
        "collection": {"name": data.name, "documents": len(data.corpus), "queries": len(texts)},
        "latency_ms": {name: _quantiles(taken) for name, taken in times.items()},
        _MEASURE: {name: result.measured.metrics[_MEASURE] for name, result in judged.items()},
        "promises": promises,
    }
    record.write(results, _tables(times, judged, promises))
    record.show()
    if broken := [row["promise"] for row in promises if row["kept"] == "no"]:
        raise Stop(f"not kept: {'; '.join(broken)}")


def take_turns(engines: Mapping[str, Encode], texts: Sequence[str], *, rounds: int = ROUNDS) -> dict[str, Times]:
    """Time single queries: in each round, every engine encodes the same block, first a few that only warm it up."""
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, len(texts), size=(rounds, _WARM_UP + _QUERIES))
    blocks = [[texts[position] for position in row] for row in drawn]
    return timing.take_turns(engines, timing.with_progress(blocks), warm_up=_WARM_UP)


def _variants(chain: Chain) -> list[tuple[str, Path, Precision]]:
    return [
        (TEACHER, chain.teacher, "fp32"),
        (TEACHER_INT8, chain.teacher, "int8"),
        (STUDENT, chain.student, "fp32"),
        (STUDENT_INT8, chain.student, "int8"),
    ]


def _export(tower: Path, out: Path, precision: Precision) -> None:
    (exporter,) = entry_points(group="bartizan.exporters", name="onnx")
    exporter.load()(tower, out, precision=precision)


def _judge(data: BeirData, chain: Chain, aside: Path, encoders: Mapping[str, Encoder]) -> dict[str, Judged]:
    """Each query tower over the same documents."""
    _export(chain.document, aside / "document", "fp32")
    encoder = OnnxSettings().open(aside / "document")
    try:
        documents = encode_documents(data, encoder)
    finally:
        encoder.close()
    qrels = data.qrels("test")
    return {name: judge(data, qrels, documents, encoder) for name, encoder in encoders.items()}


def _sentence_transformers(tower: Path, aside: Path, ours: Encoder, probes: Sequence[str]) -> Encode:
    """The same weights behind the library that most people use, in one thread; refused when the vectors differ."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import PreTrainedTokenizerFast

    from bartizan_encoders.backbone import quiet_transformers
    from bartizan_encoders.tower import Tower

    loaded = Tower.load(tower)
    spec = loaded.spec
    if spec.head != "none":
        raise WrongUse(f"tower '{spec.name}' has a head, which this comparison does not build")
    folder = aside / "sentence-transformers"
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    file = str(tower / "tokenizer.json")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=file, **special)  # type: ignore[no-untyped-call]
    with quiet_transformers():
        loaded.backbone.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        transformer = Transformer(str(folder), max_seq_length=spec.role("query").max_tokens)
    model = SentenceTransformer(
        modules=[transformer, Pooling(transformer.get_embedding_dimension(), pooling_mode=spec.pooling), Normalize()],
        device="cpu",
    )
    torch.set_num_threads(1)
    prefix = spec.role("query").prefix
    theirs = model.encode([prefix + text for text in probes])
    least = float((theirs * np.asarray(ours.encode(probes, "query").values)).sum(axis=1).min())
    if least < _SAME_MODEL:
        raise Stop(f"sentence-transformers gives other vectors (cosine {least:.5f}); the comparison would be unfair")
    return lambda text: model.encode(prefix + text)


def _promises(times: Mapping[str, Times], judged: Mapping[str, Judged]) -> list[dict[str, str]]:
    """What the README promises, and whether this run bears it out."""
    kept = judged[STUDENT].measured.metrics[_MEASURE] / judged[TEACHER].measured.metrics[_MEASURE]
    int8 = judged[STUDENT_INT8].measured.metrics[_MEASURE] / judged[TEACHER].measured.metrics[_MEASURE]
    rows = [
        (f"distilled keeps {_MEASURE} (fp32)", 0.97, kept),
        (f"distilled keeps {_MEASURE} (int8)", 0.97, int8),
        ("distilled is faster than its teacher (fp32)", 1.8, _ratio(times, TEACHER, STUDENT)),
        ("distilled is faster than its teacher (int8)", 1.8, _ratio(times, TEACHER_INT8, STUDENT_INT8)),
        (
            "distilled (int8) is faster than its teacher in sentence-transformers",
            8.0,
            _ratio(times, SENTENCE_TRANSFORMERS, STUDENT_INT8),
        ),
    ]
    return [
        {
            "promise": promise,
            "at least": f"{least:g}",
            "measured": f"{value:.3f}",
            "kept": "yes" if value >= least else "no",
        }
        for promise, least, value in rows
    ]


def _ratio(times: Mapping[str, Times], slow: str, fast: str) -> float:
    """How many times faster: on the clock or by the thread's own work, whichever says less. On a busy machine the clock
    flatters the faster one, which more often ends within its time slice."""
    wall = statistics.median(times[slow].wall) / statistics.median(times[fast].wall)
    return min(wall, statistics.median(times[slow].cpu) / statistics.median(times[fast].cpu))


def _quantiles(times: Times) -> dict[str, float]:
    p50, p95 = np.quantile(times.wall, [0.5, 0.95])
    return {"p50": float(p50), "p95": float(p95), "cpu_p50": statistics.median(times.cpu), "queries": len(times.wall)}


def _tables(
    times: Mapping[str, Times], judged: Mapping[str, Judged], promises: list[dict[str, str]]
) -> dict[str, list[dict[str, str]]]:
    reference = {query: values[_MEASURE] for query, values in judged[TEACHER].measured.per_query.items()}
    latency, quality = [], []
    for name, taken in times.items():
        found = _quantiles(taken)
        row = {"query tower": name} | {key: f"{found[key]:.2f}" for key in ("p50", "p95", "cpu_p50")}
        latency.append(
            row | {"× faster than sentence-transformers": f"{_ratio(times, SENTENCE_TRANSFORMERS, name):.2f}"}
        )
    for name, result in judged.items():
        own = {query: values[_MEASURE] for query, values in result.measured.per_query.items()}
        difference = compare(own, reference)
        quality.append(
            {
                "query tower": name,
                _MEASURE: f"{result.measured.metrics[_MEASURE]:.4f}",
                "difference, 95 %": f"{difference.mean:+.4f} ({difference.low:+.4f} … {difference.high:+.4f})",
                "p": f"{difference.p:.3f}",
            }
        )
    return {
        "Milliseconds for one query, one thread": latency,
        "Quality on held-out queries, documents by the large tower": quality,
        "Promises": promises,
    }
