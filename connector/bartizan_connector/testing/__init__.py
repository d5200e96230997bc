"""The judges that ship with the SDK: conformance suites for encoders, back-ends and sources.

    from bartizan_connector.testing import BackendSuite, EncoderSuite, SourceSuite

They are pytest classes, loaded when first used: the SDK itself needs no pytest.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bartizan_connector.testing.backend import BackendSuite
    from bartizan_connector.testing.encoder import EncoderSuite
    from bartizan_connector.testing.source import DeadLetter, Medium, SourceSuite

_HOME = {
    "BackendSuite": "backend",
    "DeadLetter": "source",
    "EncoderSuite": "encoder",
    "Medium": "source",
    "SourceSuite": "source",
}

__all__ = ["BackendSuite", "DeadLetter", "EncoderSuite", "Medium", "SourceSuite"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    try:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "pytest":
            raise
        raise ModuleNotFoundError("the conformance suites need pytest: pip install pytest", name="pytest") from error


def __dir__() -> list[str]:
    return __all__
