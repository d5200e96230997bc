"""A language small enough to learn in seconds: documents are made of things, and queries name things by other words."""

import gc
import json
import multiprocessing
import os
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from bartizan_connector.space.spec import RoleSpec
from bartizan_encoders.design import Design
from bartizan_encoders.local import TorchEncoder
from bartizan_encoders.tower import Tower
from bartizan_training.artefacts import Artefacts
from bartizan_training.data.collections import BeirData
from bartizan_training.loop import train
from bartizan_training.recipe import Recipe
from bartizan_training.stages.contrastive import Contrastive, ContrastiveStage
from bartizan_training.stages.distil_query import DistilQuery, DistilQueryStage
from bartizan_training.stages.refine import Refine, RefineStage
from bartizan_training.stages.stage import Stage
from bartizan_training.step import Place
from bartizan_training.towers import Towers

THINGS = 40
DOCUMENTS = 96
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"thing{i}" for i in range(THINGS)), *(f"ask{i}" for i in range(THINGS))]


def tower(folder: Path, *, layers: int = 3, width: int = 32, seed: int = 0, dim: int | None = None) -> Path:
    """A tiny BERT with random weights, as a tower folder."""
    torch.manual_seed(seed)
    architecture = {
        "model_type": "bert",
        "vocab_size": len(WORDS),
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 2 * width,
        "max_position_embeddings": 32,
    }
    roles = {"query": RoleSpec(max_tokens=16), "document": RoleSpec(max_tokens=24)}
    Tower.fresh(architecture, tokenizer(), Design(name="toy", roles=roles), dim=dim).save(folder)
    return folder


def tokenizer() -> str:
    """One token a word, between [CLS] and [SEP]."""
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return str(made.to_str())


def collection(folder: Path, *, queries: int = 480, seed: int = 0, titles: bool = False) -> Path:
    """A BEIR folder; a query asks for three of the five things in its document. One query in four is for testing. A
    title names the first two things."""
    random = np.random.default_rng(seed)
    (folder / "qrels").mkdir(parents=True)
    things = [random.choice(THINGS, size=5, replace=False) for _ in range(DOCUMENTS)]
    documents = [
        {"_id": f"d{i}", "title": _say("thing", some[:2]) if titles else "", "text": _say("thing", some)}
        for i, some in enumerate(things)
    ]
    asked = []
    judged: dict[str, list[str]] = {"train": [], "test": []}
    for i in range(queries):
        about = int(random.integers(DOCUMENTS))
        asked.append({"_id": f"q{i}", "text": _say("ask", random.choice(things[about], size=3, replace=False))})
        judged["test" if i % 4 == 0 else "train"].append(f"q{i}\td{about}\t1")
    _write(folder / "corpus.jsonl", [json.dumps(document) for document in documents])
    _write(folder / "queries.jsonl", [json.dumps(query) for query in asked])
    for split, lines in judged.items():
        _write(folder / "qrels" / f"{split}.tsv", ["query-id\tcorpus-id\tscore", *lines])
    return folder


