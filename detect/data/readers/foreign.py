"""Files in a format that a labelling tool keeps for itself, named so that a refusal says how to export."""

from __future__ import annotations

import re
from pathlib import Path

LOOKED_AT = 20
"""Files; a folder of LabelMe has one for each image."""
BEGINNING = 4096
"""Bytes that tell the formats apart."""
FOREIGN = {
    "CVAT's own XML; export the task from CVAT as COCO 1.0": (
        ".xml",
        r"<annotations>.*<(version|meta|image)\b",
    ),
    "LabelMe's; export it as Pascal VOC or COCO, as by labelme2voc": (".json", r'"shapes"\s*:'),
    "Label Studio's own; export the project as COCO or YOLO": (".json", r'\[\s*\{.*"result"\s*:'),
    "CreateML's; export the set as COCO": (".json", r'\[\s*\{.*"coordinates"\s*:'),
    "a table; export the boxes as COCO, Pascal VOC or YOLO": (".csv", r"(?i)\b(xmin|x_min|x1|bbox\w*)\b"),
}
"""What a file is and what to do instead, by suffix and by a pattern of its beginning."""


def foreign_format(folder: Path) -> str:
    """What the first file of a tool's own format in `folder` is, as a sentence's end; "" without one."""
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in (".xml", ".json", ".csv")]
    for path in files[:LOOKED_AT]:
        if not path.is_file():
            continue
        with path.open("rb") as file:
            text = file.read(BEGINNING).decode(errors="replace")
        for what, (suffix, pattern) in FOREIGN.items():
            if path.suffix.lower() == suffix and re.search(pattern, text, re.DOTALL):
                return f": {path.name} is {what}"
    return ""
