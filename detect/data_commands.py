"""The commands `detect data ...`."""

from __future__ import annotations

from pathlib import Path

from detect.arguments import Command, new_parser, parse


def shapes_command(args: list[str]) -> int:
    """Make the built-in data set: shapes with exact boxes in a COCO folder."""
    from detect.data.shapes import make_shapes

    parser = new_parser("data shapes", shapes_command, "detect data shapes data/shapes")
    parser.add_argument("output", type=Path, help="folder to write to; must not exist or be empty")
    parser.add_function_arguments(make_shapes, skip={"output"})
    config = parse(parser, args)
    output = config.output
    del config["output"]
    make_shapes(output, **config.as_dict())
    print(f"data set written to {output}")
    return 0


DATA_COMMANDS: dict[str, Command] = {"shapes": shapes_command}
