"""The public data sets that `detect data download` knows: where they are, what they hold, what is allowed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from detect.data.public.unpack import Limits

DataSetName = Literal["coco2017", "coco128", "voc2007", "voc2012", "bccd"]
COCO_URL = "http://images.cocodataset.org"
"""Open, for its certificate does not fit its name; every file's SHA-256 is known."""
VOC_URL = "https://thor.robots.ox.ac.uk/pascal/VOC"
VOC_FOLDERS = "(?:Annotations|ImageSets|JPEGImages)/.*"
COCO_CLASSES = (
    "person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, "
    "stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, "
    "giraffe, backpack, umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, "
    "baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, "
    "knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, "
    "cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote, keyboard, "
    "cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, "
    "hair drier, toothbrush"
)
"""Names of the classes, in the order of COCO's category ids, which COCO128's label files count from 0."""


@dataclass(frozen=True)
class Archive:
    """One file to fetch and unpack."""

    url: str
    select: str
    """Whole names of the members to unpack; group 1 is the path in the data set."""
    download_gb: float
    """At most; known sizes with a little room."""
    limits: Limits
    checksum: str | None = None
    """ALGORITHM:HEX where one is published."""

    @property
    def name(self) -> str:
        return urlsplit(self.url).path.rsplit("/", 1)[1]


@dataclass(frozen=True)
class DataSet:
    """Where a public data set is, and what its owners allow."""

    page: str
    licence: str
    archives: tuple[Archive, ...]
    use: str
    """What `detect fit` is to be told, with ROOT for the folder."""
    extra_files: dict[str, str] = field(default_factory=dict)
    """Files that the format needs and the archives lack."""


def _voc(path: str, md5: str, *, year: int, files: int, gb: float) -> Archive:
    """Source of the sums: torchvision.datasets.voc."""
    select = f"VOCdevkit/VOC{year}/({VOC_FOLDERS})"
    return Archive(f"{VOC_URL}/{path}", select, gb, Limits(files, 2 * gb), f"md5:{md5}")


def _coco(path: str, sha256: str, *, select: str, files: int, gb: float, unpacked_gb: float) -> Archive:
    """Source of the sums and sizes: TensorFlow Datasets, url_checksums/coco.txt; COCO itself has none."""
    return Archive(f"{COCO_URL}/{path}", select, gb, Limits(files, unpacked_gb), f"sha256:{sha256}")


VOC_LICENCE = (
    "images from Flickr under Flickr's terms of use, whose owners keep their rights; the data set is given "
    "for research, see the page"
)
DATA_SETS: dict[DataSetName, DataSet] = {
    "coco2017": DataSet(
        page="https://cocodataset.org",
        licence="annotations CC BY 4.0; images under Flickr's terms of use, each with a licence of its own "
        "that the JSON files name",
        archives=(
            _coco(
                "annotations/annotations_trainval2017.zip",
                "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
                select=r"(annotations/instances_(?:train|val)2017\.json)",
                files=10,
                gb=0.26,
                unpacked_gb=3,
            ),
            _coco(
                "zips/val2017.zip",
                "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
                select=r"(val2017/.*\.jpg)",
                files=5_001,
                gb=0.82,
                unpacked_gb=1,
            ),
            _coco(
                "zips/train2017.zip",
                "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
                select=r"(train2017/.*\.jpg)",
                files=118_288,
                gb=19.4,
                unpacked_gb=22,
            ),
        ),
        use="--data.root ROOT",
    ),
    "coco128": DataSet(
        page="https://docs.ultralytics.com/datasets/detect/coco128",
        licence="COCO's: annotations CC BY 4.0, images under Flickr's terms of use; the collection is "
        "published by Ultralytics, see LICENSE in it",
        archives=(
            Archive(
                "https://github.com/ultralytics/assets/releases/download/v0.0.0/coco128.zip",
                r"coco128/((?:images|labels)/.*|LICENSE|README\.txt)",
                0.05,
                Limits(1_000, 0.1),
            ),
        ),
        # As its publisher's own file has it: the same 128 images for training and validation.
        extra_files={
            "data.yaml": f"train: images/train2017\nval: images/train2017\nnames: [{COCO_CLASSES}]\n"
        },
        use="--data.root ROOT (its 128 images are the training and the validation split: for trials only)",
    ),
    "voc2007": DataSet(
        page="http://host.robots.ox.ac.uk/pascal/VOC/voc2007/",
        licence=VOC_LICENCE,
        archives=(
            _voc(
                "voc2007/VOCtrainval_06-Nov-2007.tar",
                "c52e279531787c972589f7e41ab4ae64",
                year=2007,
                files=30_000,
                gb=0.5,
            ),
            _voc(
                "voc2007/VOCtest_06-Nov-2007.tar",
                "b6e924de25625d8de591ea690078ad9f",
                year=2007,
                files=30_000,
                gb=0.5,
            ),
        ),
        use="--data.root ROOT --data.train_split trainval --data.val_split test",
    ),
    "voc2012": DataSet(
        page="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
        licence=VOC_LICENCE,
        archives=(
            _voc(
                "voc2012/VOCtrainval_11-May-2012.tar",
                "6cd6e144f989b92b3379bac3b3de84fd",
                year=2012,
                files=80_000,
                gb=2.1,
            ),
        ),
        use="--data.root ROOT --data.train_split train --data.val_split val",
    ),
    "bccd": DataSet(
        page="https://github.com/Shenggan/BCCD_Dataset",
        licence="MIT, Copyright (c) 2017 shenggan",
        archives=(
            Archive(
                "https://github.com/Shenggan/BCCD_Dataset/archive/refs/heads/master.zip",
                rf"[^/]+/(?:BCCD/)?({VOC_FOLDERS})",
                0.1,
                Limits(3_000, 0.2),
            ),
        ),
        use="--config configs/bccd.yaml --data.root ROOT",
    ),
}
