"""The parity gate: an export is kept only if it gives what the torch tower gives, in any company of texts."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from bartizan_connector.base.console import Tick
from bartizan_connector.base.errors import Stop
from bartizan_connector.encode.onnx import OnnxEncoder
from bartizan_connector.space.spec import Precision, Role, TowerSpec
from bartizan_connector.space.vectors import Floats
from bartizan_encoders.local import TorchEncoder
from bartizan_encoders.tower import Tower
from bartizan_triton.golden import golden_texts, mixes

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


LIMITS: dict[Precision, Limits] = {
    # Two exact engines differ by rounding: at most 3e-7 was seen over 14 architectures, a mistake shows above 1e-3.
    "fp32": Limits(difference=1e-5, cosine=0.99999, drift=1e-5),
    # Rounding to int8 moves MiniLM's vectors to a cosine of .994; one scale for a whole tensor, the classic mistake,
    # to .93. A text must not notice its neighbours, but an activation may fall to the other side of a half.
    "int8": Limits(difference=None, cosine=0.98, drift=1e-3),
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


def batches_of(spec: TowerSpec) -> int:
    """How many batches `compare` encodes."""
    return sum(len(mixes(_texts(spec, role))) for role in _unlike_roles(spec))


def compare(tower: Tower, exported: OnnxEncoder, tick: Tick = lambda done=1: None) -> Parity:
    """Encode the golden texts in every mix and every role, against torch with each text alone and unpadded; `tick` is
    called after each batch."""
    found: list[tuple[float, float, float]] = []
    count = longest = batches = 0
    for role in _unlike_roles(exported.spec):
        texts = _texts(exported.spec, role)
        expected, lengths = _reference(tower, texts, role)
        groups = mixes(texts)
        seen: dict[int, Floats] = {}
        for group in groups:
            values = exported.encode([texts[position] for position in group], role).values
            assert isinstance(values, np.ndarray)
            for position, vector in zip(group, values, strict=True):
                found.append(_measured(expected[position], vector, seen.setdefault(position, vector)))
            tick()
        count, batches = count + len(texts), batches + len(groups)
        longest = max(longest, min(max(lengths), exported.spec.roles[role].max_tokens))
    difference, cosine, drift = zip(*found, strict=True)
    return Parity(
        texts=count, batches=batches, longest=longest, difference=max(difference), cosine=min(cosine), drift=max(drift)
    )


def require(parity: Parity, precision: Precision) -> None:
    """Refuse an export that is beyond its limits."""
    limits = LIMITS[precision]
    broken = []
    if limits.difference is not None and not parity.difference <= limits.difference:
        broken.append(f"a component differs by {parity.difference:.2g}, at most {limits.difference:.0e} may")
    if not parity.cosine >= limits.cosine:
        broken.append(f"a vector has cosine {parity.cosine:.5f} to the tower's, at least {limits.cosine} is asked")
    if not parity.drift <= limits.drift:
        broken.append(f"a vector moves by {parity.drift:.2g} with its batch, at most {limits.drift:.0e} may")
    if broken:
        raise Stop(f"the {precision} export does not agree with the tower: {'; '.join(broken)}; nothing was written")


def report(parity: Parity, exported: OnnxEncoder, model: Path) -> dict[str, Any]:
    """What parity.json records; the model is known by its hash from then on."""
    return {
        "tower_id": exported.spec.tower_id,
        "space_id": exported.spec.space_id,
        "precision": exported.spec.precision,
        "reference": f"torch {torch.__version__}",
        "engine": f"onnxruntime {onnxruntime.__version__}",
        "compared": asdict(parity),
        "limits": asdict(LIMITS[exported.spec.precision]),
        "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
    }


def _unlike_roles(spec: TowerSpec) -> list[Role]:
    """One role of each preparation: two that prepare a text alike give one vector."""
    return list({how: role for role, how in spec.roles.items()}.values())


def _texts(spec: TowerSpec, role: Role) -> list[str]:
    return golden_texts(min(spec.roles[role].max_tokens, _LONGEST_COMPARED))


def _reference(tower: Tower, texts: Sequence[str], role: Role) -> tuple[Floats, tuple[int, ...]]:
    """Torch's vectors of each text alone, and the texts' lengths. On one thread: small work only waits for a second."""
    threads = torch.get_num_threads()
    try:
        expected = TorchEncoder(tower, threads=1, batch_tokens=1).encode(texts, role)
    finally:
        torch.set_num_threads(threads)
    assert isinstance(expected.values, np.ndarray)
    return expected.values, expected.tokens


def _measured(expected: Floats, came: Floats, before: Floats) -> tuple[float, float, float]:
    """Difference, cosine, drift. Not a number counts as the worst."""
    length = float(np.linalg.norm(expected)) or 1.0
    size = float(np.linalg.norm(came)) or 1.0
    difference = float(np.abs(came - expected).max()) / length
    drift = float(np.abs(came - before).max()) / length
    return difference, float(expected @ came) / (length * size), drift
