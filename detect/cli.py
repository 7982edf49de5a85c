"""The one command line. A command is a function of its arguments that returns the exit code.

0 done; 1 done with findings or skipped files; 2 wrong usage or input; 3 stopped; 130 and 143 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentError, ArgumentParser

from detect.errors import InputError

EXIT_INPUT = 2
EXIT_INTERRUPTED = 130

Command = Callable[[list[str]], int]


def fit_command(args: list[str]) -> int:
    """Train a detector, validate it each epoch, keep the best and the last checkpoint."""
    from detect.fit import fit

    return fit(args)


def validate_command(args: list[str]) -> int:
    """Score a checkpoint on a data set."""
    from detect.data.datamodule import DetectionData
    from detect.validate import validate

    parser = new_parser("validate", "detect validate --ckpt_path runs/a/checkpoints/best.ckpt --data.root D")
    parser.add_argument("--ckpt_path", type=Path, required=True, help="checkpoint of detect")
    parser.add_class_arguments(DetectionData, "data", skip={"image_size", "resize_rule"})
    parser.add_argument("--backend", type=Literal["faster", "pycocotools"], default="faster")
    parser.add_argument("--json", type=Path | None, default=None, help="write the metrics there")
    config = parse(parser, args)
    return validate(config.ckpt_path, config.data.as_dict(), backend=config.backend, json_file=config.json)


def predict_command(args: list[str]) -> int:
    """Detect objects in images, folders and globs; write pictures and detections.json."""
    from detect.predict import predict

    parser = new_parser("predict", "detect predict --ckpt_path best.ckpt --source photos --output out")
    parser.add_argument("--ckpt_path", type=Path, required=True, help="checkpoint of detect")
    parser.add_argument("--source", type=str, nargs="+", required=True, help="images, folders or globs")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--score_threshold", type=float, default=0.3, help="draw and list only better ones")
    config = parse(parser, args)
    return predict(
        config.ckpt_path, config.source, output=config.output, score_threshold=config.score_threshold
    )


def report_command(args: list[str]) -> int:
    """Write RUN/report.html for a run that is finished, stopped or broken."""
    from detect.report.write import report

    parser = new_parser("report", "detect report runs/bccd-001")
    parser.add_argument("run", type=Path, help="run folder")
    return report(parse(parser, args).run)


def evaluate_command(args: list[str]) -> int:
    """Score a results file against annotations; no model is involved."""
    from detect.evaluate import evaluate

    parser = new_parser("evaluate", "detect evaluate --annotations instances_val.json --detections d.json")
    parser.add_argument("--annotations", type=Path, required=True, help="ground truth in COCO's format")
    parser.add_argument("--detections", type=Path, required=True, help="detections in COCO's results format")
    parser.add_argument("--backend", type=Literal["faster", "pycocotools"], default="faster")
    parser.add_argument("--json", type=Path | None, default=None, help="write the metrics there")
    config = parse(parser, args)
    return evaluate(config.annotations, config.detections, backend=config.backend, json_file=config.json)


def models_command(args: list[str]) -> int:
    """List every detector in configs/ with its counts beside the paper's."""
    from detect.models import list_models

    parser = new_parser("models", "detect models --json models.json")
    parser.add_argument("--json", type=Path | None, default=None, help="write the list there")
    config = parse(parser, args)
    return list_models(json_file=config.json)


def convert_weights_command(args: list[str]) -> int:
    """Turn torchvision's ssdlite320_mobilenet_v3_large into a checkpoint of detect, or back."""
    from detect.weights import convert_weights

    parser = new_parser(
        "convert-weights",
        "detect convert-weights torchvision model.pth model.ckpt; "
        "detect convert-weights --to torchvision best.ckpt model.pth",
    )
    parser.add_argument("--to", type=Literal["detect", "torchvision"], default="detect", help="what to write")
    parser.add_argument(
        "--class_names",
        type=list[str] | None,
        default=None,
        help="of an import, without background; null: COCO's for 90 classes, else numbered",
    )
    parser.add_argument("files", type=str, nargs="+", metavar="[torchvision] IN OUT")
    config = parse(parser, args)
    files = list(config.files)
    if config.to == "detect" and files[0] == "torchvision":
        files.pop(0)
    elif config.to == "detect":
        raise InputError("detect convert-weights: say where the file is from: `torchvision IN.pth OUT.ckpt`")
    if len(files) != 2:
        raise InputError(f"detect convert-weights: expected IN and OUT, got {' '.join(files) or 'nothing'}")
    source, target = (Path(file) for file in files)
    convert_weights(source, target, to=config.to, class_names=config.class_names)
    print(f"written to {target}")
    return 0


def shapes_command(args: list[str]) -> int:
    """Make the built-in data set: shapes with exact boxes in a COCO folder."""
    from detect.data.shapes import make_shapes

    parser = new_parser("data shapes", "detect data shapes data/shapes")
    parser.add_argument("output", type=Path, help="folder to write to; must not exist or be empty")
    parser.add_function_arguments(make_shapes, skip={"output"})
    config = parse(parser, args)
    output = config.output
    del config["output"]
    make_shapes(output, **config.as_dict())
    print(f"data set written to {output}")
    return 0


COMMANDS: dict[str, Command] = {
    "fit": fit_command,
    "validate": validate_command,
    "predict": predict_command,
    "evaluate": evaluate_command,
    "report": report_command,
    "models": models_command,
    "convert-weights": convert_weights_command,
}
DATA_COMMANDS: dict[str, Command] = {"shapes": shapes_command}


def new_parser(command: str, example: str) -> ArgumentParser:
    """A parser whose help shows what the command does and an example."""
    function = DATA_COMMANDS.get(command.removeprefix("data "), COMMANDS.get(command))
    assert function is not None
    return ArgumentParser(
        prog=f"detect {command}",
        description=f"{function.__doc__} Example: {example}",
        exit_on_error=False,
    )


def parse(parser: ArgumentParser, args: list[str]):  # type: ignore[no-untyped-def]
    """Parse or raise InputError with one clear message."""
    try:
        return parser.parse_args(args)
    except ArgumentError as error:
        raise InputError(f"{parser.prog}: {error}") from error


def usage() -> str:
    """The list of commands."""
    lines = ["usage: detect COMMAND ...    (every command has --help)", ""]
    named = [*COMMANDS.items(), *((f"data {name}", command) for name, command in DATA_COMMANDS.items())]
    lines += [f"  {name:<16}{(command.__doc__ or '').splitlines()[0]}" for name, command in named]
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Run one command; returns its exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print(usage())
        return 0 if argv else EXIT_INPUT
    commands, name, rest = COMMANDS, argv[0], argv[1:]
    if name == "data" and rest:
        commands, name, rest = DATA_COMMANDS, rest[0], rest[1:]
    if name not in commands:
        print(f"detect: unknown command {' '.join(argv[:2])!r}\n\n{usage()}", file=sys.stderr)
        return EXIT_INPUT
    try:
        return commands[name](rest)
    except InputError as error:
        print(f"detect: {error}", file=sys.stderr)
        return EXIT_INPUT
    except KeyboardInterrupt:
        print("detect: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
