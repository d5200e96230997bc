"""`bartizan repo`: what a Triton model repository holds, which version is pinned, and old versions out of the way."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bartizan_connector.base.console import err, out
from bartizan_connector.base.errors import require_installed

if TYPE_CHECKING:
    from bartizan_triton.repository.shelf import Model

repo = typer.Typer(no_args_is_help=True, help="Look after a Triton model repository.")

Repository = Annotated[Path, typer.Argument(metavar="REPO", help="The model repository.")]
_NEEDED = ("tritonclient",)


@repo.command("list")
def show(
    repository: Repository,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Models and their versions; * marks the version that a server loads."""
    require_installed(_NEEDED, "triton")
    from bartizan_triton.repository.shelf import models_in

    models = list(models_in(repository))
    if as_json:
        print(json.dumps([_facts(model) for model in models], indent=2))
        return
    if not models:
        err.print(
            f"{repository} holds no model yet; bartizan export TOWER --format triton --out {repository} makes one",
            markup=False,
            style="yellow",
        )
    for model in models:
        for number, version in model.versions.items():
            mark = "*" if number == model.pinned else " "
            spec, serving = version.spec, version.serving
            out.print(
                f"{mark} {model.name}  {number}  {spec.tower_id}  space {spec.space_id}  {spec.kind}, "
                f"{spec.precision}, {serving.backend} on {serving.device}",
                markup=False,
                soft_wrap=True,
            )


@repo.command("pin")
def pin_version(
    repository: Repository,
    model: Annotated[str, typer.Argument(metavar="MODEL")],
    version: Annotated[int, typer.Argument(metavar="VERSION")],
) -> None:
    """Let servers load this version from their next start on (a running one: bartizan deploy)."""
    require_installed(_NEEDED, "triton")
    from bartizan_triton.repository.pin import pin

    pin(repository, model, version)
    out.print(f"model '{model}' is pinned to version {version}", markup=False)


@repo.command("prune")
def remove_old(
    repository: Repository,
    keep: Annotated[int, typer.Option(min=0, help="Versions before the pinned one that stay, for a roll-back.")] = 1,
) -> None:
    """Remove versions older than the pinned one."""
    require_installed(_NEEDED, "triton")
    from bartizan_triton.repository.prune import prune

    gone = prune(repository, keep)
    for name, version in gone:
        out.print(f"removed {name} {version.number} ({version.spec.tower_id})", markup=False, soft_wrap=True)
    if not gone:
        out.print("nothing to remove", markup=False)


def _facts(model: "Model") -> dict[str, object]:
    return {
        "model": model.name,
        "pinned": model.pinned,
        "versions": [
            {
                "version": number,
                "tower": version.spec.name,
                "tower_id": version.spec.tower_id,
                "space_id": version.spec.space_id,
                "kind": version.spec.kind,
                "precision": version.spec.precision,
                "backend": version.serving.backend,
                "device": version.serving.device,
            }
            for number, version in model.versions.items()
        ],
    }
