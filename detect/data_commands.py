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


def download_command(args: list[str]) -> int:
    """Fetch a public data set from its official place, check it and unpack it."""
    from detect.data.download import download
    from detect.data.public_sets import DATA_SETS, DataSetName

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


DATA_COMMANDS: dict[str, Command] = {"shapes": shapes_command, "download": download_command}
