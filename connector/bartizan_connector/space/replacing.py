"""What stands in a folder is not written over by what gives other vectors, unless that is asked for."""

from pathlib import Path

from bartizan_connector.base.errors import Stop, WrongUse
from bartizan_connector.space.spec import SPEC_FILE, TowerSpec


def refuse_another(folder: Path, spec: TowerSpec, *, export: bool = False) -> None:
    """Refuse the folder of another tower, or of another tower's export."""
    if not (folder / SPEC_FILE).exists():
        return
    way_out = "give a new folder, or --replace to write over it"
    try:
        there = TowerSpec.read(folder)
    except Stop as damaged:
        what = "an export" if export else "a tower"
        raise WrongUse(f"{folder} holds {what} that cannot be read ({damaged}); {way_out}") from damaged
    if there.tower_id != spec.tower_id:
        what = "the export of another tower" if export else "another tower"
        raise WrongUse(f"{folder} holds {what}, {_named(there)}, than {_named(spec)}; {way_out}")


def _named(spec: TowerSpec) -> str:
    return f"{spec.tower_id} ('{spec.name}', {spec.precision})"
