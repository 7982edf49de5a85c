"""`model.anchors: auto`: what stands in its place before a run is built, and the sentence that says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from detect.data.annotations import Annotations
from detect.inspection.anchor_advice import choose_scales
from detect.inspection.anchor_layout import MATCH_IOU, AnchorLayout, has_auto
from detect.model.anchors import even_scales
from detect.model.checkpoint import read_checkpoint, without_weights
from detect.model.configurable import plain
from detect.training.resume import Resume


class SettledAnchors(NamedTuple):
    """What "auto" became."""

    values: dict[str, Any]
    """Of `model.anchors`, plain numbers; those that are not here stay as they are."""
    sentence: str


def settle_anchors(
    model: dict[str, Any], train: Annotations, *, resume: Resume | None
) -> SettledAnchors | None:
    """Numbers for scales that are "auto"; None where they are not.

    A resumed run keeps its checkpoint's, and a detector to start from those that it has learnt, with their
    style and ratios: its heads fit no others. Else they are fitted to the training boxes.

    Args:
        model: plain values of a `model:` section.
        train: the training split.
        resume: the checkpoint of a resumed run.

    Raises:
        InputError: the detector to start from is no checkpoint of ours.
    """
    if not has_auto(model):
        return None
    if resume is not None:
        saved = resume.config["model"]["anchors"]
        values = saved if model.get("init_from") else {"scales": saved["scales"]}
        return _settled(values, f"{_described(saved)}, as in {resume.path}")
    if model["anchors"]["style"] == "points":
        return _settled({"scales": None}, "anchors of style points have no scales, so nothing is fitted")
    layout = AnchorLayout.of_settings(without_weights(model))
    if (start := model.get("init_from")) is None:
        return _fitted(train, layout)
    theirs = AnchorLayout.of_settings(without_weights(read_checkpoint(Path(start)).description["model"]))
    if theirs.strides != layout.strides or theirs.config.style == "points":
        return _fitted(train, layout, why=f"{start} has other maps, so its anchors do not fit; ")
    values = plain(theirs.config)
    values["scales"] = values["scales"] or even_scales(theirs.strides)
    return _settled(values, f"{_described(values)}, which {start} has learnt")


def _fitted(train: Annotations, layout: AnchorLayout, *, why: str = "") -> SettledAnchors:
    chosen = choose_scales(train, layout)
    scales, recall = chosen.numbers, f"anchor recall at IoU {MATCH_IOU}, mean of the classes"
    if chosen.layout.config.scales is None:
        said = f"the usual scales {scales} stay; {recall}: {chosen.share:.1%} before and after"
    else:
        said = (
            f"scales {scales} from the training boxes; {recall}: {chosen.usual:.1%} with the usual scales, "
            f"{chosen.share:.1%} with these"
        )
    return _settled({"scales": scales}, why + said)


def _settled(values: dict[str, Any], said: str) -> SettledAnchors:
    return SettledAnchors(values, f"model.anchors auto: {said}")


def _described(anchors: dict[str, Any]) -> str:
    scales = "the usual scales" if anchors["scales"] is None else f"scales {anchors['scales']}"
    return f"style {anchors['style']}, {scales}"
