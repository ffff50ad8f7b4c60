"""The base of every config: frozen, no unknown keys, so that a config can be hashed and a typo is an error."""

from pydantic import BaseModel, ConfigDict, ValidationError


class Config(BaseModel):
    """A frozen pydantic object that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


def refusals(error: ValidationError) -> str:
    """Return what pydantic refused, each with its key, in one line."""
    found = [(".".join(map(str, item["loc"])), item["msg"]) for item in error.errors()]
    return "; ".join(f"{key}: {what}" if key else what for key, what in found)
