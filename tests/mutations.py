"""What `fuzz_data` does to a healthy data set: one function a kind of harm, each a function of its target."""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tests.data_sets import write_size


class Target(NamedTuple):
    """A data set to harm."""

    root: Path
    outside: Path
    """A folder beside it with a picture, which must stay as it is."""
    format: str
    rng: np.random.Generator

    def pick(self, options: list[Any]) -> Any:
        """One of `options`."""
        return options[int(self.rng.integers(len(options)))]

    def files(self, *suffixes: str) -> list[Path]:
        """Files of the data set with one of `suffixes`, sorted."""
        return sorted(path for path in self.root.rglob("*") if path.suffix in suffixes)


ANNOTATIONS = {"coco": (".json",), "voc": (".xml", ".txt"), "yolo": (".txt", ".yaml")}
PICTURES = (".jpg", ".png")
MARKUP = b"[]{}<>&*!|\"':,-#\n\t \0\xff0123456789eE.NaInf"


def nasty_values(target: Target) -> list[Any]:
    """Values of every type that a field was not made for."""
    deep: list[Any] = []
    for _ in range(200):
        deep = [deep]
    return [
        *(None, True, False, 0, -1, 10**400, -(10**30), 2**63, 1e308, -1e308, 1e-320),
        *(
            float("nan"),
            float("inf"),
            -float("inf"),
            "",
            " ",
            "NaN",
            "1e999",
            "\ud800",
            "\0",
            "\x1b[2J",
            "x" * 100_000,
        ),
        *([], {}, [[]], [1, 2, 3], [1, 2, 3, "4"], [None] * 4, {"a": {}}, deep, [0] * 10_000),
        *("../outside/secret.jpg", str(target.outside / "secret.jpg"), "/etc/passwd", "/dev/zero", "..", "."),
        *("a\nb", "con", "a/" * 3000 + "b.jpg", "~", "${HOME}", "%s%n", "a.jpg\0.png", "\u202egpj.a"),
    ]


# ---- bytes of any file


def mutate_bytes(target: Target, path: Path) -> None:
    """Flip, insert, delete, repeat, or cut off."""
    rng, data = target.rng, bytearray(path.read_bytes())
    for _ in range(int(rng.integers(1, 8))):
        at = int(rng.integers(len(data) + 1))
        kind = int(rng.integers(6))
        if kind == 0 and at < len(data):
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at:at] = bytes([MARKUP[int(rng.integers(len(MARKUP)))]]) * int(rng.choice([1, 2, 50]))
        elif kind == 2:
            del data[at : at + int(rng.choice([1, 5, 40]))]
        elif kind == 3:
            data[at:at] = data[at : at + 30] * int(rng.choice([1, 3, 300]))
        elif kind == 4:
            data[at : at + 8] = rng.bytes(8)
        elif int(rng.integers(4)) == 0:
            del data[at:]
    path.write_bytes(data)


def annotation_bytes(target: Target) -> None:
    mutate_bytes(target, target.pick(target.files(*ANNOTATIONS[target.format])))


def picture_bytes(target: Target) -> None:
    mutate_bytes(target, target.pick(target.files(*PICTURES)))


def picture_header(target: Target) -> None:
    path = target.pick(target.files(*PICTURES))
    data = bytearray(path.read_bytes())
    for _ in range(int(target.rng.integers(1, 5))):
        data[int(target.rng.integers(min(len(data), 200)))] = int(target.rng.integers(256))
    path.write_bytes(data)


def file_emptied(target: Target) -> None:
    target.pick(target.files(*ANNOTATIONS[target.format], *PICTURES)).write_bytes(b"")


def file_of_noise(target: Target) -> None:
    path = target.pick(target.files(*ANNOTATIONS[target.format], *PICTURES))
    path.write_bytes(target.rng.bytes(int(target.rng.integers(1, 5000))))


def file_in_other_encoding(target: Target) -> None:
    path = target.pick(target.files(*ANNOTATIONS[target.format]))
    path.write_bytes(
        path.read_text().encode(target.pick(["utf-16", "utf-32", "utf-7", "utf-8-sig", "cp037"]))
    )


# ---- JSON


