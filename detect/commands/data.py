"""The commands `detect data ...`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from detect.commands.arguments import Command, add_trust_argument, new_parser, parse
from detect.errors import InputError
from detect.system.files import require_writable

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def add_reading_arguments(parser: ArgumentParser) -> None:
    """Which data set, and how its boxes are read."""
    from detect.data.checks.conventions import BoxConvention

    parser.add_argument("root", type=Path, help="folder of the data set: COCO, Pascal VOC or YOLO")
    parser.add_argument("--split", type=str, nargs="+", default=None, help="null: all that are found")
    parser.add_argument(
        "--voc_one_based", type=bool | None, default=None, help="VOC: count from 1; null: official sets do"
    )
    parser.add_argument(
        "--box_convention", type=BoxConvention | None, default=None, help="null: as the format says"
    )


def reading_arguments(config: Namespace) -> dict[str, Any]:
    """The options of `add_reading_arguments` under the names that check, repair and convert know them by."""
    return {"splits": config.split} | {name: config[name] for name in ("voc_one_based", "box_convention")}


def check_command(args: list[str]) -> int:
    """Decode every image, check every annotation, compare the anchors; nothing is changed."""
    import json

    from detect.inspection.data_check import check
    from detect.inspection.data_check_text import print_report
    from detect.system.files import write_atomically
    from detect.system.output_folder import require_new

    parser = new_parser(
        "data check", check_command, "detect data check data/birds --config configs/bccd.yaml"
    )
    add_reading_arguments(parser)
    parser.add_argument("--config", type=Path | None, default=None, help="the detector whose anchors count")
    add_trust_argument(parser)
    parser.add_argument("--json", type=Path | None, default=None, help="write all findings and counts there")
    parser.add_argument("--html", type=Path | None, default=None, help="write a page with images there")
    parser.add_argument("--fix", action="store_true", help="write a repaired copy to --out")
    parser.add_argument("--out", type=Path | None, default=None, help="a new or empty folder for --fix")
    config = parse(parser, args)
    for file in (config.json, config.html):
        require_writable(file, outside=config.root)
    if config.fix != (config.out is not None):
        raise InputError("--fix and --out FOLDER belong together: the data set itself is never changed")
    if config.fix:
        require_new(config.out, config.root)
    report = check(
        config.root,
        config=config.config,
        **reading_arguments(config),
    )
    print_report(report)
    if config.json is not None:
        write_atomically(config.json, json.dumps(report.to_json(), indent=1))
    if config.html is not None:
        from detect.report.data_check_page import write_check_page

        write_check_page(report, config.html)
    if config.fix:
        _write_repaired(config)
    return report.exit_code


def _write_repaired(config: Namespace) -> None:
    """Write the copy that `--fix` asks for, and say what it no longer has."""
    from detect.inspection.repair import repair

    done = repair(config.root, config.out, **reading_arguments(config))
    print(f"\nrepaired copy in {config.out}: {done.images:,} images, {done.boxes:,} boxes")
    for (code, action), count in done.repaired.items():
        print(f"  {code} x {count}: {action}")
    if done.left:
        print(f"left for you to decide: {', '.join(f'{code} x {n}' for code, n in done.left.items())}")


def convert_command(args: list[str]) -> int:
    """Write a data set in another format, every box as it is; the images are linked where they can be."""
    from detect.data.checks.findings import summarise
    from detect.data.convert import Format, convert
    from detect.system.output_folder import ImagePlacement

    parser = new_parser(
        "data convert", convert_command, "detect data convert data/birds --to yolo --out data/birds-yolo"
    )
    add_reading_arguments(parser)
    parser.add_argument("--to", type=Format, required=True)
    parser.add_argument("--out", type=Path, required=True, help="a new or empty folder outside of the other")
    parser.add_argument("--images", type=ImagePlacement, default="link", help="hard links, or copies")
    config = parse(parser, args)
    done = convert(
        config.root,
        config.to,
        output=config.out,
        images=config.images,
        **reading_arguments(config),
    )
    for old, new in done.splits.items():
        if old != new:
            print(f"the split {old} is called {new}")
    print(
        f"{done.images:,} images and {done.boxes:,} boxes written from {done.source_format} to "
        f"{done.format} in {config.out}"
    )
    if done.findings:
        print(f"left out:\n{summarise(done.findings)}")
    return 1 if done.findings else 0


def preview_command(args: list[str]) -> int:
    """Write a page of augmented samples as the network sees them, and what augmentation does to the boxes."""
    import json

    from detect.inspection.preview import PreviewOptions, open_preview
    from detect.report.preview_page import write_preview
    from detect.system.files import write_atomically

    parser = new_parser(
        "data preview", preview_command, "detect data preview data/birds --config birds.yaml --out p.html"
    )
    parser.add_argument("root", type=Path, help="folder of the data set: COCO, Pascal VOC or YOLO")
    parser.add_argument("--out", type=Path, required=True, help="the page to write")
    parser.add_argument("--json", type=Path | None, default=None, help="write the figures there")
    add_trust_argument(parser)
    parser.add_argument(
        "--anchors", action="store_true", help="draw the anchors that are positive for each box"
    )
    parser.add_class_arguments(PreviewOptions, None)
    config = parse(parser, args)
    for file in (config.out, config.json):
        require_writable(file, outside=config.root)
    options = PreviewOptions(**{name: config[name] for name in PreviewOptions._fields})
    preview = open_preview(config.root, options)
    write_preview(config.out, preview, epochs=options.epochs, anchors=config.anchors)
    if config.json is not None:
        write_atomically(config.json, json.dumps(preview.audit.to_json(), indent=1))
    counts = preview.audit.counts()
    print(f"{counts.kept / max(1, counts.shown):.1%} of the boxes are kept; page written to {config.out}")
    return 0


def split_command(args: list[str]) -> int:
    """Divide a data set's only split, or images with XML files, into training and validation."""
    from detect.data.checks.findings import summarise
    from detect.data.divide import DivideOptions, divide
    from detect.system.output_folder import ImagePlacement

    parser = new_parser("data split", split_command, "detect data split photos --out data/birds")
    parser.add_argument("source", type=Path, help="folder of a data set, or images with an XML file each")
    parser.add_argument("--out", type=Path, required=True, help="a new or empty folder outside of it")
    parser.add_argument("--split", type=str | None, default=None, help="which to divide; null: the only one")
    parser.add_argument("--val_share", type=float, default=0.2, help="share of the images for validation")
    parser.add_argument("--seed", type=int, default=0, help="another one gives another division")
    parser.add_argument(
        "--group",
        type=str,
        action="append",
        default=[],
        metavar="'cam1_*'",
        help="images whose names fit stay together; may be repeated",
    )
    parser.add_argument("--images", type=ImagePlacement, default="link", help="hard links, or copies")
    config = parse(parser, args)
    options = DivideOptions(config.val_share, config.seed, tuple(config.group), config.images)
    divided = divide(config.source, config.out, options, split=config.split)
    train, val = divided.sides.values()
    print(f"{train.images} images for training and {val.images} for validation in {config.out}\n{divided}")
    for line in divided.left_out:
        print(line)
    if divided.findings:
        print(f"left out:\n{summarise(divided.findings)}")
    print(f"next: detect init {config.out}")
    return 1 if divided.left_out or divided.findings else 0


