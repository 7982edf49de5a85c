"""`python -m detect COMMAND ...`; the console script `detect` is the same."""

import sys

from detect.commands.main import main


def run() -> None:
    """Entry point of the console script."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
