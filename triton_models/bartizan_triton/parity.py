"""The parity gate: an export is kept only if it gives what the torch tower gives, in any company of texts."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnxruntime
import torch

from bartizan_connector.base.errors import Stop
from bartizan_connector.base.progress import Tick
from bartizan_connector.encode.export import GOLDEN_HASH, MODEL_FILE, MODEL_HASH
from bartizan_connector.encode.golden import GOLDEN_FILE, Golden
from bartizan_connector.encode.onnx import OnnxEncoder
from bartizan_connector.space.spec import Kind, Precision, Role, TowerSpec
from bartizan_connector.space.vectors import SparseVector, Vectors
from bartizan_encoders.local import TorchEncoder
from bartizan_encoders.tower import Tower
from bartizan_triton.closeness import Closeness, Value, measured, scores_differ
from bartizan_triton.golden import OPENING_TEXTS, golden_texts, mixes

_LONGEST_COMPARED = 1024
"""Tokens; a tower that takes more is compared up to here, for time's sake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an export may differ by. Differences are of components, with vectors scaled to the reference's length."""

    difference: float | None
    """Largest difference from torch."""
    cosine: float
    """Smallest cosine to torch's vector."""
    drift: float
    """Largest difference between a text's vectors in two batches."""
    terms: float | None = None
    """Sparse: largest weight, beside the text's largest, of a term that only one of the two has."""
    scores: float | None = None
    """Sparse: largest difference of two texts' score, beside the product of their lengths."""


