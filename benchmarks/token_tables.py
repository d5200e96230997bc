"""What tokenised texts cost in memory when several processes train on them, measured and carried on to MS MARCO.

Synthetic passages of MS MARCO's mean length over a vocabulary of BERT's size. One process writes the table as the
passages come; then several open it and pick batches. Counted is what a process holds for itself (private pages) and,
once for the machine, the files that all of them look at, which the system may take back.
"""

import multiprocessing
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers

from bartizan_connector.base.errors import Stop
from bartizan_connector.space.spec import RoleSpec
from bartizan_connector.space.tokens import Tokens
from bartizan_training.data.token_table import StoredTokens, write_tokens
from benchmarks.record import Record

PASSAGES, PROCESSES = 1_000_000, 4
MS_MARCO, LIMIT_GB = 8_841_823, 2.0
_VOCABULARY, _TOKENS = 30_522, 77
_BATCHES, _BATCH = 200, 512


def run(passages: int = PASSAGES) -> None:
    """Measure; raise when MS MARCO would take more than the limit."""
    record = Record("token_tables")
    with tempfile.TemporaryDirectory() as aside:
        folder = Path(aside)
        context = multiprocessing.get_context("spawn")
        with context.Pool(1) as alone:
            written = alone.apply(_write, (folder, passages))
        with context.Pool(PROCESSES) as several:
            held = max(several.map(_read, [(folder, number) for number in range(PROCESSES)]))
        files = sum(path.stat().st_size for path in folder.iterdir())
    per_passage = files / passages
    machine = {
        "files, once": MS_MARCO * per_passage,
        f"private, {PROCESSES} processes": PROCESSES * held,
        "writer's growth": written["growth"],
    }
    total = machine["files, once"] + machine[f"private, {PROCESSES} processes"]
    results = {"passages": passages, "files": files, "held": held, **written, "at_ms_marco": machine, "total": total}
    rows = [
        {"what": "bytes a passage on disk", "value": f"{per_passage:.1f}"},
        {"what": "written, passages a second", "value": f"{passages / written['seconds']:,.0f}"},
        {"what": "the writer grew by, MB", "value": f"{written['growth'] / 1e6:,.0f}"},
        {"what": f"each of {PROCESSES} readers grew by, MB (its own pages)", "value": f"{held / 1e6:,.0f}"},
        {"what": f"carried on to {MS_MARCO:,} passages, GB a machine", "value": f"{total / 1e9:.2f}"},
        {"what": "of it files, which the system may take back", "value": f"{machine['files, once'] / 1e9:.2f}"},
    ]
    record.write(results, {f"{passages:,} passages of {_TOKENS} tokens": rows})
    record.show()
    if total > LIMIT_GB * 1e9:
        raise Stop(f"MS MARCO's passages would take {total / 1e9:.2f} GB, more than {LIMIT_GB}")


def _tokens() -> Tokens:
    made = Tokenizer(models.WordLevel({f"w{i}": i for i in range(_VOCABULARY)}, unk_token="w0"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Tokens(str(made.to_str()), roles={"document": RoleSpec(max_tokens=256)}, special_tokens="none")


def _passages(count: int) -> Iterator[str]:
    random = np.random.default_rng(0)
    for start in range(0, count, 4096):
        size = min(4096, count - start)
        lengths = np.maximum(1, random.poisson(_TOKENS, size))
        words = iter(random.integers(_VOCABULARY, size=int(lengths.sum())).tolist())
        for length in lengths.tolist():
            yield " ".join(f"w{next(words)}" for _ in range(length))


def _write(folder: Path, passages: int) -> dict[str, Any]:
    tokens = _tokens()
    before, began = _peak(), time.perf_counter()
    write_tokens(folder, tokens, "document", _passages(passages))
    return {"growth": _peak() - before, "seconds": time.perf_counter() - began}


def _read(given: tuple[Path, int]) -> int:
    folder, number = given
    random, before = np.random.default_rng(number), _private()
    table = StoredTokens(folder)
    for _ in range(_BATCHES):
        table.pick(random.integers(len(table), size=_BATCH))
    return max(0, _private() - before)


def _peak() -> int:
    """The most that was ever resident, in bytes."""
    return _kilobytes(Path("/proc/self/status"), "VmHWM") * 1024


def _private() -> int:
    """Resident pages that no other process shares and no file backs, in bytes."""
    return _kilobytes(Path("/proc/self/smaps_rollup"), "Anonymous") * 1024


def _kilobytes(path: Path, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    return int(found[1])
