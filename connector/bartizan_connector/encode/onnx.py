"""OnnxEncoder: a tower's export in this process, by ONNX Runtime and the Rust tokenizer; no torch."""

import asyncio
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np

from bartizan_connector.base.errors import Retry, SpaceMismatch, Stop, missing_extra
from bartizan_connector.encode.batches import by_length, padded
from bartizan_connector.space.spec import Role, TowerSpec
from bartizan_connector.space.tokens import Tokenized, Tokens
from bartizan_connector.space.vectors import Floats, Vectors

try:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as engine_errors
except ImportError as error:
    raise missing_extra("onnxruntime", "local") from error

MODEL_FILE = "model.onnx"
PARITY_FILE = "parity.json"
SPEC_KEY = "bartizan.tower"
"""Where the spec stands in the model's metadata."""
INPUTS = ("input_ids", "attention_mask")
OUTPUT = "vectors"

_BUCKET = 8
"""Widths of batches are multiples of this, so that few shapes occur and memory stays level. A text alone is not padded:
a query of nine tokens would pay for sixteen."""
_BATCH_TOKENS = 512
"""Activations of more tokens do not stay in a core's cache: at 4,096, MiniLM needs a third more time for each text."""
_WORTH_A_THREAD = 128
_WORTH_A_TIMER = 512
"""Tokens; less is done before a second thread, or a timer, could help it."""
_ENGINE_ERRORS = (
    engine_errors.Fail,
    engine_errors.InvalidArgument,
    engine_errors.InvalidGraph,
    engine_errors.InvalidProtobuf,
    engine_errors.NoModel,
    engine_errors.NoSuchFile,
    engine_errors.NotImplemented,
    engine_errors.RuntimeException,
)