LIMITS: dict[Kind, dict[Precision, Limits]] = {
    "dense": {
        # Two exact engines differ by rounding: at most 3e-7 was seen over 14 architectures, a mistake is above 1e-3.
        "fp32": Limits(difference=1e-5, cosine=0.99999, drift=1e-5),
        # Rounding to int8 moves MiniLM's vectors to a cosine of .994; one scale for a whole tensor, the classic
        # mistake, to .93. A text must not notice its neighbours, but an activation may fall to a half's other side.
        "int8": Limits(difference=None, cosine=0.98, drift=1e-3),
    },
    "sparse": {
        # A weight that rounding lifts over zero or pushes under it is itself of the size of rounding. A calibrated head
        # takes what is usual off logits of about 20 and leaves their rounding, which counts in a nearly empty vector:
        # of SmolLM2, 3e-5 in a weight and 6e-5 in a score on one processor, 8e-5 and 1.6e-4 on another; torch itself in
        # fp32 and fp64 differ there by 2e-5.
        "fp32": Limits(difference=5e-4, cosine=0.99999, drift=1e-5, terms=1e-4, scores=5e-4),
        # A term may come or go where its weight is small beside the text's largest; a score, being a sum of many
        # products, moves less than its two vectors do, which by their cosine may differ by a fifth of their length.
        "int8": Limits(difference=None, cosine=0.98, drift=1e-3, terms=0.2, scores=0.1),
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """What was compared, and the worst that was found."""

    texts: int
    batches: int
    longest: int
    difference: float
    cosine: float
    drift: float
    terms: float | None = None
    scores: float | None = None


def batches_of(spec: TowerSpec) -> int:
    """How many batches `compare` encodes."""
    return sum(len(mixes(_texts(spec, role))) for role in _unlike_roles(spec))


def compare(tower: Tower, exported: OnnxEncoder, tick: Tick = lambda done=1, note="": None) -> Parity:
    """Encode the golden texts in every mix and every role, against torch with each text alone and unpadded; `tick` is
    called after each batch."""
    found: list[Closeness] = []
    pairs: list[tuple[SparseVector, SparseVector]] = []
    texts_compared = longest = batches = 0
    spec = exported.spec
    for role in _unlike_roles(spec):
        texts = _texts(spec, role)
        expected = _reference(tower, texts, role)
        groups = mixes(texts)
        seen: dict[int, Value] = {}
        for group in groups:
            values = exported.encode([texts[position] for position in group], role).values
            for position, vector in zip(group, values, strict=True):
                found.append(measured(expected.values[position], vector, seen.setdefault(position, vector)))
            tick()
        pairs += [
            (one, other)
            for one, other in ((expected.values[position], seen[position]) for position in range(len(texts)))
            if isinstance(one, SparseVector) and isinstance(other, SparseVector)
        ]
        texts_compared += len(texts)
        batches += len(groups)
        longest = max(longest, min(max(expected.tokens), spec.roles[role].max_tokens))
    sparse = spec.kind == "sparse"
    return Parity(
        texts=texts_compared,
        batches=batches,
        longest=longest,
        difference=_worst([each.difference for each in found]),
        cosine=-_worst([-each.cosine for each in found]),
        drift=_worst([each.drift for each in found]),
        terms=_worst([each.terms for each in found]) if sparse else None,
        scores=scores_differ(pairs) if sparse else None,
    )


def require(parity: Parity, spec: TowerSpec) -> None:
    """Refuse an export that is beyond the limits of its kind and precision."""
    limits, came = LIMITS[spec.kind][spec.precision], parity
    broken = []
    if limits.difference is not None and not came.difference <= limits.difference:
        broken.append(f"a component differs by {came.difference:.2g}, at most {limits.difference:.0e} may")
    if not came.cosine >= limits.cosine:
        broken.append(f"a vector has cosine {came.cosine:.5f} to the tower's, at least {limits.cosine} is asked")
    if not came.drift <= limits.drift:
        broken.append(f"a vector moves by {came.drift:.2g} with its batch, at most {limits.drift:.0e} may")
    if limits.terms is not None and not (came.terms is not None and came.terms <= limits.terms):
        broken.append(f"a term of weight {came.terms:.2g} (1: the text's largest) stands in one alone")
    if limits.scores is not None and not (came.scores is not None and came.scores <= limits.scores):
        broken.append(f"a score differs by {came.scores:.2g}, at most {limits.scores:.0e} may")
    if broken:
        raise Stop(
            f"the {spec.precision} export does not agree with the tower: {'; '.join(broken)}; nothing was written"
        )


def report(parity: Parity, spec: TowerSpec, folder: Path) -> dict[str, Any]:
    """What parity.json records; the model and the golden texts are known by their hashes from then on."""
    return {
        "tower_id": spec.tower_id,
        "space_id": spec.space_id,
        "precision": spec.precision,
        "reference": f"torch {torch.__version__}",
        "engine": f"onnxruntime {onnxruntime.__version__}",
        "compared": _given(asdict(parity)),
        "limits": asdict(LIMITS[spec.kind][spec.precision]),
        MODEL_HASH: hashlib.sha256((folder / MODEL_FILE).read_bytes()).hexdigest(),
        GOLDEN_HASH: hashlib.sha256((folder / GOLDEN_FILE).read_bytes()).hexdigest(),
    }


def golden_vectors(tower: Tower) -> list[Golden]:
    """The golden texts of an opening in every unlike role, with the tower's own vectors."""
    return [
        Golden(role=role, texts=OPENING_TEXTS, values=_reference(tower, OPENING_TEXTS, role).values)
        for role in _unlike_roles(tower.spec)
    ]


def _unlike_roles(spec: TowerSpec) -> list[Role]:
    """One role of each preparation: two that prepare a text alike give one vector."""
    return list({how: role for role, how in spec.roles.items()}.values())


def _texts(spec: TowerSpec, role: Role) -> list[str]:
    return golden_texts(min(spec.roles[role].max_tokens, _LONGEST_COMPARED))


def _reference(tower: Tower, texts: Sequence[str], role: Role) -> Vectors:
    """Torch's vectors of each text alone. On one thread: small work only waits for a second."""
    threads = torch.get_num_threads()
    try:
        return TorchEncoder(tower, threads=1, batch_tokens=1).encode(texts, role)
    finally:
        torch.set_num_threads(threads)


def _worst(values: Sequence[float]) -> float:
    """The greatest; not a number where one is none."""
    return float("nan") if any(value != value for value in values) else max(values)


def _given(facts: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if value is not None}
