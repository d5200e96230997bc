"""How fast a contrastive stage trains: pairs a second, use of the chip and memory, beside sentence-transformers.

Random weights of known shapes, words in place of word pieces, and synthetic pairs with the lengths of MS MARCO. On a
GPU the shapes are those that people train, in bf16; on a CPU one tiny shape in fp32 and one thread, which only tells
two versions of this project apart. Everything ours is measured through `train`, as the command runs it, and read from
its metrics.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from bartizan_connector.base.console import err
from bartizan_connector.space.spec import RoleSpec
from bartizan_encoders.backbone import quiet_transformers
from bartizan_encoders.tower import Design, Tower
from bartizan_training.data.collections import write_collection
from bartizan_training.data.token_table import TokenTable
from bartizan_training.loop import train
from bartizan_training.recipe import Recipe
from benchmarks.record import Record

_PEAK = 790e12
"""bf16 operations a second that an H100 or H200 does, measured; the use of the chip is relative to it."""
_LOG_EVERY = 4
_PROFILED, _KERNELS = 8, 8
"""Steps of the run whose kernels are listed, and how many of them."""
_WARM_UP = 3
"""Lines of the metrics that are not counted: kernels are compiled and memory is found in them."""
_SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
_QUERY_TOKENS, _DOCUMENT_TOKENS = 32, 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A backbone, and how it is trained."""

    name: str
    architecture: Mapping[str, Any]
    batch_size: int
    steps: int
    precision: str = "bf16"


def _bert(vocabulary: int, width: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "model_type": "bert",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": 4 * width,
        "max_position_embeddings": 512,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }


_DISTILBERT = {
    "model_type": "distilbert",
    "vocab_size": 30522,
    "dim": 768,
    "n_layers": 6,
    "n_heads": 12,
    "hidden_dim": 3072,
    "max_position_embeddings": 512,
    "dropout": 0.0,
    "attention_dropout": 0.0,
}
_SMOLLM2 = {
    "model_type": "llama",
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "max_position_embeddings": 2048,
    "rope_theta": 100000.0,
    "tie_word_embeddings": True,
}
ON_A_GPU = (
    Shape(name="MiniLM, 6 × 384", architecture=_bert(30522, 384, 6, 12), batch_size=256, steps=48),
    Shape(name="DistilBERT, 6 × 768", architecture=_DISTILBERT, batch_size=256, steps=48),
    Shape(name="SmolLM2-135M, 30 × 576", architecture=_SMOLLM2, batch_size=128, steps=32),
)
ON_A_CPU = (Shape(name="tiny, 2 × 64", architecture=_bert(2000, 64, 2, 2), batch_size=32, steps=60, precision="fp32"),)


@dataclass(frozen=True, slots=True)
class Speed:
    """What one run came to."""

    pairs_per_second: float
    tokens_per_second: float
    peak_gb: float


def run() -> None:
    """Measure every shape that suits the device, and write the result down after each."""
    on_a_gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if on_a_gpu else "CPU, one thread"
    if not on_a_gpu:
        torch.set_num_threads(1)
    record = Record("training_throughput")
    missing = find_spec("sentence_transformers") is None
    if missing:
        err.print("sentence-transformers is not installed here: only this project is measured", markup=False)
    rows: list[dict[str, str]] = []
    kernels: list[dict[str, str]] = []
    results: list[dict[str, Any]] = []
    for shape in ON_A_GPU if on_a_gpu else ON_A_CPU:
        with tempfile.TemporaryDirectory() as aside:
            place = Path(aside)
            pairs = _pairs(int(shape.architecture["vocab_size"]), shape.batch_size * shape.steps)
            tower = _prepare(shape, pairs, place)
            blocks, mean_tokens = _block_parameters(tower), _mean_tokens(tower, pairs)
            speeds = {"this project": _ours(shape, place, mean_tokens)}
            if on_a_gpu:
                kernels += _kernels(shape, place)
            if not missing:
                speeds["sentence-transformers"] = _theirs(shape, tower, pairs, place, mean_tokens)
        for name, speed in speeds.items():
            use = 6 * blocks * speed.tokens_per_second / _PEAK if on_a_gpu else None
            rows.append(_row(shape, name, speed, use))
            facts = {"shape": shape.name, "batch_size": shape.batch_size, "precision": shape.precision, "by": name}
            speed_facts = {"pairs_per_second": speed.pairs_per_second, "tokens_per_second": speed.tokens_per_second}
            results.append(facts | speed_facts | {"mfu": use, "peak_gb": speed.peak_gb, "block_parameters": blocks})
        title = f"Contrastive training on {device}; {mean_tokens:.0f} tokens a pair"
        tables = {title: rows, "What the chip does in a step of this project": kernels}
        record.write({"device": device, "runs": results, "kernels": kernels}, tables)
    record.show()


