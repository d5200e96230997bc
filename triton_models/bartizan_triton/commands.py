"""`bartizan export`: a tower in the form it is served in."""

import json
from pathlib import Path
from typing import Annotated, cast

import typer

from bartizan_connector.base.console import err, out
from bartizan_connector.base.errors import WrongUse, require_installed
from bartizan_connector.space.spec import Precision
from bartizan_encoders import NEEDED


def export(
    tower: Annotated[Path, typer.Argument(metavar="TOWER", help="The folder of a tower.")],
    out_folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to write.")],
    precision: Annotated[
        str, typer.Option(help="fp32 (the same vectors) or int8 (faster, less than half the size).")
    ] = "fp32",
    format: Annotated[str, typer.Option(help="onnx.")] = "onnx",
) -> None:
    """Export a tower to ONNX, pooling, head and normalisation inside; refused unless it agrees with torch."""
    if format != "onnx":
        raise WrongUse(f"--format {format!r} is not offered; expected onnx")
    if precision not in ("fp32", "int8"):
        raise WrongUse(f"--precision {precision!r} is not one of fp32, int8")
    require_installed((*NEEDED, "onnx", "onnxruntime"), "train")
    from bartizan_connector.encode.export import PARITY_FILE
    from bartizan_triton.export import export_tower

    err.print(f"exporting {tower} in {precision} …", markup=False)
    spec = export_tower(tower, out_folder, cast(Precision, precision))
    compared = json.loads((out_folder / PARITY_FILE).read_bytes())["compared"]
    size = sum(path.stat().st_size for path in out_folder.iterdir())
    for label, value in {
        "tower_id": spec.tower_id,
        "space_id": spec.space_id,
        "parity": f"{compared['texts']} texts in {compared['batches']} batches: "
        f"smallest cosine {compared['cosine']:.6f}, largest difference {compared['difference']:.1e}, "
        f"with other neighbours {compared['drift']:.1e}",
        "on disk": f"{size / 1e6:,.1f} MB in {out_folder}",
    }.items():
        out.print(f"{label:<11} {value}", markup=False)
