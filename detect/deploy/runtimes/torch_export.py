"""What every export through torch needs: silence, and one line instead of thousands when it fails."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

from detect.errors import InputError


@contextlib.contextmanager
def torch_export_errors(target: str) -> Iterator[None]:
    """Keep an exporter quiet, and turn the thousands of lines of its failure into the one that matters.

    Raises:
        InputError: the export failed.
    """
    try:
        with (
            quiet_logging("torch.onnx"),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"torch could not export this network to {target}: {innermost_reason(error)}"
        ) from error


@contextlib.contextmanager
def quiet_logging(name: str) -> Iterator[None]:
    """Let a package log errors alone for a while; "root" is the logger above all."""
    logger = logging.getLogger(None if name == "root" else name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def innermost_reason(error: BaseException) -> str:
    """The first line of the exception that started a chain, with its type."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
