"""`bartizan deploy`: new versions of a model repository into use on running servers, judged there first."""

import os
from pathlib import Path
from typing import Annotated

import typer

from bartizan_connector.base.console import err, out
from bartizan_connector.base.errors import WrongUse, require_installed

TOKEN = "BARTIZAN_TRITON_TOKEN"
"""The environment variable that holds the token of what guards the servers."""


def deploy(
    repository: Annotated[Path, typer.Argument(metavar="REPO", help="The model repository, which the servers see.")],
    server: Annotated[
        list[str], typer.Option("--server", metavar="URL", help="grpc://host:port or grpcs://host:port; several times.")
    ],
    model: Annotated[str | None, typer.Option(help="One model; by default each whose newest version waits.")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="One version of it, older or newer.")] = None,
    ca: Annotated[Path | None, typer.Option(help="TLS: certificates to trust instead of the system's.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
) -> None:
    """Load a version beside the one in use, judge it through the server, then let it take over; else take it back."""
    require_installed(("tritonclient",), "triton")
    require_installed(("onnxruntime",), "local")
    from bartizan_connector.encode.triton.calls import Access
    from bartizan_triton.deploy import deploy as put_into_use
    from bartizan_triton.repository.shelf import models_in

    if version and not model:
        raise WrongUse("--version needs --model: which model's version is meant?")
    models = [each for each in models_in(repository) if model in (None, each.name)]
    if not models:
        raise WrongUse(f"{repository} holds no model {model or 'at all'}; see bartizan repo list {repository}")
    servers = [Access(url=url, token=os.environ.get(TOKEN) or None, ca=ca) for url in server]
    for each in models:
        number = version or max(each.versions)
        if number not in each.versions:
            have = ", ".join(map(str, each.versions))
            raise WrongUse(f"model '{each.name}' has no version {number}; there are {have}")
        passed = put_into_use(
            repository,
            each,
            each.versions[number],
            servers,
            say=lambda line: err.print(line, markup=False),
            dry_run=dry_run,
        )
        if passed is None:
            out.print(f"{each.name} {number}: nothing was changed (--dry-run)", markup=False)
        else:
            places = f"{len(servers)} server{'s' * (len(servers) > 1)}"
            out.print(
                f"{each.name} {number}: in use on {places}; {passed.texts} texts in {passed.batches} batches, "
                f"smallest cosine {passed.cosine:.6f}, with other neighbours {passed.drift:.1e}",
                markup=False,
            )
