"""Bartizan's light side: the space contract, the seams, the pipeline and the SDK that searches.

Names are loaded when first used, so that importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bartizan_connector.base.errors import BartizanError, Reject, Retry, SpaceMismatch, Stop, WrongUse
    from bartizan_connector.config import Config
    from bartizan_connector.documents.documents import Documents
    from bartizan_connector.encode.onnx import OnnxEncoder
    from bartizan_connector.search.retriever import Retriever
    from bartizan_connector.space.spec import TowerSpec
    from bartizan_connector.store.collection import Collection, FieldSpec, Leg
    from bartizan_connector.store.memory import MemoryBackend

_HOME = {
    "BartizanError": "base.errors",
    "Collection": "store.collection",
    "Config": "config",
    "Documents": "documents.documents",
    "FieldSpec": "store.collection",
    "Leg": "store.collection",
    "MemoryBackend": "store.memory",
    "OnnxEncoder": "encode.onnx",
    "Reject": "base.errors",
    "Retriever": "search.retriever",
    "Retry": "base.errors",
    "SpaceMismatch": "base.errors",
    "Stop": "base.errors",
    "TowerSpec": "space.spec",
    "WrongUse": "base.errors",
}

__all__ = [
    "BartizanError",
    "Collection",
    "Config",
    "Documents",
    "FieldSpec",
    "Leg",
    "MemoryBackend",
    "OnnxEncoder",
    "Reject",
    "Retriever",
    "Retry",
    "SpaceMismatch",
    "Stop",
    "TowerSpec",
    "WrongUse",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
