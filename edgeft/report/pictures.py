"""Thumbnails of the verify folder as data: URIs, so that the report stays one file."""

import base64
from dataclasses import dataclass
from pathlib import Path

_MEDIA = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}
_LARGEST_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class Pictures:
    """Reads pictures below `folder`, and nowhere else."""

    folder: Path

    def data_uri(self, relative: str) -> str | None:
        """Return the picture at `relative` as a data: URI.

        None where there is none, it is no PNG or JPEG, is larger than 512 KiB, or the path leaves the folder.
        """
        if not relative or "\x00" in relative:
            return None
        path = (self.folder / relative).resolve()
        if not path.is_relative_to(self.folder.resolve()) or not path.is_file() or path.stat().st_size > _LARGEST_BYTES:
            return None
        data = path.read_bytes()
        media = next((media for magic, media in _MEDIA.items() if data.startswith(magic)), None)
        return None if media is None else f"data:{media};base64,{base64.b64encode(data).decode('ascii')}"
