"""What a block search may choose: for each stage of a network and for the whole of it, and what that builds.

A stage is the blocks of one output width, as in the papers. Source of the choices: MnasNet (arXiv 1807.11626)
section 4, kernel, expansion, squeeze-and-excite and repeats of each stage; nonlinearity from MobileNetV3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from detect.errors import InputError
from detect.model.blocks import make_divisible
from detect.types import INPUT_SIZE

Choice = str | int | float | bool
Params = dict[str, Choice]
"""One choice by name: stage2.kernel, width, image_size."""

START = "start"
"""As in the network that the search starts from, block by block."""
EXPANSION = "expansion"
EXPANDED, OUT, STRIDE = 1, 2, 5
"""Columns of a row."""
OF_STAGE: dict[int, tuple[str, tuple[Choice, ...]]] = {
    0: ("kernel", (3, 5)),
    EXPANDED: (EXPANSION, (2, 3, 4, 6)),
    3: ("squeeze", (False, True)),
    4: ("nonlinearity", ("RE", "HS")),
}
"""What a stage chooses, by the column of its rows; expansions are times the channels that a block reads."""
WIDTHS = (0.5, 0.65, 0.8, 1.0, 1.25)
"""Multipliers on every channel count."""
SIZES = (0.7, 0.8, 0.9, 1.0)
"""Of the sides of the input, which stay multiples of `SIZE_STEP`."""
SIZE_STEP = 32


class Space:
    """The choices around one network.

    Args:
        stated: a `model:` section that states every width, see `widths.explicit`.
    """

    def __init__(self, stated: dict[str, Any]) -> None:
        self.stated = stated
        self.stages = _stages(stated["backbone"]["init_args"]["rows"])
        self.choices: dict[str, tuple[Choice, ...]] = {}
        """By name, in the order in which they are drawn."""
        self.start: Params = {}
        """The network that the search starts from."""
        for number, rows in enumerate(self.stages, 1):
            for place, (name, choices) in OF_STAGE.items():
                given = {row[place] for row in rows}
                own = given.pop() if len(given) == 1 and name != EXPANSION else START
                self._add(f"stage{number}.{name}", choices, own)
            count = len(rows)
            self._add(f"stage{number}.repeats", sorted({max(1, count - 1), count, count + 1}), count)
        self._add("width", WIDTHS, 1.0)
        self.sizes = {_text(size): size for size in _sizes(stated.get("image_size") or INPUT_SIZE)}
        self._add("image_size", [*self.sizes], [*self.sizes][-1])

    def _add(self, name: str, choices: Sequence[Choice], start: Choice) -> None:
        self.choices[name] = tuple(dict.fromkeys((*choices, start)))
        self.start[name] = start

    def draw(self, suggest: Callable[[str, Sequence[Choice]], Any]) -> Params:
        """One choice of each, by a function such as `Trial.suggest_categorical`."""
        return {name: suggest(name, choices) for name, choices in self.choices.items()}

    def network(self, params: Mapping[str, Choice]) -> dict[str, Any]:
        """The `model:` section of some choices, every width stated.

        Raises:
            InputError: a choice is missing or not one of this space.
        """
        for name, choices in self.choices.items():
            if name not in params or params[name] not in choices:
                raise InputError(f"{name} is {params.get(name)}; the search space has {list(choices)}")
        width = float(params["width"])
        stated = deepcopy(self.stated)
        arguments = stated["backbone"]["init_args"]
        arguments["stem"] = channels = _scaled(arguments["stem"], width)
        arguments["rows"] = []
        for number, rows in enumerate(self.stages, 1):
            for i in range(int(params[f"stage{number}.repeats"])):
                row = list(rows[min(i, len(rows) - 1)])
                row[EXPANDED], row[OUT] = _scaled(row[EXPANDED], width), _scaled(row[OUT], width)
                for place, (name, _) in OF_STAGE.items():
                    chosen = params[f"stage{number}.{name}"]
                    if chosen != START:
                        row[place] = int(chosen) * channels if name == EXPANSION else chosen
                row[STRIDE] = row[STRIDE] if i == 0 else 1
                channels = row[OUT]
                arguments["rows"].append(row)
        if "last" in arguments:
            arguments["last"] = _scaled(arguments["last"], width)
        if stated.get("neck") is not None and "channels" in stated["neck"]["init_args"]:
            stated["neck"]["init_args"]["channels"] = _scaled(stated["neck"]["init_args"]["channels"], width)
        stated["extra_levels"] = [
            [_scaled(mid, width), _scaled(out, width)] for mid, out in stated["extra_levels"]
        ]
        stated["image_size"] = self.sizes[str(params["image_size"])]
        return stated


def _scaled(channels: int, width: float) -> int:
    return channels if width == 1.0 else make_divisible(channels * width)


def _stages(rows: Sequence[Any]) -> list[list[Any]]:
    """Neighbouring rows of one output; a stride of 2 begins another stage."""
    stages: list[list[Any]] = []
    for row in rows:
        if stages and stages[-1][-1][2] == row[2] and row[-1] == 1:
            stages[-1].append(row)
        else:
            stages.append([row])
    return stages


def _sizes(image_size: Sequence[int]) -> list[list[int]]:
    """Sizes of the input, the given one last."""
    full = [int(side) for side in image_size]
    sizes = [
        tuple(max(SIZE_STEP, round(side * share / SIZE_STEP) * SIZE_STEP) for side in full) for share in SIZES
    ]
    return [*(list(size) for size in dict.fromkeys(sizes) if list(size) != full), full]


def _text(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
