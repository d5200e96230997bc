"""The gate through the server: a version is put into use only if it gives, there, what its export gives here.

Golden texts of every length, in every role, in every mix of batches; and the texts that travel in the export beside
what the tower itself gave in torch when it was exported.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bartizan_connector.base.errors import Stop
from bartizan_connector.base.progress import Tick
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.encode.export import Export
from bartizan_connector.space.spec import Precision, Role, TowerSpec
from bartizan_triton.closeness import Closeness, Value, measured
from bartizan_triton.golden import golden_texts, mixes

_LONGEST_COMPARED = 512
"""Tokens; a tower that takes more is compared up to here, for time's sake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a served vector may differ by from the same export's in this process."""

    cosine: float
    drift: float
    """Between a text's vectors in two batches, beside the vector's length."""


LIMITS: Mapping[Precision, Limits] = {
    # The same graph on the same kind of processor rounds alike; a GPU picks its products by the batch's shape.
    "fp32": Limits(cosine=0.9999, drift=1e-4),
    "bf16": Limits(cosine=0.99, drift=1e-2),
    "fp16": Limits(cosine=0.999, drift=1e-3),
    # Integers are exact; where a processor saturates them, the vectors are others.
    "int8": Limits(cosine=0.99, drift=1e-3),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """What was compared, and the worst that was found."""

    texts: int
    batches: int
    cosine: float
    drift: float


def batches_of(spec: TowerSpec) -> int:
    """How many batches `judge` has encoded."""
    return sum(len(mixes(_texts(spec, role))) for role in _unlike_roles(spec))


def judge(served: Encoder, reference: Encoder, export: Export, tick: Tick = lambda done=1, note="": None) -> Passed:
    """Refuse a served version that is beyond its limits. `reference` runs the same export in this process."""
    found: list[Closeness] = []
    texts_compared = batches = 0
    for role in _unlike_roles(export.spec):
        texts = _texts(export.spec, role)
        expected = reference.encode(texts, role).values
        seen: dict[int, Value] = {}
        groups = mixes(texts)
        for group in groups:
            came = served.encode([texts[position] for position in group], role).values
            for position, value in zip(group, came, strict=True):
                found.append(measured(expected[position], value, seen.setdefault(position, value)))
            tick()
        texts_compared += len(texts)
        batches += len(groups)
    passed = Passed(
        texts=texts_compared,
        batches=batches,
        cosine=-_worst([-each.cosine for each in found]),
        drift=_worst([each.drift for each in found]),
    )
    limits = LIMITS[export.spec.precision]
    broken = []
    if not passed.cosine >= limits.cosine:
        broken.append(f"a vector has cosine {passed.cosine:.5f} to the export's, at least {limits.cosine} is asked")
    if not passed.drift <= limits.drift:
        broken.append(f"a vector moves by {passed.drift:.2g} with its batch, at most {limits.drift:.0e} may")
    if broken:
        raise Stop(f"what is served does not agree with its export: {'; '.join(broken)}")
    export.require_golden(served)
    return passed


def _unlike_roles(spec: TowerSpec) -> list[Role]:
    """One role of each preparation: two that prepare a text alike give one vector."""
    return list({how: role for role, how in spec.roles.items()}.values())


def _texts(spec: TowerSpec, role: Role) -> list[str]:
    return golden_texts(min(spec.roles[role].max_tokens, _LONGEST_COMPARED))


def _worst(values: list[float]) -> float:
    """The greatest; not a number where one is none."""
    return float("nan") if any(value != value for value in values) else max(values)
