"""What stands at a back-end: its collections, and what is to be said of the configured one."""

from contextlib import closing
from pathlib import Path
from typing import Any

from bartizan_connector.base.address import without_password
from bartizan_connector.config import Config
from bartizan_connector.documents.documents import Documents


def listed(config: Config) -> list[dict[str, Any]]:
    """Every collection: its physical name, its names, its contract. No tower is read."""
    with closing(config.backend.open()) as backend:
        contracts, aliases = backend.collections(), backend.aliases()
    return [
        {
            "physical_name": physical,
            "names": sorted(name for name, target in aliases.items() if target == physical),
            **contract.model_dump(mode="json", include={"legs", "fields"}),
        }
        for physical, contract in sorted(contracts.items())
    ]


def shown(config: Config) -> dict[str, Any]:
    """The configured collection."""
    with Documents(config) as documents:
        number, store = documents.count(), documents.store
        contract = store.collection.model_dump(mode="json")
        facts = {
            "name": config.collection.name,
            "physical_name": store.physical_name,
            "place": without_password(config.backend.uri),
            "documents": number,
            "bytes": _size(config.backend.path) if config.backend.is_file else None,
            "legs": contract["legs"],
            "fields": contract["fields"],
            "remarks": list(store.remarks),
        }
    return facts


def _size(path: Path) -> int:
    """Of the file and what lies beside it, or of the folder."""
    if path.is_dir():
        return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    beside = [path, path.with_name(path.name + "-wal")]
    indexes = path.with_name(path.name + "-indexes")
    beside += indexes.iterdir() if indexes.is_dir() else ()
    return sum(each.stat().st_size for each in beside if each.is_file())