def write_scores(folder: Path) -> None:
    """A teacher who knows: a document is worth as much as it has of what the query asks for."""
    data, random = BeirData.read(folder / "data"), np.random.default_rng(0)
    lines = []
    for query, grades in data.qrels("train").items():
        asked = {word.removeprefix("ask") for word in data.queries[query].split()}
        worth = {
            id: 2.0 * len(asked & {word.removeprefix("thing") for word in text.split()})
            for id, text in data.corpus.items()
        }
        (good,) = grades
        for bad in random.choice([id for id in data.corpus if id != good], size=8, replace=False):
            lines.append(f"{worth[good]}\t{worth[bad]}\t{query}\t{good}\t{bad}")
    (folder / "scores.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _say(word: str, things: np.ndarray) -> str:
    return " ".join(f"{word}{thing}" for thing in things)


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def found_first(data: Path, document: Path, query: Path, split: str = "test") -> float:
    """Share of the split's queries whose own document comes first."""
    beir = BeirData.read(data)
    qrels = beir.qrels(split)
    ids = list(beir.corpus)
    documents = TorchEncoder.open(document).encode(list(beir.corpus.values()), "document").values
    queries = TorchEncoder.open(query).encode([beir.queries[id] for id in qrels], "query").values
    best = (queries @ documents.T).argmax(axis=1)
    return float(np.mean([qrels[id].get(ids[column], 0) for id, column in zip(qrels, best, strict=True)]))


def recipe(folder: Path, *steps: str, head: str = "") -> Path:
    """A recipe beside `tower/` and `data/`."""
    path = folder / "recipe.toml"
    text = f'name = "toy"\ntower = "tower"\n{head}\n' + "".join(f"[[steps]]\n{step}\n" for step in steps)
    path.write_text(text, encoding="utf-8")
    return path


def bench(folder: Path) -> Path:
    """A folder with everything that a recipe of these tests needs."""
    tower(folder / "tower")
    collection(folder / "data")
    return folder


CONTRASTIVE = """
kind = "contrastive"
steps = 100
batch_size = 32
learning_rate = 3e-3
data = { path = "data" }
"""
DISTIL = """
kind = "distil_query"
layers = [0]
epochs = 15
batch_size = 32
learning_rate = 3e-3
texts = [{ kind = "queries", path = "data", split = "train" }]
"""
REFINE = """
kind = "refine"
steps = 20
batch_size = 16
learning_rate = 1e-4
data = { path = "data" }
"""


def with_keys(stage: str, **keys: object) -> str:
    """The stage with some keys set otherwise."""
    kept = [line for line in stage.splitlines() if line.split(" = ")[0] not in keys]
    return "\n".join([*kept, *(f"{key} = {json.dumps(value)}" for key, value in keys.items() if value is not None)])


def stage(bench: Path, text: str, start: Towers | None = None) -> Stage:
    """One stage, built and ready, outside of the loop."""
    table = Recipe.load(recipe(bench, text)).steps[0]
    towers, place = start or Towers.load(bench / "tower", bench / "tower"), toy_place(bench)
    match table:
        case Contrastive():
            return ContrastiveStage(table, towers, place)
        case DistilQuery():
            return DistilQueryStage(table, towers, place, bench / "tower")
        case Refine():
            return RefineStage(table, towers, place, bench / "tower")
    raise AssertionError(f"{table.kind} is no stage")


def toy_place(bench: Path) -> Place:
    """Where a step runs outside of the loop."""
    return Place(
        accelerator=Accelerator(),
        folder=bench / "scratch",
        artefacts=Artefacts(bench / "scratch/artefacts"),
        name="toy",
        number=1,
        recipe_seed=0,
    )


def towers_of(run: Path, step: str) -> Path:
    """The towers that a step of the run gave."""
    (found,) = run.glob(f"artefacts/{step}-towers/*")
    return found


def started(path: Path, out: Path, *, shard: bool = False, **environment: str) -> Any:
    """A process of its own that trains, or goes on training; out of one that has imported everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.toy", "transformers.models.bert.modeling_bert"])
    worker = context.Process(target=_work, args=(str(path), str(out), shard, environment))
    worker.start()
    return worker


def train_in_two_processes(path: Path, out: Path, *, shard: bool = False) -> None:
    """Train in two processes that share each batch."""
    workers = two_processes(path, out, shard=shard)
    for worker in workers:
        worker.join(timeout=240)
    assert [worker.exitcode for worker in workers] == [0, 0]


def two_processes(path: Path, out: Path, *, shard: bool = False) -> list[Any]:
    """Two processes that train, or go on training, and share each batch."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    world = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    return [started(path, out, shard=shard, RANK=str(rank), LOCAL_RANK=str(rank), **world) for rank in range(2)]


def share_start(run: Path, other: Path) -> None:
    """Begin another run with the models that this one imported, as a run that was killed after its import begins."""
    for imported in run.glob("artefacts/start-towers/*"):
        shutil.copytree(imported, other / "artefacts/start-towers" / imported.name, copy_function=os.link)


def train_and_kill(path: Path, out: Path, *, at: Path) -> None:
    """Train in a process of its own and kill it, without a warning, as soon as that path exists."""
    worker = started(path, out)
    while not at.exists():
        assert worker.is_alive()
        time.sleep(0.001)
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    assert not (out / "towers").exists()


def _work(path: str, out: str, shard: bool, environment: dict[str, str]) -> None:
    gc.freeze()  # what was imported before the fork is no garbage; the loop searches for some after each stage
    os.environ.update(environment)
    torch.set_num_threads(1)
    train(Recipe.load(Path(path)), Path(out), resume=True, shard=shard)
