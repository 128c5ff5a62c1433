"""Helpers to write the shapes of bodies, as JSON Schema."""

from typing import Any

Shape = dict[str, Any]


def shape(required: Shape, optional: Shape | None = None, description: str = "") -> Shape:
    """Returns the shape of an object, which may have further members."""
    found: Shape = {"type": "object", "properties": required | (optional or {})}
    if required:
        found["required"] = list(required)
    return found | ({"description": description} if description else {})


def listed(items: Shape) -> Shape:
    return {"type": "array", "items": items}


def ref(name: str) -> Shape:
    return {"$ref": f"#/components/schemas/{name}"}


def nullable(kind: Shape) -> Shape:
    return {"anyOf": [kind, {"type": "null"}]}


def text(description: str = "", **more: Any) -> Shape:
    return {"type": "string", **more} | ({"description": description} if description else {})


TEXT = text()
COUNT = {"type": "integer", "minimum": 0}
YES_NO = {"type": "boolean"}
MOMENT = text(format="date-time")
ANY_OBJECT = {"type": "object"}
PAGE = {"count": COUNT, "has_more": YES_NO}
CURSOR = nullable(text("Where the next page begins: give it as `cursor`."))
PROBLEM = shape({"code": ref("Code"), "message": TEXT}, {"details": {}})
