"""The `export:` block. Imports pydantic and the standard library only."""

from typing import Annotated

from pydantic import Field, PositiveInt

from edgeft.config import Config


class ExportConfig(Config):
    """How the checkpoint becomes a deployment graph."""

    opset: Annotated[int, Field(ge=18, le=23)] = 20
    """ONNX opset of the graph. 18 is the lowest that torch's exporter writes. onnxruntime 1.31 fuses Lite0, float
    and int8, alike at 18 to 23; 20 needs IR version 9 only, so older runtimes on devices load it too."""
    check_images: PositiveInt = 8
    """How many train and validation images the graph is compared on with torch."""
