"""Exports of tiny towers, each made once a run."""

import functools
import tempfile
from pathlib import Path

from bartizan_connector.space.spec import Precision
from bartizan_triton.export import export_tower
from tests.encoders import tiny


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="bartizan-exports-")


@functools.cache
def tower_folder(kind: str) -> Path:
    """A tiny tower with a head, `sparse-…` over that of its language model; never written to."""
    folder = Path(_scratch().name) / kind
    if kind.startswith("sparse-"):
        tiny.sparse_tower(kind.removeprefix("sparse-")).save(folder)
        return folder
    return tiny.saved(folder, kind, dim=8)


@functools.cache
def export_folder(kind: str, precision: Precision) -> Path:
    """Its export; never written to."""
    folder = Path(_scratch().name) / f"{kind}-{precision}"
    export_tower(tower_folder(kind), folder, precision)
    return folder
