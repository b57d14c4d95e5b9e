"""Core: the least JSON value that fits a schema, for engines that only play a model."""

from __future__ import annotations

from typing import Any

_PLAIN: dict[str, Any] = {"string": "silk", "integer": 1, "number": 1.5, "boolean": True, "null": None}


def instance(schema: Any) -> Any:
    """A value that fits the usual keywords: `const`, `enum`, `anyOf`, `type`, `properties`, `required`, `items`."""
    if not isinstance(schema, dict):
        return {}
    for key in ("const", "enum", "anyOf", "oneOf"):
        if key in schema:
            value = schema[key]
            return value if key == "const" else value[0] if key == "enum" else instance(value[0])
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "array":
        return [instance(schema.get("items", {}))] * schema.get("minItems", 1)
    if kind == "object":
        properties: dict[str, Any] = schema.get("properties", {})
        return {name: instance(properties.get(name, {})) for name in schema.get("required", properties)}
    return _PLAIN.get(kind)
