"""The version of what a checkpoint or an exported file says about itself, and the way up from older ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detect.config.renames import renamed, without_idle_settings
from detect.errors import InputError

if TYPE_CHECKING:
    from detect.model.backbones import Backbone
    from detect.types import ClassMap

FORMAT_VERSION = 2
"""Raised when the keys of `TorchDetector.describe` or the names of weights change in a way that an older
file does not fit; the step from the version before goes into MIGRATIONS in the same commit, and
`python -m tests.make_checkpoint` makes the file that proves that the new version stays readable."""


def describe_network(
    what: str,
    backbone: Backbone,
    classes: ClassMap | None,
    *,
    model: dict[str, Any],
    input: dict[str, Any],
) -> dict[str, Any]:
    """What a checkpoint must say of any network so that it can be used alone: plain values only.

    Args:
        what: "detector" or "classifier", for the message.
        backbone: of the network.
        classes: the meaning of each label.
        model: arguments that build the network.
        input: size, mean and std, and what else an image needs.

    Raises:
        InputError: the network does not know its classes yet.
    """
    if classes is None:
        raise InputError(f"this {what} knows no classes yet: train it, or load it from a checkpoint")
    return {
        "format_version": FORMAT_VERSION,
        "model": model,
        "weights_origin": backbone.weights_origin,
        "classes": classes.to_list(),
        "input": input,
    }


Migration = Callable[[dict[str, Any]], dict[str, Any]]


def _name_the_detector(content: dict[str, Any]) -> dict[str, Any]:
    """1 -> 2: the weights are those of `detector` in the module that trains it; class paths moved.

    Settings that did nothing are gone.
    """
    content = {**content, "detect": without_idle_settings(renamed(content["detect"]), any_value=True)}
    for key in ("state_dict", "current_model_state"):  # the second: raw weights beside averaged ones
        if key in content:
            weights = content[key].items()
            content[key] = {
                f"detector.{name}" if name.startswith("net.") else name: value for name, value in weights
            }
    if "run" in content:
        content["run"] = without_idle_settings(renamed(content["run"]), any_value=True)
    return content


MIGRATIONS: dict[int, Migration] = {1: _name_the_detector}
"""From version n to n + 1: a function of the whole checkpoint (`detect` is the description, `state_dict` the
weights; an exported file has only `detect`). It returns a new dictionary and leaves the given one alone."""


def migrate(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Bring what was read from a file to FORMAT_VERSION, one version at a time.

    Args:
        content: a checkpoint as torch.load gives it, or {"detect": description} of an exported file.
        path: the file, for the message.

    Raises:
        InputError: it has no version, or one of a newer detect.
    """
    version = content["detect"].get("format_version")
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise InputError(
            f"{path}: format version {version!r}; this detect reads 1 up to {FORMAT_VERSION}; for a higher "
            f"one use a newer detect"
        )
    for step in range(version, FORMAT_VERSION):
        content = MIGRATIONS[step](content)
        content["detect"] = {**content["detect"], "format_version": step + 1}
    return content
