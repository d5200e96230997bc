"""Bartizan's light side: the space contract, the seams, the pipeline and the SDK that searches.

Names are loaded when first used, so that importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bartizan_connector.collection import Collection, FieldSpec, Leg
    from bartizan_connector.config import Config
    from bartizan_connector.errors import BartizanError, Reject, Retry, SpaceMismatch, Stop, WrongUse
    from bartizan_connector.memory import MemoryBackend
    from bartizan_connector.milvus import MilvusBackend
    from bartizan_connector.onnx import OnnxEncoder
    from bartizan_connector.retriever import Retriever
    from bartizan_connector.spec import TowerSpec

_HOME = {
    "BartizanError": "errors",
    "Collection": "collection",
    "Config": "config",
    "FieldSpec": "collection",
    "Leg": "collection",
    "MemoryBackend": "memory",
    "MilvusBackend": "milvus",
    "OnnxEncoder": "onnx",
    "Reject": "errors",
    "Retriever": "retriever",
    "Retry": "errors",
    "SpaceMismatch": "errors",
    "Stop": "errors",
    "TowerSpec": "spec",
    "WrongUse": "errors",
}

__all__ = [
    "BartizanError",
    "Collection",
    "Config",
    "FieldSpec",
    "Leg",
    "MemoryBackend",
    "MilvusBackend",
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
