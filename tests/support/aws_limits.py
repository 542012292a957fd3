"""AWS's limits of lengths, ranges, patterns and enums, as botocore's models tell them; its clients leave them to the service."""

import re
from collections.abc import Iterator
from typing import Any


def find_violations(shape: Any, value: Any, path: str) -> Iterator[str]:
    """Yield a message for each limit of a botocore Shape that a value of a request exceeds."""
    if value is None:
        return
    for constraint in _failed(shape, value):
        yield f"Value {value!r:.200} at '{path}' failed to satisfy constraint: Member must {constraint}"
    for name, member, item in _members(shape, value):
        yield from find_violations(member, item, f"{path}.{name}")


def _members(shape: Any, value: Any) -> Iterator[tuple[str, Any, Any]]:
    if shape.type_name == "structure":
        yield from ((name, member, value.get(name)) for name, member in shape.members.items())
    elif shape.type_name == "list":
        yield from ((str(number), shape.member, item) for number, item in enumerate(value, 1))
    elif shape.type_name == "map":
        yield from ((f"{key}.key", shape.key, key) for key in value)
        yield from ((key, shape.value, item) for key, item in value.items())


def _failed(shape: Any, value: Any) -> Iterator[str]:
    limits = shape.metadata
    for name in shape.required_members if shape.type_name == "structure" else ():
        if value.get(name) is None:
            yield f"have the member {name}"
    is_number = shape.type_name in ("integer", "long", "float", "double")
    if is_number or shape.type_name in ("string", "list", "map"):
        size, what = (value, "value") if is_number else (len(value), "length")
        if size < limits.get("min", size):
            yield f"have {what} greater than or equal to {limits['min']}"
        if size > limits.get("max", size):
            yield f"have {what} less than or equal to {limits['max']}"
    if shape.type_name != "string":
        return
    if getattr(shape, "enum", None) and value not in shape.enum:
        yield f"satisfy enum value set: [{', '.join(shape.enum)}]"
    # Java writes what lies above U+FFFF as a pair of surrogates.
    pattern = limits.get("pattern", "").replace(r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF")
    if pattern and not re.fullmatch(pattern, value, re.DOTALL):
        yield f"satisfy regular expression pattern: {pattern}"
