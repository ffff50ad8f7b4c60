"""One teacher of each kind for all tests of distillation."""

import pytest

from edgeft.testing.taught import Taught
from edgeft.testing.toys import Images, Texts


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Taught:
    return Taught(Images(), tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Taught:
    return Taught(Texts(), tmp_path_factory.mktemp("texts"))
