"""The base of every config: frozen, no unknown keys, so that a config can be hashed and a typo is an error."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen pydantic object that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
