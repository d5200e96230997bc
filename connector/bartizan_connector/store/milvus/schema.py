"""Collection → Milvus: fields, and the contract that is kept with the collection and read back."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pymilvus import CollectionSchema, DataType, MilvusClient

from bartizan_connector.base.errors import Stop
from bartizan_connector.space.vectors import SparseVector
from bartizan_connector.store.checks import MAX_CHUNKS
from bartizan_connector.store.collection import (
    MAX_ID_BYTES,
    MAX_STRING_BYTES,
    Collection,
    FieldType,
    Leg,
    Row,
)

CONTRACT_PROPERTY = "bartizan.collection"
"""A property: Milvus Lite drops descriptions, both keep properties."""
_TYPES: Mapping[FieldType, DataType] = {
    "string": DataType.VARCHAR,
    "int": DataType.INT64,
    "float": DataType.DOUBLE,
    "bool": DataType.BOOL,
}


def schema_of(collection: Collection) -> CollectionSchema:
    """All fields declared: a dynamic one would be merged by Milvus Lite and replaced by a server."""
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("pk", DataType.VARCHAR, is_primary=True, max_length=MAX_ID_BYTES + 1 + len(str(MAX_CHUNKS)))
    schema.add_field("id", DataType.VARCHAR, max_length=MAX_ID_BYTES)
    schema.add_field("chunk", DataType.INT64)
    for spec in collection.fields:
        length = {"max_length": MAX_STRING_BYTES} if spec.type == "string" else {}
        schema.add_field(spec.name, _TYPES[spec.type], **length)
    for leg in collection.legs:
        if leg.kind == "sparse":
            schema.add_field(leg.name, DataType.SPARSE_FLOAT_VECTOR)
        else:
            schema.add_field(leg.name, DataType.FLOAT_VECTOR, dim=leg.dim)
    return schema


def properties_of(collection: Collection) -> dict[str, str]:
    """The contract as it is stored with the collection."""
    return {CONTRACT_PROPERTY: collection.model_dump_json()}


def stored_contract(description: Mapping[str, Any], place: str) -> Collection:
    """The contract out of a described collection; one without is none of ours."""
    name = description["collection_name"]
    text = description.get("properties", {}).get(CONTRACT_PROPERTY)
    if text is None:
        raise Stop(
            f"collection '{name}' at {place} was not made by Bartizan: it carries no space contract, so nothing says "
            "which tower its vectors came from; choose another [collection] name"
        )
    try:
        return Collection.model_validate_json(text)
    except ValidationError as error:
        raise Stop(f"the space contract of collection '{name}' at {place} cannot be read: {error}") from error


def primary_key(id: str, chunk: int) -> str:
    """One to one with (id, chunk): the chunk is what follows the last '#'."""
    return f"{id}#{chunk}"


def entity_of(row: Row, collection: Collection) -> dict[str, Any]:
    """The row with every field named."""
    entity: dict[str, Any] = {"pk": primary_key(row.id, row.chunk), "id": row.id, "chunk": row.chunk, **row.fields}
    for leg in collection.legs:
        value = row.vectors[leg.name].value
        entity[leg.name] = _sparse_entity(value, leg) if isinstance(value, SparseVector) else value
    return entity


def _sparse_entity(value: SparseVector, leg: Leg) -> dict[int, float]:
    """Milvus takes no empty sparse vector: it gets a weight on a term that is beyond the vocabulary of any query."""
    if not value.indices.size:
        return {leg.dim: 1.0}
    return dict(zip(value.indices.tolist(), value.weights.tolist(), strict=True))
