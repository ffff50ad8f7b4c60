"""The bill of materials of a bundle, CycloneDX 1.6 in JSON: what it was made of, and what it needs to run.

The bundle's model is the subject. Its components are the base weights and the data, with their licences, and the
libraries that the device needs; what made it stands among the tools. Serial number and time come from the bundle and
its run, so the same build writes the same bytes.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, uuid5

from edgeft.bundle.licenses import NOT_STATED, STUDENT, WEIGHTS, License
from edgeft.core.errors import DeviceError

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

_PROJECT = "edgeft"
_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Made:
    """What is told of a bundle.

    Args:
        name: of the bundle.
        content_digest: of its deterministic part.
        model_sha256: of model.onnx.
        started: when its build began, ISO 8601.
        versions: of every library that took part, by distribution.
        licenses: of weights and data.
        texts: whether it reads texts, which needs `edgeft[text]` on the device.
    """

    name: str
    content_digest: str
    model_sha256: str
    started: str
    versions: Mapping[str, str]
    licenses: Sequence[License]
    texts: bool


def sbom(made: Made) -> str:
    """Return the JSON document.

    Raises:
        DeviceError: the package cyclonedx-python-lib is not installed.
    """
    try:
        from cyclonedx.model import HashAlgorithm, HashType
        from cyclonedx.model.bom import Bom, BomMetaData
        from cyclonedx.model.component import Component, ComponentType
        from cyclonedx.model.tool import ToolRepository
        from cyclonedx.output.json import JsonV1Dot6
    except ImportError as error:
        raise DeviceError(f"a bundle's bill of materials: {error}", hint="pip install 'edgeft[train]'") from error
    model = Component(
        name=made.name,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        version=made.content_digest,
        bom_ref=made.name,
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=made.model_sha256)],
    )
    tools = [_library(*item, "tool") for item in sorted(made.versions.items()) if item[1] != "absent"]
    parts = [*map(_origin, made.licenses), *(_library(*item, "device") for item in _needed(texts=made.texts))]
    document = Bom(
        serial_number=uuid5(NAMESPACE_URL, f"{_PROJECT}:{made.content_digest}:{made.started}"),
        metadata=BomMetaData(
            timestamp=datetime.fromisoformat(made.started), component=model, tools=ToolRepository(components=tools)
        ),
        components=parts,
    )
    document.register_dependency(model, parts)
    return str(JsonV1Dot6(document).output_as_string(indent=1)) + "\n"


def _needed(*, texts: bool) -> list[tuple[str, str]]:
    """Return the distributions that the device's install of edgeft asks for, itself first, with the versions here."""
    asked = [text for text in metadata.requires(_PROJECT) or () if "extra" not in text or (texts and "'text'" in text)]
    names = [found[0] for text in asked if (found := _NAME.match(text))]
    return [(name, metadata.version(name)) for name in (_PROJECT, *sorted(names))]


def _library(name: str, version: str, role: str) -> "Component":
    from cyclonedx.model.component import Component
    from packageurl import PackageURL

    return Component(name=name, version=version, bom_ref=f"{role}:{name}", purl=PackageURL("pypi", None, name, version))


def _origin(item: License) -> "Component":
    """Return weights, or data, as a component."""
    from cyclonedx.contrib.license.factories import LicenseFactory
    from cyclonedx.model.component import Component, ComponentType

    weights = item.what in {WEIGHTS, STUDENT}
    return Component(
        name=item.source,
        type=ComponentType.MACHINE_LEARNING_MODEL if weights else ComponentType.DATA,
        bom_ref=f"{'weights' if weights else 'data'}:{item.source}",
        description=f"{item.what}{f', from {item.distribution}' if item.distribution else ''}",
        licenses=[] if item.expression == NOT_STATED else [LicenseFactory().make_from_string(item.expression)],
    )