def shapes_command(args: list[str]) -> int:
    """Make the built-in data set: shapes with exact boxes in a COCO folder; of style rich, a harder one."""
    from detect.data.synthetic.shapes import make_shapes

    parser = new_parser("data shapes", shapes_command, "detect data shapes data/shapes")
    parser.add_argument("output", type=Path, help="folder to write to; must not exist or be empty")
    parser.add_function_arguments(make_shapes, skip={"output"})
    config = parse(parser, args)
    output = config.output
    del config["output"]
    make_shapes(output, **config.as_dict())
    print(f"data set written to {output}")
    return 0


def download_command(args: list[str]) -> int:
    """Fetch a public data set from its official place, check it and unpack it."""
    from detect.data.public.download import download
    from detect.data.public.sets import DATA_SETS, DataSetName

    parser = new_parser("data download", download_command, "detect data download bccd data/bccd")
    parser.add_argument("name", type=DataSetName)
    parser.add_argument("output", type=Path, help="folder to write to; must not exist or be empty")
    parser.add_argument("--keep_archives", type=bool, default=False, help="leave OUTPUT.download in place")
    config = parse(parser, args)
    data_set = DATA_SETS[config.name]
    download(data_set, config.output, keep_archives=config.keep_archives)
    print(
        f"data set written to {config.output}; detect fit {data_set.use.replace('ROOT', str(config.output))}"
    )
    return 0


def profile_command(args: list[str]) -> int:
    """Time decoding, augmenting and collating apart, and name the setting that would help most."""
    import json
    from dataclasses import asdict

    from detect.config.unknown_keys import constructor_errors
    from detect.data.advice import best_change, decoded_gb
    from detect.data.datamodule import DetectionData
    from detect.data.profile import profile_dataset
    from detect.system.files import write_atomically

    parser = new_parser("data profile", profile_command, "detect data profile data/bccd --data.workers 4")
    parser.add_argument("root", type=Path, help="folder of the data set; its training split is read")
    parser.add_argument("--images", type=int, default=256, help="number of images to load")
    parser.add_class_arguments(DetectionData, "data", skip={"root", "seed", "resize_rule"})
    parser.add_argument("--json", type=Path | None, default=None, help="write the figures there")
    config = parse(parser, args)
    if config.images < 1:
        raise InputError(f"--images {config.images}: give 1 or more")
    require_writable(config.json, outside=config.root)
    with constructor_errors():
        data = parser.instantiate(config).data
    data.root = config.root
    data.open(("train",))
    dataset = data.train_dataloader().dataset
    measured = profile_dataset(dataset, data.total_batch_size, images=config.images)
    print(measured)
    change = best_change(measured, data.loader_settings(), decoded_gb=decoded_gb(dataset))
    print(f"what would help most: {change}")
    if config.json is not None:
        figures = asdict(measured) | {"images_per_s": measured.images_per_s, "advice": change}
        write_atomically(config.json, json.dumps(figures, indent=2) + "\n")
    return 0


DATA_COMMANDS: dict[str, Command] = {
    "check": check_command,
    "convert": convert_command,
    "split": split_command,
    "preview": preview_command,
    "profile": profile_command,
    "shapes": shapes_command,
    "download": download_command,
}