class OnnxEncoder:
    """Encodes with one thread a batch and as many batches at a time as there are threads: a query never waits for
    a second core, a corpus uses all of them. May be shared between threads."""

    def __init__(
        self, session: Any, tokens: Tokens, spec: TowerSpec, *, threads: int = 0, batch_tokens: int | None = None
    ) -> None:
        self._session = session
        self._tokens = tokens
        self._spec = spec
        self._space_id, self._tower_id = spec.space_id, spec.tower_id  # hashing costs a tenth of a short query
        self._threads = threads or available_cores()
        self._batch_tokens = batch_tokens or _BATCH_TOKENS
        self._pool = ThreadPoolExecutor(self._threads, "bartizan-onnx") if self._threads > 1 else None

    @classmethod
    def open(cls, folder: Path, *, threads: int = 0, batch_tokens: int | None = None) -> Self:
        """The export in `folder`; refused unless it is the file that passed its parity gate. `threads` 0: all cores."""
        spec = TowerSpec.read(folder)
        tokens = Tokens.read(folder, spec)
        return cls(open_session(folder, spec), tokens, spec, threads=threads, batch_tokens=batch_tokens)

    @property
    def spec(self) -> TowerSpec:
        """What the vectors are."""
        return self._spec

    def encode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        """One vector a text, in order."""
        deadline = None if timeout is None else time.monotonic() + timeout
        self._spec.role(role)
        tokenized = self._tokens.encode(texts, role)
        total = sum(len(text.ids) for text in tokenized)
        budget = min(self._batch_tokens, max(_WORTH_A_THREAD, -(-total // self._threads)))
        alone = len(tokenized) == 1
        batches = [[0]] if alone else list(by_length(tokenized, budget))
        with run_options(deadline, total) as options:
            found = list(self._run(batches, tokenized, role, options, deadline))
        if alone:
            (values,) = found
        else:
            values = np.zeros((len(texts), self._spec.dim), dtype=np.float32)
            for batch, vectors in zip(batches, found, strict=True):
                values[batch] = vectors
        return Vectors(
            space_id=self._space_id,
            tower_id=self._tower_id,
            values=values,
            tokens=tuple(text.length for text in tokenized),
            truncated=tuple(text.truncated for text in tokenized),
        )

    async def aencode(self, texts: Sequence[str], role: Role, *, timeout: float | None = None) -> Vectors:
        """The same in a thread; the engine lets go of the interpreter while it computes."""
        return await asyncio.to_thread(self.encode, texts, role, timeout=timeout)

    def close(self) -> None:
        """Let the threads go. Closing twice is fine."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def _run(
        self,
        batches: Sequence[list[int]],
        tokenized: Sequence[Tokenized],
        role: Role,
        options: Any,
        deadline: float | None,
    ) -> Iterator[Floats]:
        most = self._spec.roles[role].max_tokens

        def run(batch: list[int]) -> Floats:
            if deadline is not None and time.monotonic() > deadline:
                raise Retry("encoding took longer than its timeout")
            multiple = 1 if len(batch) == 1 else _BUCKET
            arrays = padded([tokenized[position] for position in batch], multiple=multiple, most=most)
            try:
                (vectors,) = self._session.run([OUTPUT], dict(zip(INPUTS, arrays, strict=True)), options)
            except _ENGINE_ERRORS as error:
                if options.terminate:
                    raise Retry("encoding took longer than its timeout") from error
                raise Stop(f"ONNX Runtime failed on tower '{self._spec.name}': {error}") from error
            result: Floats = vectors
            return result

        if self._pool is None or len(batches) == 1:
            return map(run, batches)
        return self._pool.map(run, batches)


def open_session(folder: Path, spec: TowerSpec) -> Any:
    """An ONNX Runtime session on the export in `folder`, after every check that its files belong together."""
    path = folder / MODEL_FILE
    try:
        model = path.read_bytes()
        expected = json.loads((folder / PARITY_FILE).read_bytes())["model_sha256"]
    except FileNotFoundError as error:
        raise Stop(f"{folder} lacks {Path(error.filename).name}: it is not a finished export; export again") from error
    except (ValueError, KeyError, TypeError) as error:
        raise Stop(f"{folder / PARITY_FILE} is damaged: {error!r}; export the tower again") from error
    try:
        session = onnxruntime.InferenceSession(model, session_options(), providers=["CPUExecutionProvider"])
    except _ENGINE_ERRORS as error:
        raise Stop(f"{path} is damaged: {error}; export the tower again") from error
    _require_spec(path, session, spec)
    if hashlib.sha256(model).hexdigest() != expected:
        raise Stop(f"{path} is not the file that passed the parity gate ({PARITY_FILE}); export the tower again")
    return session


def session_options() -> Any:
    """One thread a call, no memory plan per shape (lengths vary without end), warnings off."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return options


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _require_spec(path: Path, session: Any, spec: TowerSpec) -> None:
    """The spec inside the model must be the one beside it, and the tensors those of the spec."""
    inside = session.get_modelmeta().custom_metadata_map.get(SPEC_KEY)
    if inside is None:
        raise Stop(f"{path} carries no spec: it was not exported by Bartizan; export the tower with `bartizan export`")
    made_for = TowerSpec.from_json(inside, origin=f"the spec inside {path}")
    if made_for != spec:
        raise SpaceMismatch(
            f"{path} was exported from another tower than the spec beside it says",
            expected=spec.space_id if made_for.space_id != spec.space_id else spec.tower_id,
            came=made_for.space_id if made_for.space_id != spec.space_id else made_for.tower_id,
            way_out="Export the tower again; an export's files are never mixed.",
        )
    inputs = {tensor.name for tensor in session.get_inputs()}
    outputs = {tensor.name: tensor.shape for tensor in session.get_outputs()}
    if inputs != set(INPUTS) or outputs.get(OUTPUT, [None])[-1] != spec.dim:
        raise Stop(
            f"{path} takes {sorted(inputs)} and gives {outputs}; expected {INPUTS} and {OUTPUT} [batch, {spec.dim}]"
        )


@contextmanager
def run_options(deadline: float | None, tokens: int) -> Iterator[Any]:
    """Options of a run that the deadline breaks off. A query is done before a timer could help it."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = 4
    if deadline is None or tokens < _WORTH_A_TIMER:
        yield options
        return

    def stop() -> None:
        options.terminate = True

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), stop)
    timer.daemon = True
    timer.start()
    try:
        yield options
    finally:
        timer.cancel()
