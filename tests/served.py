"""Towers as a Triton server serves them: repositories made of tiny exports, and encoders that ask the server."""

from pathlib import Path
from typing import Any

from bartizan_connector.encode.export import Export
from bartizan_connector.encode.triton.calls import Access
from bartizan_connector.encode.triton.encoder import TritonEncoder
from bartizan_connector.space.spec import TowerSpec
from bartizan_connector.space.tokens import Tokens
from bartizan_triton.repository.serving import Serving
from bartizan_triton.repository.shelf import Version
from bartizan_triton.repository.write import add_version
from tests.servers.triton import TritonServer

BY_PYTHON = Serving(backend="python")
"""The one backend that the server in the wheel has."""


def added(repository: Path, export: Path, name: str, serving: Serving = BY_PYTHON, **how: Any) -> Version:
    """An export as a new version of a model."""
    return add_version(repository, Export.read(export), serving, name=name, **how)


def asking(server: TritonServer, folder: Path, model: str | None = None, **how: Any) -> TritonEncoder:
    """An encoder for the tower or export in `folder`, run by the server."""
    spec = TowerSpec.read(folder)
    return TritonEncoder.open(Access(url=server.url), Tokens.read(folder, spec), spec, model=model, **how)
