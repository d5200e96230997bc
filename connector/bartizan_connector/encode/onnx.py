"""OnnxEncoder: a tower's export in this process, by ONNX Runtime and the Rust tokenizer; no torch."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from bartizan_connector.base.cores import available_cores
from bartizan_connector.base.deadline import TOO_LATE
from bartizan_connector.base.errors import Retry, Stop, missing_extra
from bartizan_connector.base.paths import AnyPath
from bartizan_connector.encode.batches import Ids
from bartizan_connector.encode.engine import Identity, Pace, Ran
from bartizan_connector.encode.export import INPUTS, MODEL_FILE, OUTPUT, Export
from bartizan_connector.encode.loop import EncodeLoop
from bartizan_connector.space.spec import TowerSpec
from bartizan_connector.space.tokens import Tokens

try:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as engine_errors
except ImportError as error:
    raise missing_extra("onnxruntime", "local") from error

_BUCKET = 8
"""Widths of batches are multiples of this, so that few shapes occur and memory stays level. A text alone is not padded:
a query of nine tokens would pay for sixteen."""
_BATCH_TOKENS = 512
"""Activations of more tokens do not stay in a core's cache: at 4,096, MiniLM needs a third more time for each text."""
_WEIGHTS = 2**24
"""A sparse tower's graph holds a weight for each token and each term at once: 64 MiB a thread, if a text allows."""
_WORTH_A_THREAD = 128
"""Tokens; less is done before a second thread, or a timer that breaks it off, could help it."""
_INPUT_IDS, _ATTENTION_MASK = INPUTS
_OUTPUTS = [OUTPUT]
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


class OnnxEngine:
    """One thread a batch, and as many batches at a time as there are threads: a query never waits for a second core, a
    corpus uses all of them. A batch that is worth a timer is broken off at its deadline."""

    def __init__(self, session: Any, spec: TowerSpec, *, threads: int = 0, batch_tokens: int | None = None) -> None:
        self._session = session
        self._name = spec.name
        self._tower = Identity.of(spec)
        suits = _BATCH_TOKENS if spec.kind == "dense" else min(_BATCH_TOKENS, max(1, _WEIGHTS // spec.dim))
        self.pace = Pace(
            batch_tokens=batch_tokens or suits,
            least_tokens=_WORTH_A_THREAD,
            multiple=_BUCKET,
            calls=threads or available_cores(),
        )

    def run(self, ids: Ids, mask: Ids, *, deadline: float | None) -> Ran:
        """The vectors of one batch."""
        options = onnxruntime.RunOptions()
        options.log_severity_level = 4
        if deadline is None or ids.size < _WORTH_A_THREAD:
            return self._run(ids, mask, options)
        with _ending(options, deadline):
            return self._run(ids, mask, options)

    def close(self) -> None:
        """The session is memory, which goes with the last reference."""

    def _run(self, ids: Ids, mask: Ids, options: Any) -> Ran:
        try:
            (vectors,) = self._session.run(_OUTPUTS, {_INPUT_IDS: ids, _ATTENTION_MASK: mask}, options)
        except _ENGINE_ERRORS as error:
            if options.terminate:
                raise Retry(TOO_LATE) from error
            raise Stop(f"ONNX Runtime failed on tower '{self._name}': {error}") from error
        return Ran(vectors, self._tower)


class OnnxEncoder(EncodeLoop):
    """An export run by ONNX Runtime. May be shared between threads."""

    def __init__(
        self, session: Any, tokens: Tokens, spec: TowerSpec, *, threads: int = 0, batch_tokens: int | None = None
    ) -> None:
        super().__init__(OnnxEngine(session, spec, threads=threads, batch_tokens=batch_tokens), tokens, spec)

    @classmethod
    def open(cls, folder: AnyPath, *, threads: int = 0, batch_tokens: int | None = None) -> Self:
        """The export in `folder`; refused unless it is the file that passed its parity gate, and gives the same vectors
        on this machine. `threads` 0: all cores."""
        export = Export.read(folder)
        tokens = Tokens.read(export.folder, export.spec)
        encoder = cls(open_session(export), tokens, export.spec, threads=threads, batch_tokens=batch_tokens)
        try:
            export.require_golden(encoder)
        except BaseException:
            encoder.close()
            raise
        return encoder


def open_session(export: Export) -> Any:
    """An ONNX Runtime session on the export's model, after every check that its files belong together."""
    model = export.model()
    try:
        session = onnxruntime.InferenceSession(model, session_options(), providers=["CPUExecutionProvider"])
        metadata = session.get_modelmeta().custom_metadata_map
        inputs = [tensor.name for tensor in session.get_inputs()]
        outputs = {tensor.name: tensor.shape for tensor in session.get_outputs()}
    except (*_ENGINE_ERRORS, UnicodeDecodeError) as error:
        raise Stop(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {export.folder / MODEL_FILE}: {error}; "
            "export the tower again on this machine"
        ) from error
    export.require_model(metadata, inputs, outputs)
    return session


def session_options() -> Any:
    """One thread a call, no memory plan per shape (lengths vary without end), warnings off."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return options


@contextmanager
def _ending(options: Any, deadline: float) -> Iterator[None]:
    """A run with these options is broken off at the deadline."""

    def stop() -> None:
        options.terminate = True

    timer = threading.Timer(max(0.0, deadline - time.monotonic()), stop)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
