"""The one exception that means: the user can mend this."""


class InputError(ValueError):
    """Something that the user gave is wrong.

    The message names the file, the place and the fix; the command line prints it without a traceback and
    exits with 2. Any other exception is a mistake of ours and keeps its traceback.
    """
