"""The one command line. A command is a function of its arguments that returns the exit code.

0 done; 1 done with findings or skipped files; 2 wrong usage or input; 3 stopped; 130 and 143 interrupted.
"""

from __future__ import annotations

import errno
import sys
import warnings

from detect.commands.arguments import Command, trust_modules
from detect.commands.convert_weights import convert_weights_command
from detect.commands.data import DATA_COMMANDS
from detect.commands.detectors import (
    benchmark_command,
    evaluate_command,
    export_command,
    models_command,
    predict_command,
    thresholds_command,
    validate_command,
)
from detect.commands.init import init_command
from detect.commands.latency_budget import latency_table_command, search_command
from detect.commands.options import HELP, asks_for_help, check_words, help_text, in_todays_words
from detect.commands.runs import (
    compare_command,
    fit_command,
    pretrain_command,
    replay_command,
    report_command,
    reproduce_command,
    sweep_command,
)
from detect.commands.slips import nearest_command
from detect.config.renames import accept_old_class_paths, renamed_arguments
from detect.errors import DISK_IS_FULL, EXIT_STOPPED, InputError, RunStopped, install_hint

EXIT_INPUT = 2
EXIT_INTERRUPTED = 130
PLACE_ERRORS = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    *(errno.ENAMETOOLONG, errno.ELOOP),
)
"""Of a file that is named: the user can repair them, and its name says more than a traceback."""
PACKAGES = (
    *("torch", "torchvision", "lightning", "matplotlib"),
    *("pycocotools", "faster_coco_eval", "safetensors", "jinja2"),
)
"""Of the project that are left out where exported files are used alone (requirements/predict.txt)."""

COMMANDS: dict[str, Command] = {
    "init": init_command,
    "fit": fit_command,
    "pretrain": pretrain_command,
    "validate": validate_command,
    "thresholds": thresholds_command,
    "predict": predict_command,
    "export": export_command,
    "benchmark": benchmark_command,
    "latency-table": latency_table_command,
    "evaluate": evaluate_command,
    "report": report_command,
    "compare": compare_command,
    "sweep": sweep_command,
    "search": search_command,
    "reproduce": reproduce_command,
    "models": models_command,
    "replay": replay_command,
    "convert-weights": convert_weights_command,
}


def all_commands() -> dict[str, Command]:
    """Every command by its whole name."""
    return {**COMMANDS, **{f"data {name}": command for name, command in DATA_COMMANDS.items()}}


def usage(group: str = "") -> str:
    """The list of commands, or of those whose name begins with `group`."""
    lines = [f"usage: detect {group}COMMAND ...    (every command has --help)", ""]
    lines += [
        f"  {name:<16}{(command.__doc__ or '').splitlines()[0]}"
        for name, command in all_commands().items()
        if name.startswith(group)
    ]
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Run one command; returns its exit code."""
    if not argv or argv[0] in HELP:
        print(usage())
        return 0 if argv else EXIT_INPUT
    words = 2 if argv[0] == "data" else 1
    name, rest = " ".join(argv[:words]), argv[words:]
    if argv[0] == "data" and (len(argv) < words or argv[1] in HELP):
        print(usage("data "))
        return 0 if rest or argv[1:] else EXIT_INPUT
    command = all_commands().get(name)
    if command is None:
        nearest = nearest_command(name, all_commands())
        hint = f"; the nearest is `detect {nearest}`" if nearest else ""
        print(f"detect: unknown command {name!r}{hint}\n\n{usage()}", file=sys.stderr)
        return EXIT_INPUT
    try:
        rest = in_todays_words(name, rest)
        if asks_for_help(rest):
            print(help_text(name, (command.__doc__ or "").strip(), everything="all" in rest))
            return 0
        check_words(name, rest)
        return run(command, rest)
    except InputError as error:
        print(f"detect: {error}", file=sys.stderr)
        return EXIT_INPUT
    except RunStopped as stopped:
        print(f"detect: {stopped}", file=sys.stderr)
        return stopped.exit_code
    except KeyboardInterrupt:
        print("detect: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except ModuleNotFoundError as error:
        if error.name not in PACKAGES:
            raise
        needs = f"`detect {name}` needs the package {error.name}, which is not installed"
        print(f"detect: {needs}: {install_hint()}", file=sys.stderr)
        return EXIT_INPUT
    except OSError as error:
        if error.errno not in (*DISK_IS_FULL, *PLACE_ERRORS) or error.filename is None:
            raise
        print(f"detect: {error.filename}: {error.strerror}", file=sys.stderr)
        return EXIT_STOPPED if error.errno in DISK_IS_FULL else EXIT_INPUT


def run(command: Command, args: list[str]) -> int:
    """Run a command in a process that is set up for it."""
    from detect.system.memory import keep_freed_memory

    accept_old_class_paths()
    keep_freed_memory()
    # From Pillow, without the file's name; `data check` names it, and what is twice as large is refused.
    warnings.filterwarnings("ignore", r"Image size \(\d+ pixels\) exceeds limit", RuntimeWarning)
    trust_modules(args)
    return command(renamed_arguments(args))
