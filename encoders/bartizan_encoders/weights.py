"""Weights: their identity, and the one safetensors file they are kept in."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bartizan_connector.base.errors import Stop

WEIGHTS_FILE = "model.safetensors"
_HASH_DOMAIN = b"bartizan.weights/1\n"


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Every saved tensor by name; one that stands under two names (tied) is kept under the first in order."""
    kept: dict[str, Tensor] = {}
    seen: set[tuple[int, tuple[int, ...]]] = set()
    for name, tensor in sorted(module.state_dict().items()):
        place = (tensor.data_ptr(), tuple(tensor.shape))
        if tensor.numel() == 0 or place not in seen:
            kept[name] = tensor
            seen.add(place)
    return kept


def weights_hash(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in order of name: the same however the file is laid out."""
    digest = hashlib.sha256(_HASH_DOMAIN)
    for name, tensor in sorted(state.items()):
        dtype = str(tensor.dtype).removeprefix("torch.")
        digest.update(json.dumps([name, dtype, list(tensor.shape)]).encode() + b"\n")
        flat = tensor.detach().to("cpu").contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_weights(folder: Path, state: Mapping[str, Tensor]) -> None:
    """Save the tensors in the folder."""
    contiguous = {name: tensor.detach().to("cpu").contiguous() for name, tensor in state.items()}
    path = folder / WEIGHTS_FILE
    save_file(contiguous, path, metadata={"format": "pt"})
    path.chmod(folder.stat().st_mode & 0o666)  # the library makes it readable by its owner only


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Load the tensors of the folder."""
    path = folder / WEIGHTS_FILE
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise Stop(f"{folder} has no {WEIGHTS_FILE}; import or train the tower again") from error
    except SafetensorError as error:
        raise Stop(f"{path} is damaged ({error}); import or train the tower again") from error
