from __future__ import annotations

import gc

import pytest

from detect.system.garbage import collection_paused


def _fail_inside() -> None:
    with collection_paused():
        raise RuntimeError("inside")


def test_collection_paused__off_inside_and_as_before_after_an_error() -> None:
    assert gc.isenabled()
    with collection_paused():
        assert not gc.isenabled()
        with collection_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(RuntimeError, match="inside"):
        _fail_inside()
    assert gc.isenabled()
