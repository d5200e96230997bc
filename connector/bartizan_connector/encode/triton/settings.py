"""`[encoders.NAME] engine = "triton"`: where the server is, which model, and how one is let in."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from bartizan_connector.base.errors import WrongUse
from bartizan_connector.encode.encoder import Encoder
from bartizan_connector.encode.settings import EncoderSettings, OnnxSettings


class TritonSettings(EncoderSettings):
    """A Triton server, by gRPC. The tower's folder is still named: its tokenizer runs here, its space is checked."""

    engine: Literal["triton"] = "triton"
    url: str
    """`grpc://host:port`, or `grpcs://host:port` for TLS."""
    model: str | None = None
    """The model's name in the server's repository; by default the tower's name."""
    version: Annotated[int, Field(ge=1)] | None = None
    """Stay with this version; by default the encoder follows the server from version to version."""
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    """Seconds for a call that has no deadline of its own."""
    calls: Annotated[int, Field(ge=1)] = 4
    """Batches that are under way side by side."""
    batch_tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens in one request, padding included."""
    fallback: Path | None = None
    """An export of the same space; it runs in this process when the server does not answer in its share of the time."""
    token: SecretStr | None = None
    """For what guards the server."""
    token_file: Path | None = None
    token_header: str = "authorization"
    """A bearer token there; in any other header, such as Triton's own `triton-grpc-protocol-KEY`, it stands bare."""
    ca: Path | None = None
    """TLS: certificates to trust instead of the system's."""
    certificate: Path | None = None
    key: Path | None = None
    """TLS: the client's own certificate and its key, where the server asks for one."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.token and self.token_file:
            raise ValueError("give token or token_file, not both")
        return self

    def beside(self, folder: Path) -> Self:
        """The same with relative paths taken from `folder`."""
        paths = ("fallback", "token_file", "ca", "certificate", "key")
        return self.model_copy(update={name: folder / path for name in paths if (path := getattr(self, name))})

    def open(self, folder: Path) -> Encoder:
        """The model that serves the tower in `folder`, or one that may replace it. With `fallback` it is a ladder whose
        lower rung is in this process, and which opens without the server."""
        if self.fallback is None:
            return self._open(folder)
        from bartizan_connector.encode.ladder import Ladder, Rung
        from bartizan_connector.space.spec import TowerSpec

        spec, below = TowerSpec.read(folder), self.fallback
        rungs = [
            Rung(self.url, lambda seconds: self._open(folder, seconds)),
            Rung(str(below), lambda _: OnnxSettings().open(below)),
        ]
        rungs[-1].opened(spec.space_id, self.timeout)  # what must be there when the server is not is looked at now
        return Ladder(spec, rungs)

    def _open(self, folder: Path, seconds: float | None = None) -> Encoder:
        from bartizan_connector.encode.triton.calls import Access
        from bartizan_connector.encode.triton.encoder import TritonEncoder
        from bartizan_connector.space.spec import TowerSpec
        from bartizan_connector.space.tokens import Tokens

        spec = TowerSpec.read(folder)
        access = Access(
            url=self.url,
            token=self.secret(),
            token_header=self.token_header,
            ca=self.ca,
            certificate=self.certificate,
            key=self.key,
        )
        return TritonEncoder.open(
            access,
            Tokens.read(folder, spec),
            spec,
            model=self.model,
            version=self.version,
            timeout=self.timeout,
            calls=self.calls,
            batch_tokens=self.batch_tokens,
            opening=seconds,
        )

    def secret(self) -> str | None:
        """The token, read where it is needed and never kept elsewhere."""
        if self.token_file:
            try:
                return self.token_file.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise WrongUse(f"cannot read token_file {self.token_file}: {error.strerror}") from error
        return self.token.get_secret_value() if self.token else None