def _row(shape: Shape, name: str, speed: Speed, use: float | None) -> dict[str, str]:
    return {
        "shape": f"{shape.name}, b{shape.batch_size}, {shape.precision}",
        "trained by": name,
        "ms a step": f"{1000 * shape.batch_size / speed.pairs_per_second:.0f}",
        "pairs/s": f"{speed.pairs_per_second:,.0f}",
        "tokens/s": f"{speed.tokens_per_second:,.0f}",
        "of 790 TFLOP/s": "–" if use is None else f"{use:.1%}",
        "peak GB": f"{speed.peak_gb:.1f}" if speed.peak_gb else "–",
    }


def _recipe(shape: Shape, place: Path, steps: int) -> Recipe:
    (place / "recipe.toml").write_text(
        f'name = "throughput"\ntower = "tower"\n[[steps]]\nkind = "contrastive"\nsteps = {steps}\n'
        f'batch_size = {shape.batch_size}\nlearning_rate = 1e-5\nprecision = "{shape.precision}"\n'
        f'log_every = {_LOG_EVERY}\ndata = {{ path = "data" }}\n',
        encoding="utf-8",
    )
    return Recipe.load(place / "recipe.toml")


def _kernels(shape: Shape, place: Path) -> list[dict[str, str]]:
    """What the chip does in a short run of ours, dearest first: how much of a step is work, and where it goes."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as watched:
        train(_recipe(shape, place, _PROFILED), place / "profiled")
    events = [event for event in watched.key_averages() if event.self_device_time_total > 0]
    total = sum(event.self_device_time_total for event in events)
    dearest = sorted(events, key=lambda event: -event.self_device_time_total)[:_KERNELS]
    rows = [("all", total, sum(event.count for event in events))]
    rows += [(event.key[:90], event.self_device_time_total, event.count) for event in dearest]
    return [
        {
            "shape": shape.name,
            "kernel": name.replace("|", "/"),
            "ms a step": f"{microseconds / 1000 / _PROFILED:.2f}",
            "calls a step": f"{count / _PROFILED:.0f}",
        }
        for name, microseconds, count in rows
    ]


def _ours(shape: Shape, place: Path, mean_tokens: float) -> Speed:
    """`train`, from a recipe to towers; the speed is what it notes every few steps."""
    _forget_peak()
    train(_recipe(shape, place, shape.steps), place / "run")
    lines = (place / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[_WARM_UP:]
    tokens = statistics.median(json.loads(line)["tokens_per_second"] for line in lines)
    return Speed(tokens / mean_tokens, tokens, _peak_gb())


def _theirs(shape: Shape, tower: Tower, pairs: Sequence[tuple[str, str]], place: Path, mean_tokens: float) -> Speed:
    """Their model, collation and loss in a plain loop, with workers that tokenise ahead."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from torch.utils.data import DataLoader
    from transformers import PreTrainedTokenizerFast

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.enable_cudnn_sdp(True)  # torch's default: ours switches it off
    folder = place / "theirs"
    with quiet_transformers():
        tower.backbone.save_pretrained(folder)
        tokens = PreTrainedTokenizerFast(tokenizer_file=str(place / "tower" / "tokenizer.json"), **_SPECIAL)
        tokens.save_pretrained(folder)
        body = Transformer(str(folder), max_seq_length=_DOCUMENT_TOKENS)
    modules = [body, Pooling(body.get_embedding_dimension(), pooling_mode="mean"), Normalize()]
    model = SentenceTransformer(modules=modules, device=device)
    loss = MultipleNegativesRankingLoss(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def collate(rows: Sequence[tuple[str, str]]) -> list[Any]:
        return [model.preprocess(list(side)) for side in zip(*rows, strict=True)]

    loader = DataLoader(
        list(pairs), batch_size=shape.batch_size, collate_fn=collate, num_workers=4 if device == "cuda" else 0
    )
    _forget_peak()
    took: list[float] = []
    begun = time.monotonic()
    for number, batch in enumerate(_on(device, iter(loader)), start=1):
        with torch.autocast(device, dtype=torch.bfloat16, enabled=shape.precision == "bf16"):
            value = loss(batch, torch.empty(0))
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if number % _LOG_EVERY == 0:
            value.item()
            took.append(time.monotonic() - begun)
            begun = time.monotonic()
    rate = _LOG_EVERY * shape.batch_size / statistics.median(took[_WARM_UP:])
    return Speed(rate, rate * mean_tokens, _peak_gb())


def _on(device: str, batches: Iterator[list[Any]]) -> Iterator[list[Any]]:
    for batch in batches:
        yield [{key: _moved(value, device) for key, value in side.items()} for side in batch]


def _moved(value: Any, device: str) -> Any:
    return value.to(device) if isinstance(value, torch.Tensor) else value


def _prepare(shape: Shape, pairs: Sequence[tuple[str, str]], place: Path) -> Tower:
    """The tower and the collection, on disk."""
    torch.manual_seed(0)
    roles = {"query": RoleSpec(max_tokens=_QUERY_TOKENS), "document": RoleSpec(max_tokens=_DOCUMENT_TOKENS)}
    tokenizer = _words(int(shape.architecture["vocab_size"]))
    tower = Tower.fresh(shape.architecture, tokenizer, Design(name="throughput", roles=roles))
    tower.save(place / "tower")
    documents = ({"_id": f"d{number}", "text": text} for number, (_, text) in enumerate(pairs))
    queries = ({"_id": f"q{number}", "text": text} for number, (text, _) in enumerate(pairs))
    judged = {"train": [(f"q{number}", f"d{number}") for number in range(len(pairs))]}
    write_collection(place / "data", documents, queries, judged)
    return tower


def _words(vocabulary: int) -> str:
    """A tokenizer that gives one token a word."""
    words = [*_SPECIAL.values(), *(f"w{number}" for number in range(vocabulary - len(_SPECIAL)))]
    made: Any = Tokenizer(models.WordLevel({word: id for id, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return str(made.to_str())


def _pairs(vocabulary: int, count: int) -> list[tuple[str, str]]:
    """Queries of some 8 and passages of some 73 words, a few of them three times as long."""
    draw = np.random.default_rng(0)
    lengths = np.stack(
        [
            np.clip(draw.lognormal(2.0, 0.4, count), 2, _QUERY_TOKENS - 2),
            np.clip(draw.lognormal(4.2, 0.4, count), 12, _DOCUMENT_TOKENS - 2),
        ]
    ).astype(int)
    words = np.array([f"w{number}" for number in range(vocabulary - len(_SPECIAL))])
    texts = [[" ".join(words[draw.integers(0, len(words), size=length)]) for length in side] for side in lengths]
    return list(zip(*texts, strict=True))


def _mean_tokens(tower: Tower, pairs: Sequence[tuple[str, str]]) -> float:
    """Of a pair, without padding."""
    queries, documents = zip(*pairs, strict=True)
    total = TokenTable(tower.tokens, "query", queries).tokens + TokenTable(tower.tokens, "document", documents).tokens
    return total / len(pairs)


def _block_parameters(tower: Tower) -> int:
    """Weights that every token goes through: all but the embeddings."""
    embeddings = {id(module.weight) for module in tower.modules() if isinstance(module, torch.nn.Embedding)}
    return sum(parameter.numel() for parameter in tower.parameters() if id(parameter) not in embeddings)


def _forget_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak_gb() -> float:
    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0
