"""An export becomes a new version of a model: written aside, checked, renamed in; a version is never edited.

1 the identity goes into the graph   2 the version's files are written aside   3 the graph that will be served is run
beside the export's own   4 the folder is renamed in   5 a model without a configuration gets one that pins it. A later
version is pinned by `bartizan deploy`, once it has been judged on the server, or by `bartizan repo pin`.
"""

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx

from bartizan_connector.base.alone import alone_in
from bartizan_connector.base.aside import folder_aside
from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.encode.batches import padded
from bartizan_connector.encode.export import INPUTS, MODEL_FILE, MODEL_HASH, OUTPUT, PARITY_FILE, Export
from bartizan_connector.encode.golden import GOLDEN_FILE
from bartizan_connector.encode.onnx import open_session
from bartizan_connector.encode.triton.contract import TOWER_OUTPUT, model_name, require_replacement, tower_mark
from bartizan_connector.space.tokens import Tokens
from bartizan_triton.golden import golden_texts
from bartizan_triton.repository.config import CODE_FILE, terms_of
from bartizan_triton.repository.engine import BUILD_FILE, build_script
from bartizan_triton.repository.pin import write_pin
from bartizan_triton.repository.serving import Serving
from bartizan_triton.repository.shelf import Version, model_in
from bartizan_triton.repository.stamp import for_serving
from bartizan_triton.repository.text import add_text_models

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_LONGEST_CHECKED = 64
"""Tokens; that an output was added does not depend on length."""
_CODE = Path(__file__).with_name("served_by_python.py")


def require_name(name: str) -> None:
    """Refuse a name that no model of a server can have."""
    if not _NAME.fullmatch(name):
        raise WrongUse(f"model name {name!r}: expected letters, digits, _, - and ., beginning with a letter or digit")


def add_version(
    repository: Path, export: Export, serving: Serving, *, name: str | None = None, text: bool = False
) -> Version:
    """The export as a new version of model `name` (by default the tower's own name); with `text`, there are models that
    take texts too. Several may export into one repository at once: one waits for the other."""
    name = name or model_name(export.spec)
    require_name(name)
    repository.mkdir(parents=True, exist_ok=True)
    with alone_in(repository):
        return _add(repository, export, serving, name, text=text)


def _add(repository: Path, export: Export, serving: Serving, name: str, *, text: bool) -> Version:
    """The next number, which nobody else takes meanwhile."""
    spec = export.spec
    model = model_in(repository, name)
    if model.newest:
        require_replacement(f"tower '{spec.name}' ({spec.tower_id})", before=model.newest.spec, after=spec)
        if model.newest.serving.backend != serving.backend:
            raise WrongUse(
                f"model '{name}' is run by backend '{model.newest.serving.backend}', and one server runs its versions "
                f"under one configuration: export with that backend, or under another --name for '{serving.backend}'"
            )
    number = max(model.versions, default=0) + 1
    folder = model.folder / str(number)
    with folder_aside(folder, marker=MODEL_FILE) as fresh:
        _fill(fresh, export, serving)
        _check(fresh, export)
    added = Version(number=number, folder=folder, spec=spec, serving=serving)
    if text:
        add_text_models(repository, name, folder, spec, serving)
    if model.pinned is None or text:
        write_pin(repository, name, model.pinned or number)
    return added


def _fill(fresh: Path, export: Export, serving: Serving) -> None:
    """A version is an export itself, whose graph says whose it is, with what its backend needs beside it."""
    spec = export.spec
    onnx.save(for_serving(onnx.load_from_string(export.model()), spec, terms_of(spec, serving)), fresh / MODEL_FILE)
    facts = dict(export.parity) | {MODEL_HASH: hashlib.sha256((fresh / MODEL_FILE).read_bytes()).hexdigest()}
    (fresh / PARITY_FILE).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    if (export.folder / GOLDEN_FILE).exists():
        shutil.copyfile(export.folder / GOLDEN_FILE, fresh / GOLDEN_FILE)
    Tokens.read(export.folder, export.spec).write(fresh)
    export.spec.write(fresh)
    serving.write(fresh)
    if serving.backend == "python":
        shutil.copyfile(_CODE, fresh / CODE_FILE)
    if serving.backend == "tensorrt":
        script = fresh / BUILD_FILE
        script.write_text(build_script(export.spec, serving), encoding="utf-8")
        script.chmod(0o755)


def _check(fresh: Path, export: Export) -> None:
    """The graph that will be served gives the export's own vectors to the bit, and names the tower in each row."""
    tokens, spec = Tokens.read(fresh, export.spec), export.spec
    served, original = open_session(Export.read(fresh)), open_session(export)
    for role, how in spec.roles.items():
        texts = golden_texts(min(how.max_tokens, _LONGEST_CHECKED))
        feed = dict(zip(INPUTS, padded(tokens.encode(texts, role), most=how.max_tokens), strict=True))
        vectors, marks = served.run([OUTPUT, TOWER_OUTPUT], feed)
        (expected,) = original.run([OUTPUT], feed)
        if not np.array_equal(vectors, expected):
            raise Stop(
                f"the graph to be served for tower '{spec.name}' does not give its export's vectors; report this"
            )
        if not np.array_equal(marks, np.tile(tower_mark(spec.tower_id), (len(texts), 1))):
            raise Stop(f"the graph to be served for tower '{spec.name}' does not name its tower; report this")
