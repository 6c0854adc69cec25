"""The document of the API: its examples are values that the API gives."""

from __future__ import annotations

from typing import get_origin

import pytest
from pydantic import BaseModel, TypeAdapter

from agents.web import schemas
from agents.web.schemas import ModelItem

SHAPES = [
    one
    for one in vars(schemas).values()
    if isinstance(one, type) and issubclass(one, BaseModel) and one is not BaseModel
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_every_example_is_of_its_type(shape: type[BaseModel]) -> None:
    for name, field in shape.model_fields.items():
        for example in field.examples or ():
            assert field.annotation is not None
            TypeAdapter[object](field.annotation).validate_python(example, strict=get_origin(field.annotation) is None)
            if name in ("model_id", "incident_id"):
                assert len(example) == 16


def test_a_model_was_created_at_unix_seconds() -> None:
    assert ModelItem.model_fields["created"].annotation is float
