"""Every built-in finetune method takes the exam that third-party methods take."""

from pathlib import Path

import pytest

from edgeft import catalog
from edgeft.core.stage import Method
from edgeft.testing.method_cases import CASES, MethodCase

METHODS = [method for method in catalog.METHODS if method.kind == "finetune"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_method_passes(method: Method, case: MethodCase, tmp_path: Path) -> None:
    case.check(method, tmp_path)
