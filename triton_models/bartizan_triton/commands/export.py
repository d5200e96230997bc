"""`bartizan export`: towers in the form they are served in."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, cast

import typer

from bartizan_connector.base.console import err, out
from bartizan_connector.base.errors import WrongUse, interruptible, require_installed
from bartizan_connector.space.spec import Precision, TowerSpec
from bartizan_encoders import NEEDED

_FOR_TRITON: Mapping[str, object] = {
    "--name": None,
    "--backend": "onnxruntime",
    "--device": "cpu",
    "--instances": 1,
    "--max-batch": 64,
    "--delay-us": 0,
    "--text": False,
    "--terms": 512,
}
"""Options that mean nothing for ONNX, and what they are when nobody gives them."""


def export(
    towers: Annotated[
        list[Path],
        typer.Argument(metavar="TOWER…", help="The folder of a tower; for triton several, exports as they are too."),
    ],
    out_folder: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="onnx: the folder to write; triton: the model repository.")
    ],
    precision: Annotated[
        str, typer.Option(help="fp32 (the same vectors) or int8 (faster, less than half the size).")
    ] = "fp32",
    format: Annotated[str, typer.Option(help="onnx, or triton: a new version in a model repository.")] = "onnx",
    name: Annotated[str | None, typer.Option(help="triton: the model's name; by default the tower's.")] = None,
    backend: Annotated[
        str, typer.Option(help="triton: onnxruntime, tensorrt, or python (ONNX Runtime inside, runs anywhere).")
    ] = "onnxruntime",
    device: Annotated[str, typer.Option(help="triton: cpu or gpu.")] = "cpu",
    instances: Annotated[int, typer.Option(min=1, help="triton: copies of the model on each device.")] = 1,
    max_batch: Annotated[int, typer.Option(min=1, help="triton: most texts in one batch.")] = 64,
    delay_us: Annotated[int, typer.Option(min=0, help="triton: how long to wait for a fuller batch.")] = 0,
    text: Annotated[
        bool, typer.Option("--text", help="triton: models that take texts too, for clients that cannot tokenise.")
    ] = False,
    terms: Annotated[int, typer.Option(min=1, help="triton, sparse towers: most terms of a vector.")] = 512,
    replace: Annotated[
        bool, typer.Option("--replace", help="onnx: write over the export of another tower or precision.")
    ] = False,
) -> None:
    """Export towers to ONNX, pooling, head and normalisation inside; refused unless they agree with torch."""
    if format not in ("onnx", "triton"):
        raise WrongUse(f"--format {format!r} is not offered; expected onnx or triton")
    if precision not in ("fp32", "int8"):
        raise WrongUse(f"--precision {precision!r} is not one of fp32, int8")
    for_triton = (name, backend, device, instances, max_batch, delay_us, text, terms)
    _require_of_the_format(format, replace, dict(zip(_FOR_TRITON, for_triton, strict=True)))
    if format == "onnx":
        if len(towers) != 1:
            raise WrongUse(f"{len(towers)} towers came; --format onnx exports one into a folder of its own")
        _exported(towers[0], out_folder, cast(Precision, precision), replace=replace)
        return
    if out_folder.exists() and not out_folder.is_dir():
        raise WrongUse(f"{out_folder} is a file; give the folder of the model repository")
    require_installed(("tritonclient",), "triton")
    from bartizan_triton.repository.serving import Serving

    serving = Serving(
        backend=backend,  # type: ignore[arg-type]  # it refuses what it does not know
        device=device,  # type: ignore[arg-type]
        instances=instances,
        max_batch=max_batch,
        delay_us=delay_us,
        terms=terms,
    )
    names = [name or _name(tower) for tower in towers]
    _require_names(names)
    for tower, model in zip(towers, names, strict=True):
        _added(tower, out_folder, cast(Precision, precision), model, serving, text=text)


def _require_of_the_format(format: str, replace: bool, for_triton: Mapping[str, object]) -> None:
    """Refuse an option that the other format would not look at, and a name of no letter."""
    if for_triton["--name"] == "":
        raise WrongUse("--name is empty: give the model a name, or leave it out")
    given = ["--replace"] if replace else []
    if format == "onnx":
        given = [option for option, value in for_triton.items() if value != _FOR_TRITON[option]]
    if given:
        other = "onnx" if format == "triton" else "triton"
        raise WrongUse(f"{given[0]} is for --format {other}; leave it out, or give that format")


def _require_names(names: Sequence[str]) -> None:
    from bartizan_triton.repository.write import require_name

    if len(set(names)) != len(names):
        raise WrongUse(f"the towers would be models {', '.join(names)}: give each a --name in an export of its own")
    for name in names:
        require_name(name)


def _exported(tower: Path, folder: Path, precision: Precision, *, replace: bool = False) -> TowerSpec:
    """One tower as a folder for ONNX Runtime; says how close it came."""
    require_installed((*NEEDED, "onnx", "onnxruntime"), "train")
    from bartizan_connector.encode.export import PARITY_FILE
    from bartizan_triton.export import export_tower

    err.print(f"exporting {tower} in {precision} …", markup=False)
    with interruptible("nothing was written; run it again"):
        spec = export_tower(tower, folder, precision, replace=replace)
    compared = json.loads((folder / PARITY_FILE).read_bytes())["compared"]
    size = sum(path.stat().st_size for path in folder.iterdir())
    _tell(
        ("tower_id", spec.tower_id),
        ("space_id", spec.space_id),
        (
            "parity",
            f"{compared['texts']} texts in {compared['batches']} batches: "
            f"smallest cosine {compared['cosine']:.6f}, largest difference {compared['difference']:.1e}, "
            f"with other neighbours {compared['drift']:.1e}",
        ),
        ("on disk", f"{size / 1e6:,.1f} MB in {folder}"),
    )
    return spec


def _added(tower: Path, repository: Path, precision: Precision, name: str, serving: object, *, text: bool) -> None:
    """One tower, or an export of it, as a new version of a model."""
    require_installed(("onnx", "onnxruntime"), "train")
    from bartizan_connector.encode.export import MODEL_FILE, Export
    from bartizan_triton.repository.serving import Serving
    from bartizan_triton.repository.shelf import model_in
    from bartizan_triton.repository.write import add_version

    assert isinstance(serving, Serving)
    with tempfile.TemporaryDirectory(prefix="bartizan-export-") as aside:
        folder = tower
        if not (tower / MODEL_FILE).exists():
            folder = Path(aside) / "export"
            _exported(tower, folder, precision)
        version = add_version(repository, Export.read(folder), serving, name=name, text=text)
    pinned = model_in(repository, name).pinned
    what = "pinned" if pinned == version.number else f"pinned is {pinned}; bartizan deploy puts the new one into use"
    _tell(("model", f"{name} {version.number} ({what})"), ("in", str(version.folder)))


def _name(tower: Path) -> str:
    from bartizan_connector.encode.triton.contract import model_name

    return model_name(TowerSpec.read(tower))


def _tell(*lines: Sequence[str]) -> None:
    for label, value in lines:
        out.print(f"{label:<11} {value}", markup=False)
