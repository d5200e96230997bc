"""Models that take texts, for clients that cannot tokenise: one for each role of a tower, since a role prepares texts
its own way.

`NAME_ROLE_text` tokenises and asks one version of `NAME`, the pinned one. Towers that can replace each other read the
same tokens, so it has one version for good; only its configuration changes, with the version that it asks. (An
ensemble would do the same, but loading one makes Triton load what it is made of anew, from the folder: a version that
is being judged would be gone.)
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from bartizan_connector.base.aside import folder_aside, write_aside
from bartizan_connector.encode.triton.contract import VERSION_PARAMETER
from bartizan_connector.space.spec import Role, TowerSpec
from bartizan_connector.space.tokens import Tokens
from bartizan_triton.repository.config import CODE_FILE, CONFIG_FILE, as_text, outputs_of, triton
from bartizan_triton.repository.serving import Serving

TEXT_FILE = "text.json"
"""Says, beside a model's configuration, whose texts it takes; such a model holds no tower of its own."""
TEXT_INPUT, TOKENS_OUTPUT = "text", "tokens"
ROLE_PARAMETER, MODEL_PARAMETER = "bartizan.role", "bartizan.model"
_CODE = Path(__file__).with_name("text_by_python.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextModel:
    """The model through which texts of one role reach another."""

    model: str
    role: Role

    @property
    def text(self) -> str:
        """The name under which clients ask."""
        return f"{self.model}_{self.role}_text"

    @classmethod
    def read(cls, folder: Path) -> Self:
        """What `TEXT_FILE` says."""
        facts = json.loads((folder / TEXT_FILE).read_bytes())
        return cls(model=facts["model"], role=facts["role"])


def text_models(repository: Path, model: str) -> Iterator[TextModel]:
    """Those that lead to `model`."""
    for path in sorted(repository.glob(f"*_text/{TEXT_FILE}")):
        found = TextModel.read(path.parent)
        if found.model == model:
            yield found


def add_text_models(repository: Path, model: str, version: Path, spec: TowerSpec, serving: Serving) -> None:
    """One for each role of the tower, unless they are there already."""
    for role in spec.roles:
        found = TextModel(model=model, role=role)
        folder = repository / found.text / "1"
        if not folder.exists():
            with folder_aside(folder, marker=CODE_FILE) as fresh:
                shutil.copyfile(_CODE, fresh / CODE_FILE)
                Tokens.read(version, spec).write(fresh)
                spec.write(fresh)
            facts = {"model": found.model, "role": found.role}
            write_aside(repository / found.text / TEXT_FILE, json.dumps(facts) + "\n")


def text_config(found: TextModel, spec: TowerSpec, serving: Serving, version: int) -> Any:
    """Texts to the vectors of that very version of the model."""
    config = triton.ModelConfig(
        name=found.text, backend="python", default_model_filename=CODE_FILE, max_batch_size=serving.max_batch
    )
    config.input.add(name=TEXT_INPUT, data_type=triton.TYPE_STRING, dims=[1])
    for name, kind, dims in [*outputs_of(spec, serving), (TOKENS_OUTPUT, triton.TYPE_INT32, [1])]:
        config.output.add(name=name, data_type=kind, dims=dims)
    config.version_policy.specific.versions.append(1)
    config.dynamic_batching.max_queue_delay_microseconds = 0
    config.instance_group.add(count=1, kind=triton.ModelInstanceGroup.KIND_CPU)
    facts = {ROLE_PARAMETER: found.role, MODEL_PARAMETER: found.model, VERSION_PARAMETER: str(version)}
    for key, value in facts.items():
        config.parameters[key].string_value = value
    return config


def pin_text_models(repository: Path, model: str, spec: TowerSpec, serving: Serving, version: int) -> None:
    """Let them lead to that version from a server's next start on."""
    for found in text_models(repository, model):
        write_aside(repository / found.text / CONFIG_FILE, as_text(text_config(found, spec, serving, version)))
