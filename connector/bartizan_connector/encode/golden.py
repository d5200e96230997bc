"""Golden texts of an export: short texts with the tower's own vectors, encoded again wherever the export is opened.

An export is accepted for the machine that it runs on, not only for the one that it was made on: int8 products may
saturate on a CPU without VNNI, and another engine or version may round otherwise or be broken. So each opening compares
with what the tower gave in torch, by the cosine that the parity gate asks for as well.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bartizan_connector.base.errors import BartizanError, Stop
from bartizan_connector.encode.answers import trusting
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.space.spec import Precision, Role
from bartizan_connector.space.vectors import Floats, SparseVector

GOLDEN_FILE = "golden.json"

LEAST_COSINE: Mapping[Precision, float] = {"fp32": 0.9999, "bf16": 0.98, "fp16": 0.99, "int8": 0.98}
"""fp32: engines differ by rounding, some 1e-12 in a cosine, or 1e-6 where they round products; a mistake shows above.
int8: what the parity gate lets pass where the export is made (decision 006: MiniLM's worst text has .994), so that an
export is good on this machine exactly when the gate would take it here."""

_LENGTHS = 5
"""How much more a length may differ than a cosine: it counts where vectors are not normalised, and moves more."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Golden:
    """Texts in one role, and the vector of each."""

    role: Role
    texts: tuple[str, ...]
    values: Floats | tuple[SparseVector, ...]


def golden_json(golden: Sequence[Golden]) -> str:
    """What the file holds; numbers in the shortest spelling that gives the same float32."""
    roles: dict[str, Any] = {}
    for each in golden:
        vectors = [_told(value) for value in each.values]
        roles[each.role] = {"texts": list(each.texts), "vectors": vectors}
    return json.dumps(roles, ensure_ascii=False) + "\n"


def golden_of(content: bytes, *, origin: str) -> tuple[Golden, ...]:
    """The file's golden texts."""
    try:
        return tuple(
            Golden(role=role, texts=tuple(found["texts"]), values=_values(found["vectors"]))
            for role, found in json.loads(content).items()
        )
    except (ValueError, KeyError, TypeError, AttributeError, BartizanError) as error:
        raise Stop(f"{origin} is damaged: {error!r}; export the tower again") from error


def require_golden(encoder: Encoder, golden: Sequence[Golden], what: str) -> None:
    """Refuse an encoder that gives other vectors than these."""
    least = LEAST_COSINE[encoder.spec.precision]
    for each in golden:
        with trusting(encoder.spec):
            came = encoder.encode(each.texts, each.role).values
        for text, expected, value in zip(each.texts, each.values, came, strict=True):
            cosine, length = _compared(expected, value)
            if not cosine >= least:
                raise _refusal(encoder, what, f"text {text!r:.40} has cosine {cosine:.4f}, at least {least} is asked")
            if not abs(length - 1) <= _LENGTHS * (1 - least):
                raise _refusal(encoder, what, f"text {text!r:.40} has a vector {length:.4f} times as long")


def _refusal(encoder: Encoder, what: str, why: str) -> Stop:
    way_out = "Export the tower again on a machine like this one"
    if encoder.spec.precision != "fp32":
        way_out += f", or use its fp32 export: on some processors {encoder.spec.precision} products saturate"
    error = Stop(f"{what} gives other vectors on this machine than its tower: {why}. {way_out}")
    error.way_out = way_out
    return error


def _compared(one: Floats | SparseVector, other: Floats | SparseVector) -> tuple[float, float]:
    """The cosine of two vectors of one kind, and how many times longer `other` is; both 1 where both are nothing but
    zeros, not a number where they cannot be compared."""
    if isinstance(one, SparseVector) and isinstance(other, SparseVector):
        _, mine, theirs = np.intersect1d(one.indices, other.indices, assume_unique=True, return_indices=True)
        product = float(one.weights[mine] @ other.weights[theirs])
        lengths = float(np.linalg.norm(one.weights)), float(np.linalg.norm(other.weights))
    elif isinstance(one, np.ndarray) and isinstance(other, np.ndarray) and one.shape == other.shape:
        product = float(one @ other)
        lengths = float(np.linalg.norm(one)), float(np.linalg.norm(other))
    else:
        return float("nan"), float("nan")
    if 0.0 in lengths:
        same = float(lengths == (0.0, 0.0))
        return same, same
    return product / (lengths[0] * lengths[1]), lengths[1] / lengths[0]


def _told(value: Floats | SparseVector) -> Any:
    if isinstance(value, SparseVector):
        return {"indices": value.indices.tolist(), "weights": _told(value.weights)}
    return [float(str(number)) for number in value]


def _values(vectors: Sequence[Any]) -> Floats | tuple[SparseVector, ...]:
    if vectors and isinstance(vectors[0], Mapping):
        return tuple(
            SparseVector(np.array(each["indices"], dtype=np.int32), np.array(each["weights"], dtype=np.float32))
            for each in vectors
        )
    values: Floats = np.array(vectors, dtype=np.float32)
    return values
