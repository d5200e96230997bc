"""GGUF: a quantised model file of llama.cpp, unpacked into the layout that Hugging Face publishes."""

import json
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from bartizan_connector.base.errors import Stop, WrongUse, require_installed
from bartizan_encoders.backbone import CONFIG_FILE, quiet_transformers

SUFFIX = ".gguf"


def gguf_in(folder: Path) -> Path | None:
    """The folder's GGUF file, when that is all the model there is in it; of several, none is the one that is meant."""
    if (folder / CONFIG_FILE).exists() or (folder / "modules.json").exists():
        return None
    found = sorted(folder.glob(f"*{SUFFIX}"))
    if len(found) > 1:
        raise WrongUse(f"{folder} holds {len(found)} GGUF files; name one of them: {found[0]}")
    return found[0] if found else None


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """A folder with config.json, weights and tokenizer of a GGUF file; it is gone when the block ends.

    The weights are what the quantised ones stand for, in fp32: nothing of the quantisation is kept.
    """
    require_installed(("gguf",), "train")
    with tempfile.TemporaryDirectory(prefix="bartizan-gguf-") as aside:
        folder = Path(aside)
        model, tokenizer = _read(path)
        save_file(_backbone_first(model.state_dict()), folder / "model.safetensors", metadata={"format": "pt"})
        tokenizer.save_pretrained(folder)
        facts = model.config.to_dict()
        facts.pop("quantization_config", None)  # of the file; the weights here are not quantised any more
        (folder / CONFIG_FILE).write_text(json.dumps(facts, default=str), encoding="utf-8")
        yield folder


def _backbone_first(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each tensor once: one that the head shares with the backbone goes under the backbone's name."""
    names = {tensor.data_ptr(): name for name, tensor in sorted(state.items())}  # lm_head before model
    return {name: state[name].contiguous() for name in names.values()}


def _read(path: Path) -> tuple[Any, Any]:
    from_file = {"gguf_file": path.name}
    with quiet_transformers(), Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):  # a bar of its own
        try:
            model = AutoModelForCausalLM.from_pretrained(path.parent, **from_file)
            return model, AutoTokenizer.from_pretrained(path.parent, **from_file)
        except (OSError, ValueError, KeyError, RuntimeError, NotImplementedError, IndexError, struct.error) as error:
            raise Stop(f"{path} is no GGUF file of a family that transformers reads: {error}") from error
