"""`python -m detect COMMAND ...`; the console script `detect` is the same."""

import os
import signal
import sys

from detect.commands.main import main


def run() -> None:
    """Entry point of the console script."""
    try:
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; Python would complain at its end that it cannot write.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 128 + signal.SIGPIPE
    sys.exit(code)


if __name__ == "__main__":
    run()
