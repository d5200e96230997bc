"""Canonical facts: what a value's identity is computed from, so that a field added later changes no older identity.

A model names the fields that it was first written with in its class variable `founding`. They are always facts. A field
that was added later is a fact only where it differs from its default, which means "as before": what was made earlier
keeps its identity, and a file written earlier still says all that there is to say. A model without `founding` has
founding fields only. Models inside a model follow their own class.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel


def digest_of(facts: Mapping[str, Any], *, domain: str) -> str:
    """SHA-256 of a JSON value in its one canonical spelling, kept apart from other uses by `domain`."""
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(f"{domain}\n{canonical}".encode()).hexdigest()


def canonical_facts(model: BaseModel) -> dict[str, Any]:
    """The model as a JSON value, without the later fields that stand at their default."""
    facts: dict[str, Any] = _told(model, model.model_dump(mode="json"))
    return facts


def _told(value: Any, dumped: Any) -> Any:
    """`dumped`, which is the JSON of `value`, without later fields at their default at any depth."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        founding = getattr(type(value), "founding", fields.keys())
        return {
            name: _told(own, dumped[name])
            for name, own in value
            if name in founding or own != fields[name].get_default(call_default_factory=True)
        }
    if isinstance(value, Mapping):
        return {key: _told(own, dumped[key]) for key, own in zip(dumped, value.values(), strict=True)}
    if isinstance(value, list | tuple):
        return [_told(own, each) for own, each in zip(value, dumped, strict=True)]
    return dumped
