"""The `export:` block. Imports pydantic and the standard library only."""

from typing import Annotated

from pydantic import Field, PositiveInt

from edgeft.config import Config


class ExportConfig(Config):
    """How the checkpoint becomes a deployment graph."""

    opset: Annotated[int, Field(ge=18, le=23)] = 20
    """ONNX opset of the graph."""
    check_images: PositiveInt = 8
    """How many train and validation images the graph is compared on with torch."""
