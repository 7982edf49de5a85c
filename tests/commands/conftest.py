from pathlib import Path

import pytest

from tests.conftest import make_coco
from tests.fit_cases import write_config


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A configuration and a data set whose boxes the usual anchors fit badly."""
    folder = tmp_path_factory.mktemp("case")
    return write_config(folder), make_coco(folder / "coco", train=16, val=5)