def nodes(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything in a JSON value."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    found = [(value, key) for key in keys]
    return found + [node for key in keys if isinstance(value[key], dict | list) for node in nodes(value[key])]


def json_values(target: Target) -> None:
    """Some fields hold something else, are gone, or are there twice."""
    path = target.pick(target.files(".json"))
    content = json.loads(path.read_text())
    for _ in range(int(target.rng.integers(1, 4))):
        container, key = target.pick(nodes(content))
        kind = int(target.rng.integers(5))
        if kind == 0 and isinstance(container, dict):
            container.pop(key, None)
        elif kind == 1 and isinstance(container, list):
            container += container * int(target.rng.choice([1, 200]))
        elif (isinstance(container, dict) and key in container) or isinstance(container, list):
            container[key if isinstance(container, dict) else key % max(len(container), 1)] = target.pick(
                nasty_values(target)
            )
    path.write_text(json.dumps(content))


def json_whole(target: Target) -> None:
    depth = int(target.rng.choice([500, 100_000]))
    text = target.pick(
        [
            *(
                "[" * depth,
                '{"images":' * depth,
                "[" * depth + "]" * depth,
                "[]",
                "{}",
                "null",
                "NaN",
                "1e999",
                '"x"',
            ),
            '{"images": [], "annotations": [], "categories": []}',
            '{"images": [' + '{"id": 1},' * 50_000 + '{}], "annotations": [], "categories": []}',
            '{"images": {}, "annotations": "x", "categories": 3}',
            '{"images": ' + "9" * 100_000 + "}",
            '{"images": [], "images": [1], "annotations": [[]], "categories": [[]]}',
        ]
    )
    target.pick(target.files(".json")).write_text(text)


def json_segmentation(target: Target) -> None:
    """Polygons and masks in place of a box."""
    path = target.pick(target.files(".json"))
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        annotation["segmentation"] = target.pick(
            [*nasty_values(target), [[1, 2, 30, 4, 30, 40]], {"counts": "x" * 999, "size": [48, 64]}]
        )
        annotation.pop("bbox")
    path.write_text(json.dumps(content))


# ---- XML


def xml_values(target: Target) -> None:
    """Numbers and names of an XML file are something else."""
    path = target.pick(target.files(".xml"))
    text = path.read_text()
    for _ in range(int(target.rng.integers(1, 4))):
        tag = target.pick(["width", "height", "name", "difficult", "xmin", "ymin", "xmax", "ymax", "object"])
        head, opening, rest = text.partition(f"<{tag}>")
        if opening:
            value = str(target.pick(nasty_values(target)))
            value = value.encode("utf-8", "replace").decode().replace("\0", "&#0;")
            text = head + opening + value + "<" + rest.partition("<")[2]
    path.write_text(text)


def xml_whole(target: Target) -> None:
    laughs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))
    secret = target.outside / "secret.jpg"
    depth = int(target.rng.choice([300, 100_000]))
    text = target.pick(
        [
            f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY l0 "ha">{laughs}]><annotation>&l11;</annotation>',
            f'<!DOCTYPE a [<!ENTITY x SYSTEM "file://{secret}">]><annotation>&x;</annotation>',
            f'<!DOCTYPE a SYSTEM "file://{secret}"><annotation></annotation>',
            '<!DOCTYPE a [<!ENTITY % p SYSTEM "file:///dev/zero"> %p;]><annotation/>',
            "<a>" * depth,
            "<a>" * depth + "</a>" * depth,
            "<annotation " + " ".join(f'a{i}="1"' for i in range(20_000)) + "/>",
            "<annotation><object/>" * 3 + "</annotation>" * 3,
            "<annotation>" + "<object><name>cat</name><bndbox/></object>" * 20_000 + "</annotation>",
            "<annotation><size><width>9</width></size></annotation>",
            '<?xml version="1.0" encoding="nonsense"?><annotation/>',
            "<annotation><filename>../../outside/secret.jpg</filename></annotation>",
            "<?xml version='1.0'?><?xml-stylesheet href='/dev/zero'?><annotation/>",
            "<annotation>" + "&amp;" * 100_000 + "</annotation>",
            "x" * 5_000_000,
        ]
    )
    target.pick(target.files(".xml")).write_text(text)


def voc_list(target: Target) -> None:
    """The list of a split names what it should not."""
    lines = ["a", "b.jpg", "../a", f"{target.outside}/secret", "../../../outside/secret", "", " ", "a" * 5000]
    lines += ["\x1b[2J", "a\tb", "none", "a", "JPEGImages/a.jpg", "é", "\u2028", "."]
    chosen = [target.pick(lines) for _ in range(int(target.rng.integers(1, 12)))]
    target.pick(target.files(".txt")).write_text("\n".join(chosen))


def voc_labels(target: Target) -> None:
    names = target.pick(
        [["cat", "cat"], [], ["dog"], ["\0"], ["x" * 10_000], [str(i) for i in range(20_000)]]
    )
    (target.root / "labels.txt").write_text("\n".join(names))


# ---- YOLO


