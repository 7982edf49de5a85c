"""`detect convert-weights`: detectors of torchvision and TensorFlow, in and out.

Nothing that takes time to import is imported above the functions: `detect --help` shows their docstrings.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from detect.commands.arguments import add_trust_argument, new_parser, parse
from detect.errors import InputError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def convert_weights_command(args: list[str]) -> int:
    """Turn a detector of torchvision or TensorFlow into a checkpoint of detect; torchvision's also back."""
    config = parse(convert_weights_parser(), args)
    files = list(config.files)
    source = files.pop(0) if config.to == "detect" and files[0] in ("torchvision", "tensorflow") else None
    if config.to == "detect" and source is None:
        raise InputError(
            "detect convert-weights: say where the file is from: `torchvision IN.pth OUT.ckpt` or "
            "`tensorflow IN.pb OUT.ckpt`"
        )
    if len(files) != 2:
        raise InputError(f"detect convert-weights: expected IN and OUT, got {' '.join(files) or 'nothing'}")
    convert(source, Path(files[0]), Path(files[1]), config)
    print(f"written to {files[1]}")
    return 0


def convert(source_library: str | None, source: Path, target: Path, config: Namespace) -> None:
    """One conversion, by the options of `convert_weights_parser`."""
    from detect.model.checkpoint import write_checkpoint
    from detect.model.tensorflow.files import read_labels
    from detect.model.weights import convert_weights, import_tensorflow

    if config.labels is not None and config.class_names is not None:
        raise InputError("give --class_names or --labels, one of them")
    names = config.class_names if config.labels is None else read_labels(config.labels)
    if source_library == "tensorflow":
        content = import_tensorflow(source, class_names=names, image_size=config.image_size)
        write_checkpoint(target, content)
        height, width = content["detect"]["input"]["image_size"]
        print(f"{len(content['detect']['classes'])} class(es), input {height}x{width} px (height x width)")
    elif config.image_size is not None:
        raise InputError("--image_size is for files of TensorFlow; torchvision's SSDLite has 320x320")
    else:
        convert_weights(source, target, to=config.to, class_names=names)


def convert_weights_parser() -> ArgumentParser:
    """The options of `detect convert-weights`."""
    parser = new_parser(
        "convert-weights",
        convert_weights_command,
        "detect convert-weights torchvision model.pth model.ckpt; "
        "detect convert-weights tensorflow frozen_inference_graph.pb model.ckpt; "
        "detect convert-weights --to torchvision best.ckpt model.pth",
    )
    add_trust_argument(parser)
    parser.add_argument("--to", type=Literal["detect", "torchvision"], default="detect", help="what to write")
    parser.add_argument(
        "--class_names",
        type=list[str] | None,
        default=None,
        help="of an import, without background; null: COCO's for 90 classes, else numbered",
    )
    parser.add_argument(
        "--labels", type=Path | None, default=None, help="the same as a label map (.pbtxt) or a line per name"
    )
    parser.add_argument(
        "--image_size",
        type=tuple[int, int] | None,
        default=None,
        help="[H, W] of a file of TensorFlow that does not say it; null: as published, 300x300 or 320x320",
    )
    parser.add_argument(
        "files",
        type=str,
        nargs="+",
        metavar="[torchvision|tensorflow] IN OUT",
        help="IN of tensorflow: a frozen graph (.pb), a checkpoint (model.ckpt) or a float .tflite",
    )
    return parser
