"""Exceptions with a message for the user: no traceback is printed for them."""

import errno

EXIT_STOPPED = 3
"""Of a command that ended before its end, with everything saved that can be saved."""
DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The system's words for no more room."""


class InputError(ValueError):
    """Something that the user gave is wrong.

    The message names the file, the place and the fix; the command line prints it without a traceback and
    exits with 2. Any other exception is a mistake of ours and keeps its traceback.
    """


class RunStopped(Exception):
    """A command that ended before its end, with everything saved that can be saved.

    The command line prints the message without a traceback and exits with `exit_code`.
    """

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def install_hint(extra: str = "") -> str:
    """What installs an extra, or all that is always needed, from the project's folder.

    On package indexes, `detect` is another project.
    """
    project = f"'.[{extra}]'" if extra else "."
    return f"`pip install --editable {project}` in the folder of this project installs it"
