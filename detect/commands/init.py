"""`detect init`: a first configuration for a folder of images with boxes."""

from __future__ import annotations

from pathlib import Path

from detect.commands.arguments import new_parser, parse
from detect.errors import InputError
from detect.system.files import require_writable, write_atomically


def init_command(args: list[str]) -> int:
    """Look at a data set and at this machine, and write a configuration that `detect fit` takes as it is."""
    from detect.inspection.first_config import Budget, choose_splits, first_config
    from detect.inspection.first_config_text import config_text, summary

    parser = new_parser("init", init_command, "detect init data/birds --for phone")
    parser.add_argument("root", type=Path, help="folder of the data set: COCO, Pascal VOC or YOLO")
    parser.add_argument("--for", type=Budget, default="laptop", help="what the detector is to run on")
    parser.add_argument(
        "--start",
        type=str,
        default="auto",
        metavar="coco|imagenet|starter|none|CKPT",
        help="what the training starts from; auto: the first of these that can be had for the budget",
    )
    parser.add_argument("--data.train_split", type=str | None, default=None, help="null: train2017 or train")
    parser.add_argument(
        "--data.val_split", type=str | None, default=None, help="null: val2017, val, valid or test"
    )
    parser.add_argument(
        "--out", type=Path | None, default=None, help="a new file; null: the folder's name, here"
    )
    config = parse(parser, args)
    path = config.out or Path(f"{config.root.absolute().name}.yaml")
    if path.suffix not in (".yaml", ".yml"):
        raise InputError(f"--out {path}: a configuration ends with .yaml")
    if path.exists():
        raise InputError(f"{path} exists and is never overwritten: give another --out, or move it away")
    require_writable(path, outside=config.root)
    splits = choose_splits(config.root, config.data.train_split, config.data.val_split)
    budget: Budget = config["for"]
    chosen = first_config(config.root, splits, budget=budget, start=config.start)
    write_atomically(path, config_text(chosen, path))
    print("\n".join(summary(chosen, path)))
    return 0
