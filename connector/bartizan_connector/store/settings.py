"""`[backend]`: where collections are kept, and how the back-end behind that address is opened."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, PlainSerializer, PlainValidator, SecretStr, field_validator, model_validator

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.base.tables import Table
from bartizan_connector.store.collection import Name
from bartizan_connector.store.kinds import GOAL, KINDS
from bartizan_connector.store.profiles import Profile, profile_of

if TYPE_CHECKING:
    from bartizan_connector.store.backend import Backend

MEMORY = "memory:"
LITE = "milvus-lite:"
_ADDRESSES = (
    "give the path of a file (index.bartizan), http://host:19530 for a Milvus server, milvus-lite:PATH or *.db for "
    "Milvus Lite, or memory:"
)

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _profile(value: object) -> Profile:
    try:
        return profile_of(value)
    except WrongUse as error:
        raise ValueError(str(error)) from error


def _written(profile: Profile) -> str | dict[str, object]:
    """As it stands in a file."""
    search = {"search": dict(profile.search)} if profile.search else {}
    return profile.kind if profile.is_bare else {"kind": profile.kind, **profile.build, **search}


IndexProfile = Annotated[Profile, PlainValidator(_profile), PlainSerializer(_written)]


def _lexical(value: object) -> Path | Literal[True] | None:
    if value is None or value is False:
        return None
    if value is True or (isinstance(value, str) and value.lower() == "true"):
        return True
    if isinstance(value, str | Path):
        return Path(value)
    raise ValueError(f"must be a folder, or true for the embedded store's own words, but {value!r:.80} came")


class BackendSettings(Table):
    """The table; its `uri` decides which back-end it is."""

    uri: Annotated[str, Field(min_length=1)] = "index.bartizan"
    """A file of the embedded store (any path that does not end in `.db`), a Milvus Lite folder (`index.db` or
    `milvus-lite:PATH`), a Milvus server (`http://host:19530`), or `memory:` for nothing that stays."""
    token: SecretStr | None = None
    token_file: Path | None = None
    timeout: Seconds = 30.0
    """Deadline of one call, in seconds."""
    consistency: Literal["Strong", "Session", "Bounded", "Eventually"] = "Bounded"
    index: IndexProfile = Profile()
    """The index of every dense leg: a kind, or a table of one and its parameters."""
    indexes: dict[Name, IndexProfile] = Field(default_factory=dict)
    """The same for legs by their names."""
    build_timeout: Seconds = 1800.0
    """Seconds without any more rows covered, after which another index is built instead."""
    least_recall: Annotated[float, Field(ge=0, le=1)] = GOAL
    """What an index must find of the nearest rows."""
    lexical: Annotated[Path | Literal[True] | None, PlainValidator(_lexical)] = None
    """`true`: the words that the embedded store keeps in its own file; or the folder of a word index; without it there
    is no lexical leg."""

    @field_validator("uri")
    @classmethod
    def _is_an_address(cls, uri: str) -> str:
        if not uri.strip() or uri == LITE:
            raise ValueError(f"is empty; {_ADDRESSES}")
        if "://" not in uri and uri != MEMORY and not uri.startswith(LITE):
            kind = re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", uri)
            if kind:
                raise ValueError(f"begins with {kind[0]!r}, which is no kind of address here; {_ADDRESSES}")
            if uri.endswith(("/", os.sep)):
                raise ValueError(f"must be the path of a file, not of a folder; {_ADDRESSES}")
        return uri

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if self.token and self.token_file:
            raise ValueError("give token or token_file, not both")
        return self

    @model_validator(mode="after")
    def _own_words(self) -> Self:
        if self.lexical is True and not self.is_embedded:
            raise ValueError("lexical = true is for the embedded store; give a folder for the word index")
        if self.uri == MEMORY and self.lexical is not None:
            raise ValueError(
                f"lexical: of '{MEMORY}' nothing stays, and words in a folder would; leave lexical out, or give a uri"
            )
        return self

    @model_validator(mode="after")
    def _possible_indexes(self) -> Self:
        for key, profile in (("index", self.index), *((f"indexes.{leg}", each) for leg, each in self.indexes.items())):
            kind = KINDS.get(profile.kind)
            if key == "index" and kind is not None and kind.leg == "sparse":
                raise ValueError(
                    f"index: {profile.kind} is for sparse legs; name the leg: [backend.indexes] NAME = ..., "
                    "while index is for all dense ones"
                )
            if self.is_embedded and (profile.kind not in ("auto", "flat", "hnsw") or not profile.is_bare):
                raise ValueError(
                    f"{key}: the embedded store builds its own indexes: auto, hnsw (early) or flat (none), without "
                    f"parameters; {profile} is for a Milvus server"
                )
            if self.is_file and not self.is_embedded and kind is not None and not kind.in_lite:
                able = ", ".join(name for name, each in KINDS.items() if each.in_lite)
                raise ValueError(f"{key}: Milvus Lite builds no {profile.kind} index; it has {able}")
        return self

    @property
    def words_folder(self) -> Path | None:
        """The folder of the word index, where there is one."""
        return None if self.lexical is True else self.lexical

    @property
    def is_file(self) -> bool:
        """Whether the address is a path on this machine."""
        return "://" not in self.uri and self.uri != MEMORY

    @property
    def is_embedded(self) -> bool:
        """Whether the address is a file of the embedded store."""
        return self.is_file and not self.uri.startswith(LITE) and not self.uri.endswith(".db")

    def beside(self, folder: Path) -> Self:
        """The same with relative paths taken from `folder`."""
        return self.model_copy(
            update={
                "uri": self._lite * LITE + str(folder / self._path) if self.is_file else self.uri,
                "token_file": self.token_file and folder / self.token_file,
                "lexical": folder / self.words_folder if self.words_folder else self.lexical,
            }
        )

    def secret(self) -> str | None:
        """The server's token, read where it is needed and never kept elsewhere."""
        if self.token_file:
            try:
                return self.token_file.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise WrongUse(f"cannot read [backend] token_file {self.token_file}: {error.strerror}") from error
        return self.token.get_secret_value() if self.token else None

    @property
    def path(self) -> Path:
        """The file or folder that the address names, where it is one."""
        return Path(self._path)

    @property
    def _lite(self) -> bool:
        return self.uri.startswith(LITE)

    @property
    def _path(self) -> str:
        return self.uri.removeprefix(LITE)

    def open(self) -> "Backend":
        """The back-end; nothing is created yet."""
        if self.uri == MEMORY:
            from bartizan_connector.store.memory import MemoryBackend

            return MemoryBackend()
        if self.is_embedded:
            from bartizan_connector.store.embedded import EmbeddedBackend

            return EmbeddedBackend(
                self.uri, index=self.index.kind, indexes={leg: each.kind for leg, each in self.indexes.items()}
            )
        from bartizan_connector.store.milvus import MilvusBackend

        return MilvusBackend(
            self._path,
            token=self.secret(),
            timeout=self.timeout,
            consistency=self.consistency,
            index=self.index,
            indexes=self.indexes,
            build_timeout=self.build_timeout,
            least_recall=self.least_recall,
        )
