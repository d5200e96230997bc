"""TritonEngine: an Engine whose batches a Triton server runs.

1 look what is served: which version, and whether its tower may stand in for the one that the client was opened for
2 ask that very version   3 hold the answer against it: each row names the tower that gave it. When the version is gone,
or another tower has answered, look again and ask again: a client outlives a swap, a restart and a pause, and never
gives vectors of two towers, or of an unknown one.
"""

import random
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from bartizan_connector.base.errors import BartizanError, Stop, WrongUse
from bartizan_connector.encode.batches import Ids
from bartizan_connector.encode.engine import Identity, Pace, Ran
from bartizan_connector.encode.export import INPUTS, OUTPUT
from bartizan_connector.encode.triton.calls import (
    Pause,
    Server,
    Talk,
    adrive,
    drive,
    grpc,
    may_pass,
    service_pb2,
    translated,
)
from bartizan_connector.encode.triton.contract import (
    INDICES_OUTPUT,
    TOWER_OUTPUT,
    WEIGHTS_OUTPUT,
    require_replacement,
    served_spec,
    served_version,
    tower_mark,
    tower_parameter,
)
from bartizan_connector.space.spec import TowerSpec
from bartizan_connector.space.vectors import SparseVector

_BATCH_TOKENS = 4096
_LEAST_TOKENS = 512
_BUCKET = 8
"""A server without ragged batches joins requests of one width only: few widths, many joined batches."""
_RETRIES, _EARNED = 50.0, 0.5
"""Retries that may be outstanding, and the part of one that each answer earns: a server that fails one call in three is
not asked thrice for it."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
_MOVES = 3
"""Looks after which an answer that still does not fit is nobody's passing state."""
_DENSE_OUTPUTS = (OUTPUT, TOWER_OUTPUT)
_SPARSE_OUTPUTS = (INDICES_OUTPUT, WEIGHTS_OUTPUT, TOWER_OUTPUT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a server runs under a model's name."""

    version: int
    spec: TowerSpec
    identity: Identity
    mark: bytes
    """What each row of an answer says of its tower."""
    max_batch: int


class _Moved(Exception):
    """The version that was asked is gone, or another tower has answered: what is served has to be looked at again."""

    def __init__(self, problem: BartizanError) -> None:
        super().__init__(str(problem))
        self.problem = problem


class TritonEngine:
    """May be called from many threads, and from many tasks of any event loop."""

    def __init__(
        self,
        server: Server,
        model: str,
        spec: TowerSpec,
        *,
        timeout: float = 30.0,
        version: int | None = None,
        calls: int = 4,
        batch_tokens: int | None = None,
    ) -> None:
        self._server, self._model, self._spec = server, model, spec
        self._timeout, self._version = timeout, version
        self._served: Served | None = None
        self.looks = 0
        """How often it was found out what is served; more than once: after a swap, or a failure."""
        self._lock = threading.Lock()
        self._retries = _RETRIES
        self.pace = Pace(
            batch_tokens=batch_tokens or _BATCH_TOKENS, least_tokens=_LEAST_TOKENS, multiple=_BUCKET, calls=calls
        )

    @property
    def served(self) -> Served | None:
        """What was found when it was last looked at; None after a failure, until the next call."""
        return self._served

    def run(self, ids: Ids, mask: Ids, *, deadline: float | None) -> Ran:
        """The vectors of one batch."""
        return drive(self._talk(ids, mask, deadline))

    async def arun(self, ids: Ids, mask: Ids, *, deadline: float | None) -> Ran:
        """The same in the event loop; a cancelled task cancels its call."""
        return await adrive(self._talk(ids, mask, deadline))

    def look(self, timeout: float) -> Served:
        """What is served now; refused unless it may stand in for the tower that this was opened for."""
        try:
            return drive(self._look(time.monotonic() + timeout))
        except _Moved as moved:
            raise moved.problem from moved
        except grpc.RpcError as error:
            raise translated(error, self._server.url, f"what model '{self._model}' is") from error

    def close(self) -> None:
        """Let the connection go. Closing twice is fine."""
        self._server.close()

    def _talk(self, ids: Ids, mask: Ids, deadline: float | None) -> Talk[Ran]:
        """Ask until there is an answer, or none can come, or the deadline is too near for another try."""
        until = deadline if deadline is not None else time.monotonic() + self._timeout
        pause, moves = _FIRST_PAUSE, 0
        while True:
            served = self._served
            try:
                served = served or (yield from self._look(until))
                ran = yield from self._ask_all(served, ids, mask, until)
                self._spend(-_EARNED)
                return ran
            except _Moved as moved:
                problem: BartizanError = moved.problem
                moves += 1
                if isinstance(problem, Stop) and moves > _MOVES:
                    raise problem from moved
            except grpc.RpcError as error:
                problem = translated(error, self._server.url, f"to encode with model '{self._model}'")
                if not may_pass(error):
                    raise problem from error
            self._forget(served)
            if moves == 1:
                continue  # a swap: the new version is ready already
            if time.monotonic() + pause > until or not self._spend(1.0):
                raise problem
            yield Pause(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _look(self, until: float) -> Talk[Served]:
        """Which version is served, and its tower."""
        name = self._model
        try:
            metadata = yield self._server.metadata(name, _left(until))
            ready = sorted(int(version) for version in metadata.versions)
            config = (yield self._server.config(name, _left(until))).config
            version = self._version or served_version(_parameters(config), ready)
            if version not in ready:
                raise _Moved(
                    WrongUse(f"model '{name}' at {self._server.url} has no version {version} ready, but {ready}")
                )
            if tower_parameter(version) not in config.parameters:
                config = (yield self._server.config(name, _left(until), str(version))).config
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            problem = yield from self._unknown(until)
            if self.looks:  # it was there before: whoever took it away may be about to bring another
                raise _Moved(problem) from error
            raise problem from error
        spec = served_spec(name, _parameters(config), version)
        require_replacement(f"model '{name}' version {version} at {self._server.url}", before=self._spec, after=spec)
        if config.max_batch_size < 1:
            raise Stop(
                f"model '{name}' at {self._server.url} takes no batches: Bartizan did not write its config.pbtxt"
            )
        found = Served(
            version=version,
            spec=spec,
            identity=Identity.of(spec),
            mark=tower_mark(spec.tower_id).tobytes(),
            max_batch=config.max_batch_size,
        )
        self._served = found
        self.looks += 1
        return found

    def _unknown(self, until: float) -> Talk[BartizanError]:
        """There is no such model: what is there instead."""
        index = yield self._server.index(_left(until))
        there = sorted({model.name for model in index.models if model.state == "READY"})
        states = sorted({f"{m.version}: {m.reason}" for m in index.models if m.name == self._model and m.reason})
        why = f" ({'; '.join(states)})" if states else ""
        return WrongUse(
            f"{self._server.url} serves no model '{self._model}'{why}; it serves {', '.join(there) or 'none'}. "
            "Name one of these (model = …), or bring it there: bartizan deploy REPO --server URL"
        )

    def _ask_all(self, served: Served, ids: Ids, mask: Ids, until: float) -> Talk[Ran]:
        """The batch in as many requests as the model's largest batch makes necessary."""
        parts = []
        for start in range(0, len(ids), served.max_batch):
            rows = slice(start, start + served.max_batch)
            parts.append((yield from self._ask(served, ids[rows], mask[rows], until)))
        if isinstance(parts[0], np.ndarray):
            return Ran(np.concatenate(parts) if len(parts) > 1 else parts[0], served.identity)
        return Ran(tuple(vector for part in parts for vector in part), served.identity)

    def _ask(self, served: Served, ids: Ids, mask: Ids, until: float) -> Talk[Any]:
        """One request to the version that is known, and its answer held against it."""
        names = _DENSE_OUTPUTS if served.spec.kind == "dense" else _SPARSE_OUTPUTS
        request = service_pb2.ModelInferRequest(model_name=self._model, model_version=str(served.version))
        for name, values in zip(INPUTS, (ids, mask), strict=True):
            request.inputs.add(name=name, datatype="INT64", shape=values.shape)
            request.raw_input_contents.append(np.ascontiguousarray(values, dtype="<i8").tobytes())
        for name in names:
            request.outputs.add(name=name)
        try:
            answer = yield self._server.infer(request, _left(until))
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND or "not at ready state" in (error.details() or ""):
                raise _Moved(translated(error, self._server.url, f"model '{self._model}'")) from error
            raise
        raw = {tensor.name: (tensor, answer.raw_output_contents[at]) for at, tensor in enumerate(answer.outputs)}
        if set(raw) != set(names):
            raise Stop(f"model '{self._model}' at {self._server.url} gave {sorted(raw)}; expected {sorted(names)}")
        if raw[TOWER_OUTPUT][1] != served.mark * len(ids):
            raise _Moved(
                Stop(
                    f"version {served.version} of model '{self._model}' at {self._server.url} answers as another tower "
                    f"than its configuration says ({served.identity.tower_id}): a version's files were edited; "
                    "export the tower again, as a new version, and deploy that"
                )
            )
        return values_of(raw, served.spec)

    def _forget(self, served: Served | None) -> None:
        with self._lock:
            if self._served is served:  # nobody has looked again meanwhile
                self._served = None

    def _spend(self, retries: float) -> bool:
        """Whether another try is within the budget."""
        with self._lock:
            if retries > self._retries:
                return False
            self._retries = min(_RETRIES, self._retries - retries)
            return True


def _parameters(config: Any) -> dict[str, str]:
    return {key: value.string_value for key, value in config.parameters.items()}


def _left(until: float) -> float:
    """Seconds to the deadline; a call that has none left fails as any that is too slow."""
    return max(1e-4, until - time.monotonic())


def values_of(raw: dict[str, Any], spec: TowerSpec) -> Any:
    """Dense: a matrix. Sparse: a vector for each row, its terms in rising order."""
    if spec.kind == "dense":
        tensor, content = raw[OUTPUT]
        return np.frombuffer(content, dtype="<f4").reshape(tuple(tensor.shape))
    shape = tuple(raw[INDICES_OUTPUT][0].shape)
    indices = np.frombuffer(raw[INDICES_OUTPUT][1], dtype="<i8").reshape(shape)
    weights = np.frombuffer(raw[WEIGHTS_OUTPUT][1], dtype="<f4").reshape(shape)
    return tuple(_sparse(*row) for row in zip(indices, weights, strict=True))


def _sparse(indices: Any, weights: Any) -> SparseVector:
    terms = np.flatnonzero(weights > 0)
    order = terms[np.argsort(indices[terms], kind="stable")]
    return SparseVector(indices[order].astype(np.int32), weights[order].astype(np.float32))
