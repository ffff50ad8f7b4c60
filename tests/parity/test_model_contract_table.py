"""edgeft/models/contracts.json against the installed timm and torchvision, which know best."""

import pytest

from edgeft.models.contracts import _table
from edgeft.models.library_contracts import architectures, contract_of


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_the_table_says_what_the_library_says(library: str) -> None:
    listed = _table()[library]
    known = [name for name in architectures(library) if name in listed]
    assert len(known) > 0.9 * len(listed), "run tests/golden/make_model_contracts.py"
    differing = [name for name in known if contract_of(library, name) != listed[name]]
    assert differing == [], "run tests/golden/make_model_contracts.py"
