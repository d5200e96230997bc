"""Pinning: the one version that a server loads from its next start on stands in the model's configuration."""

from pathlib import Path

from bartizan_connector.base.alone import alone_in
from bartizan_connector.base.aside import write_aside
from bartizan_connector.base.errors import WrongUse
from bartizan_triton.repository.config import CONFIG_FILE, as_text, model_config
from bartizan_triton.repository.shelf import model_in
from bartizan_triton.repository.text import pin_text_models


def pin(repository: Path, name: str, number: int) -> None:
    """The version that a server loads from now on, in the model's configuration."""
    if not repository.is_dir():
        raise WrongUse(f"{repository} is no folder; expected a model repository (bartizan export --format triton)")
    with alone_in(repository):
        write_pin(repository, name, number)


def write_pin(repository: Path, name: str, number: int) -> None:
    """The same, for who is alone in the repository already."""
    version = model_in(repository, name).versions.get(number)
    if version is None:
        have = ", ".join(map(str, model_in(repository, name).versions)) or "none"
        raise WrongUse(f"model '{name}' in {repository} has no version {number}; there are {have}")
    config = model_config(name, version.serving, {number: version.spec}, current=number)
    write_aside(repository / name / CONFIG_FILE, as_text(config))
    pin_text_models(repository, name, version.spec, version.serving, number)
