"""A text encoder from a model hub: the one thing that opens a socket, and only where the recipe names it."""

from pathlib import Path

from edgeft.core.errors import DeviceError, first_line

_WANTED = ("config.json", "model.safetensors", "tokenizer.json")


def snapshot(name: str) -> Path:
    """Return the folder of the model `name` in huggingface_hub's own cache, downloaded where it is not there yet.

    Raises:
        DeviceError: it could not be downloaded.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(_WANTED)))
    except Exception as error:  # huggingface_hub and its transports raise many types
        raise DeviceError(
            f"model.weights: hub: {name} could not be downloaded: {first_line(error)}",
            hint="copy the model's folder here and name it: model.weights: ./FOLDER",
        ) from error
