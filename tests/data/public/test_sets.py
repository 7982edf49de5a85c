import re

import pytest

from detect.data.public.sets import COCO_CLASSES, DATA_SETS

MEMBERS = {
    "coco2017": {
        "annotations/instances_val2017.json": "annotations/instances_val2017.json",
        "annotations/captions_val2017.json": None,
        "val2017/000000000139.jpg": "val2017/000000000139.jpg",
        "train2017/000000000009.jpg": "train2017/000000000009.jpg",
    },
    "coco128": {
        "coco128/labels/train2017/000000000009.txt": "labels/train2017/000000000009.txt",
        "coco128/LICENSE": "LICENSE",
        "__MACOSX/coco128/._LICENSE": None,
    },
    "voc2007": {
        "VOCdevkit/VOC2007/ImageSets/Main/trainval.txt": "ImageSets/Main/trainval.txt",
        "VOCdevkit/VOC2007/SegmentationClass/000032.png": None,
    },
    "voc2012": {"VOCdevkit/VOC2012/JPEGImages/2007_000027.jpg": "JPEGImages/2007_000027.jpg"},
    "bccd": {
        "BCCD_Dataset-master/BCCD/Annotations/BloodImage_00000.xml": "Annotations/BloodImage_00000.xml",
        "BCCD_Dataset-master/Annotations/BloodImage_00000.xml": "Annotations/BloodImage_00000.xml",
        "BCCD_Dataset-master/README.md": None,
    },
}
"""Members of the archives as they are, and their places in the data set."""
HEX_DIGITS = {"md5": 32, "sha256": 64}


@pytest.mark.parametrize("name", DATA_SETS)
def test_data_sets__members__go_to_their_places(name: str) -> None:
    for member, place in MEMBERS[name].items():
        places = {match[1] for a in DATA_SETS[name].archives if (match := re.fullmatch(a.select, member))}
        assert places == ({place} if place else set()), member


@pytest.mark.parametrize("name", DATA_SETS)
def test_data_sets__every_archive__has_a_name_of_its_own_and_a_whole_checksum(name: str) -> None:
    archives = DATA_SETS[name].archives
    assert len({archive.name for archive in archives}) == len(archives)
    for archive in archives:
        assert archive.name.endswith((".zip", ".tar"))
        if archive.checksum is None:
            assert archive.url.startswith("https://"), "without a checksum the connection must be encrypted"
        else:
            algorithm, digits = archive.checksum.split(":")
            assert re.fullmatch("[0-9a-f]+", digits)
            assert len(digits) == HEX_DIGITS[algorithm]


def test_coco_classes__are_those_that_torchvision_names() -> None:
    from torchvision.models.detection import SSDLite320_MobileNet_V3_Large_Weights

    names = SSDLite320_MobileNet_V3_Large_Weights.COCO_V1.meta["categories"]
    assert COCO_CLASSES.split(", ") == [name for name in names if name not in ("__background__", "N/A")]