def yaml_whole(target: Target) -> None:
    laughs = "a0: &a0 [x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
    )
    secret = target.pick(["../../outside", str(target.outside), "/", "..", "/dev", "/proc/self", "~"])
    good = "train: images/train\nval: images/val\n"
    text = target.pick(
        [
            laughs + "names: *a11\n" + good,
            "names: !!python/object/apply:os.system [echo]\n" + good,
            f"names: [cat, dog]\ntrain: {secret}\nval: {secret}\n",
            f"path: {secret}\nnames: [cat, dog]\ntrain: images\nval: .\n",
            "names: " + "[" * 100_000,
            "names: " + "{a: " * 5000 + "1" + "}" * 5000 + "\n" + good,
            "names: {0: cat, 1: [dog]}\n" + good,
            "names: {-1: cat, 1e9: dog, 99999999999: x}\n" + good,
            "names: {999999999: cat}\n" + good,
            "names: [cat, dog]\ntrain: [[images/train]]\nval: {a: b}\n",
            "names: [cat, cat]\n" + good,
            "names: cat\n" + good,
            "names:\n" + "".join(f"  - c{i}\n" for i in range(20_000)) + good,
            "? [complex, key]\n: value\nnames: [a, b]\n" + good,
            "---\nnames: [a]\n---\nnames: [b]\n",
            "names: [cat, dog]\ntrain: images/train\nval: images/train\ntest: data.yaml\n",
            "names: [cat, dog]\ntrain: data.yaml\nval: images/none\n",
            "names: [cat, dog]\ntrain: list.txt\nval: images/val\n",
            "\t- : [",
            "<<: *x\n" + good,
            "%YAML 9.9\n---\nnames: [cat, dog]\n" + good,
            '"names": ["\\ud800", "\\u0000"]\n' + good,
        ]
    )
    (target.root / "data.yaml").write_text(text)
    lines = [
        "images/train/a.jpg",
        "../outside/secret.jpg",
        f"{target.outside}/secret.jpg",
        "none.jpg",
        "./",
        "\x1b",
    ]
    (target.root / "list.txt").write_text("\n".join(target.pick(lines) for _ in range(5)))


def label_lines(target: Target) -> None:
    """Lines of a label file that are no boxes."""
    words = [
        "0",
        "1",
        "-1",
        "2",
        "1e9",
        "nan",
        "inf",
        "-inf",
        "1e400",
        "0x1",
        "0.5",
        "1.5",
        "-0.5",
        "1e-320",
        "a",
        ",",
    ]
    words += ["\u0661", "1_0", "9" * 5000, "\x1b[2J", "0.5\x0b0.5"]
    rows = [
        " ".join(target.pick(words) for _ in range(int(target.rng.integers(1, 12))))
        for _ in range(int(target.rng.integers(1, 30)))
    ]
    rows += [target.pick(["", "0 " * 50_001, "0 0.5 0.5 0.5 0.5\n" * 5000])]
    target.pick([path for path in target.files(".txt") if "labels" in path.parts]).write_text("\n".join(rows))


