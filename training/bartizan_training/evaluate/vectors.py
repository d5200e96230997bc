"""Document vectors kept between evaluations: to judge another query tower, the documents need not be encoded again.

A file knows the documents it is about, and the tower and engine that encoded them. Vectors of another tower or engine
take the place of what was kept of the same documents; those of other documents are never overwritten.
"""

import zipfile
from pathlib import Path

import numpy as np

from bartizan_connector.base.aside import file_aside
from bartizan_connector.base.console import err
from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.space.canonical import digest_of
from bartizan_connector.space.vectors import Vectors
from bartizan_training.data.collections import BeirData
from bartizan_training.evaluate.judging import Documents, encode_documents

_DOMAIN = "bartizan.kept-vectors/1"


def documents(data: BeirData, encoder: Encoder, engine: str, path: Path | None) -> Documents:
    """The documents' vectors: out of the file when it holds exactly these, else encoded, and then kept in it."""
    if path is None:
        return encode_documents(data, encoder)
    facts = {"documents": data.corpus, "tower_id": encoder.spec.tower_id, "engine": engine}
    key, about = digest_of(facts, domain=_DOMAIN), digest_of({"documents": data.corpus}, domain=_DOMAIN)
    found = _read(path, key, about, encoder)
    if found is not None:
        return Documents(tuple(sorted(data.corpus)), found, encoder.spec.dim)
    made = encode_documents(data, encoder)
    try:
        _write(path, key, about, made.vectors)
    except WrongUse:
        raise
    except Stop as error:  # the judgement is worth more than the time that they would have saved
        err.print(f"the documents' vectors were not kept: {error}", markup=False, style="yellow")
    return made


def _read(path: Path, key: str, about: str, encoder: Encoder) -> Vectors | None:
    """The vectors in the file; None when there is no file, or one of another tower or engine; one of other documents
    is refused."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            if str(file["key"]) != key:
                _require_same_documents(path, str(file["about"]) if "about" in file else None, about)
                return None
            return Vectors(
                space_id=encoder.spec.space_id,
                tower_id=encoder.spec.tower_id,
                values=file["values"],
                tokens=tuple(file["tokens"].tolist()),
                truncated=tuple(file["truncated"].tolist()),
            )
    except (OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise WrongUse(f"{path} holds no vectors that an evaluation kept; delete it, or give another file") from error


def _require_same_documents(path: Path, kept: str | None, about: str) -> None:
    """A file that an older version wrote does not say which documents it is about: it is left alone too."""
    if kept != about:
        raise WrongUse(
            f"{path} keeps the vectors of other documents than these, and stays as it is; give --keep another file"
        )


def _write(path: Path, key: str, about: str, vectors: Vectors) -> None:
    """Whole or not at all."""
    if not isinstance(vectors.values, np.ndarray):
        raise WrongUse("sparse vectors are not kept between evaluations; leave --keep out")
    with file_aside(path) as aside, aside.open("wb") as file:
        np.savez(file, key=key, about=about, values=vectors.values, tokens=vectors.tokens, truncated=vectors.truncated)
