from __future__ import annotations

import logging
from pathlib import Path

import pytest
from lightning.pytorch.utilities import rank_zero_info

from detect.errors import InputError
from detect.report.data_facts import open_data, split_facts
from tests.coco_cases import annotations_of, coco_dict


def test_split_facts__by_hand() -> None:
    boxes = [
        (1, 1, [0.0, 0.0, 31.0, 33.0]),  # 1023 px^2
        (1, 1, [0.0, 0.0, 32.0, 32.0]),
        (1, 2, [0.0, 0.0, 96.0, 96.0]),
        (3, 2, [0.0, 0.0, 50.0, 50.0]),  # a crowd
    ]
    dataset = coco_dict(boxes, image_ids=[1, 2, 3], category_ids=(1, 2), crowd=(3,))
    facts = split_facts(annotations_of(dataset))
    assert (facts.images, facts.empty_images, facts.boxes, facts.ignored, facts.most_boxes) == (3, 1, 3, 1, 3)
    assert (facts.small, facts.medium, facts.large) == (1, 1, 1)
    assert facts.per_class == {"class 1": 2, "class 2": 1}


def test_open_data__quiet_and_by_the_section_alone(coco_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        rank_zero_info("the run")  # from now on the logger remembers that it may speak
        caplog.clear()
        data = open_data({"root": str(coco_root), "seed": 3, "augmentations": [{"class_path": "os.system"}]})
    assert len(data.val) == 4
    assert caplog.text == ""
    assert logging.root.manager.disable == logging.NOTSET


def test_open_data__not_there_or_broken__error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent"):
        open_data({"root": str(tmp_path / "absent")})
    with pytest.raises(InputError, match=r"the data section of config\.yaml"):
        open_data({"total_batch_size": "many"})