# ---- pictures


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(
    width: int, height: int, *, depth: int, colour: int, extra: bytes = b"", data: bytes = b""
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = (
        png_chunk(b"IHDR", header) + extra + png_chunk(b"IDAT", zlib.compress(data)) + png_chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + body


def jpeg_that_claims(side: int) -> bytes:
    """A small JPEG whose header says that it is `side` px wide and high."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (90, 120, 30)).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    write_size(data, side, side)
    return bytes(data)


def bomb(target: Target) -> None:
    """A small file that claims or holds a great deal of pixels or text."""
    side = int(target.rng.choice([9000, 9460, 13_377, 13_378, 20_000, 60_000, 2**31 - 1]))
    real = int(target.rng.choice([2000, 2000, 2000, 9000]))
    text = png_chunk(b"zTXt", b"k\0\0" + zlib.compress(b"\0" * 5_000_000, 1))
    content = target.pick(
        [
            png_of(side, side, depth=1, colour=0),
            png_of(side, side, depth=16, colour=6, data=b"\0" * 1000),
            png_of(64, 48, depth=8, colour=2, extra=text, data=b"\0" * (193 * 48)),
            png_of(real, real, depth=1, colour=0, data=b"\0" * ((real // 8 + 1) * real)),
            png_of(0, 48, depth=8, colour=2),
            jpeg_that_claims(min(side, 65_535)),
            png_of(64, 48, depth=8, colour=3),
            b"GIF89a"
            + struct.pack("<HH", 65535, 65535)
            + b"\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\xff\xff\xff\xff\0\2\0;",
            b"BM"
            + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 50_000, -50_000, 1, 24, 0, 0, 0, 0, 0, 0),
            b"P6 50000 50000 255\n",
            b"P6 " + b"9" * 5000 + b" 1 255\n",
            b"II*\0\x08\0\0\0\xff\xff" + b"\1\1\4\0\xff\xff\xff\xff\xff\xff\xff\xff" * 200,
        ]
    )
    target.pick(target.files(*PICTURES)).write_bytes(content)


def picture_of_other_kind(target: Target) -> None:
    """A good file of a format or mode that does not go with its name."""
    path = target.pick(target.files(*PICTURES))
    rng = target.rng
    mode = target.pick(["1", "L", "LA", "P", "RGBA", "CMYK", "I", "I;16", "F", "YCbCr"])
    size = target.pick([(64, 48), (48, 64), (1, 1), (1, 3000), (3000, 1)])
    picture = Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8))
    picture = picture.convert("I").convert(mode) if mode == "I;16" else picture.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = target.pick([1, 3, 6, 8, 0, 9, 65535])
    for kind in target.pick(
        [["PNG"], ["TIFF"], ["GIF", "TIFF"], ["WEBP", "PNG"], ["JPEG", "TIFF"], ["BMP", "TIFF"]]
    ):
        try:
            picture.save(path, format=kind, exif=exif)
        except (OSError, KeyError, ValueError):
            continue  # the format has no such mode
        return


def postscript(target: Target) -> None:
    target.pick(target.files(*PICTURES)).write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n(/etc/passwd) (r) file\n"
    )


# ---- the file system


def links(target: Target) -> None:
    """Links out of the folder, in circles, to devices, in place of files and folders."""
    path = target.pick(target.files(*ANNOTATIONS[target.format], *PICTURES))
    goal = target.pick(
        [
            target.outside / "secret.jpg",
            target.outside,
            Path("/dev/zero"),
            Path("/dev/null"),
            path,
            Path("/none"),
            path.parent,
            Path("/proc/self/mem"),
            Path("/etc/passwd"),
        ]
    )
    path.unlink()
    path.symlink_to(goal)


def not_a_file(target: Target) -> None:
    """A pipe or a folder where a file should be, or nothing."""
    path = target.pick(target.files(*ANNOTATIONS[target.format], *PICTURES))
    path.unlink()
    kind = int(target.rng.integers(3))
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.mkdir()


def folder_link(target: Target) -> None:
    """A folder of pictures or annotations lies elsewhere, or leads into itself."""
    folders = sorted(path for path in target.root.rglob("*") if path.is_dir())
    folder = target.pick(folders)
    goal = target.pick([target.outside, target.root, folder, Path("/none")])
    moved = target.root / "moved-away"
    folder.rename(moved)
    folder.symlink_to(goal)


def odd_names(target: Target) -> None:
    """Files with names that cannot be text, or that a terminal would obey."""
    for name in (
        b"\xff\xfe.jpg",
        b"new\nline.jpg",
        b"\x1b[2J.jpg",
        b"-rf.jpg",
        b"a" * 250 + b".jpg",
        b"\xff.xml",
    ):
        folder = target.pick(
            sorted(path.parent for path in target.files(*ANNOTATIONS[target.format], *PICTURES))
        )
        source = target.pick(target.files(*PICTURES))
        with open(os.path.join(os.fsencode(folder), name), "wb") as file:
            file.write(source.read_bytes())


ALL = ("coco", "voc", "yolo")
MUTATIONS: dict[str, tuple[tuple[str, ...], Callable[[Target], None]]] = {
    "annotation bytes": (ALL, annotation_bytes),
    "picture bytes": (ALL, picture_bytes),
    "picture header": (ALL, picture_header),
    "file emptied": (ALL, file_emptied),
    "file of noise": (ALL, file_of_noise),
    "other encoding": (ALL, file_in_other_encoding),
    "JSON values": (("coco",), json_values),
    "JSON whole": (("coco",), json_whole),
    "JSON segmentation": (("coco",), json_segmentation),
    "XML values": (("voc",), xml_values),
    "XML whole": (("voc",), xml_whole),
    "VOC list": (("voc",), voc_list),
    "VOC labels": (("voc",), voc_labels),
    "YAML whole": (("yolo",), yaml_whole),
    "label lines": (("yolo",), label_lines),
    "bomb": (ALL, bomb),
    "picture of other kind": (ALL, picture_of_other_kind),
    "PostScript": (ALL, postscript),
    "links": (ALL, links),
    "not a file": (ALL, not_a_file),
    "folder link": (ALL, folder_link),
    "odd names": (ALL, odd_names),
}
"""Formats that each can be done to, and what is done."""
