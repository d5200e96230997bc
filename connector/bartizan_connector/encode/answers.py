"""What a tower answered, checked before it is used: one finite vector of the promised length for each text."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from bartizan_connector.base.errors import Stop
from bartizan_connector.space.spec import TowerSpec
from bartizan_connector.space.vectors import NotFinite, Vectors


@contextmanager
def trusting(spec: TowerSpec) -> Iterator[None]:
    """Where no single text is to blame: a vector that is not finite says that the tower is broken."""
    try:
        yield
    except NotFinite as error:
        raise _broken(spec, "gives vectors that hold NaN or infinity") from error


def check_answer(vectors: Vectors, spec: TowerSpec, texts: int) -> Vectors:
    """The vectors, once their number, kind and length are found to be what the spec promises."""
    if len(vectors) != texts:
        raise _broken(spec, f"gives {len(vectors)} vectors for {texts} texts")
    values = vectors.values
    kind = "dense" if isinstance(values, np.ndarray) else "sparse"
    if texts and kind != spec.kind:
        raise _broken(spec, f"is {spec.kind} by its spec, but gives {kind} vectors")
    if texts and isinstance(values, np.ndarray) and values.shape[1] != spec.dim:
        raise _broken(spec, f"gives vectors of length {values.shape[1]}, its spec promises {spec.dim}")
    return vectors


def _broken(spec: TowerSpec, how: str) -> Stop:
    error = Stop(f"tower '{spec.name}' ({spec.tower_id}) is broken: it {how}. {_WAY_OUT}")
    error.way_out = _WAY_OUT
    return error


_WAY_OUT = "Export it again; if that gives the same, import or train it again"
