"""Everything around the network in numpy: what a program without torch has to do.

    detect export --ckpt_path best.ckpt --format onnx --form raw --out model.onnx
    python examples/numpy_detector.py model.onnx photo.jpg

Needs numpy, pillow and onnxruntime. Normalisation, (x / 255 - mean) / std, is the first step of the graph; a
port to a runtime that wants normalised input finds mean and std in the metadata.
"""

import json
import math
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

MAX_LOG_RATIO = math.log(1000 / 16)  # no box grows beyond 62.5 times its anchor


def load(path):
    """The session, and what the file says about itself."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session, json.loads(session.get_modelmeta().custom_metadata_map["detect"])


def resize(image, size, rule):
    """An RGB image stretched to (H, W) as (1, 3, H, W), by the rule that the network was trained with."""
    height, width = size
    if rule == "antialias":  # whole numbers 0..255
        pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    else:  # "torchvision": float32 0..255, bilinear without antialias, pixel centres at half
        pixels = np.asarray(image, dtype=np.float32)
        for axis, wanted in ((0, height), (1, width)):
            given = pixels.shape[axis]
            place = np.clip((np.arange(wanted) + 0.5) * given / wanted - 0.5, 0, given - 1)
            low = np.floor(place).astype(int)
            shape = [-1 if i == axis else 1 for i in range(3)]
            part = (place - low).astype(np.float32).reshape(shape)
            high = np.minimum(low + 1, given - 1)
            pixels = pixels.take(low, axis) * (1 - part) + pixels.take(high, axis) * part
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def decode(deltas, anchors, size):
    """(A, 4) centre shifts and log sizes relative to xyxy anchors, to xyxy boxes cut to the input."""
    anchor_size = anchors[:, 2:] - anchors[:, :2]
    centre = anchors[:, :2] + anchor_size / 2 + deltas[:, :2] * 0.1 * anchor_size
    half = np.exp(np.minimum(deltas[:, 2:] * 0.2, MAX_LOG_RATIO)) * anchor_size / 2
    return np.clip(np.concatenate([centre - half, centre + half], axis=1), 0, [*size[::-1]] * 2)


def score(logits, activation):
    """(A, K + 1) logits to (A, K) scores; column 0 is background."""
    if activation == "sigmoid":
        return 1 / (1 + np.exp(-logits[:, 1:]))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers[:, 1:] / powers.sum(axis=1, keepdims=True)


def overlap(box, boxes):
    """Intersection over union of one xyxy box with (N, 4)."""
    sides = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = np.clip(sides, 0, None).prod(axis=1)
    union = (box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) - shared
    return shared / np.maximum(union, np.finfo(np.float32).tiny)


def detect(session, meta, image):
    """Boxes (D, 4) xyxy px of the image, scores (D,) and labels (D,) 1..K, best first."""
    image = ImageOps.exif_transpose(image).convert("RGB")
    size, limits = meta["input"]["image_size"], meta["postprocess"]
    images = resize(image, size, meta["input"]["resize_rule"])
    logits, deltas = session.run(["cls_logits", "box_deltas"], {"images": images})
    scores = score(logits[0], limits["score_activation"])
    boxes = decode(deltas[0], np.array(meta["export"]["anchors"], dtype=np.float32), size)
    if limits["topk_per_class"]:
        scores = np.where(scores >= -np.sort(-scores, axis=0)[: limits["topk_per_class"]][-1], scores, 0)
    rows, columns = np.nonzero(scores > limits["score_threshold"])
    order = np.argsort(-scores[rows, columns], kind="stable")[: limits["topk_candidates"]]
    kept = []
    for row, column in zip(rows[order], columns[order], strict=True):  # greedy NMS within each class
        same = [other for other, label in kept if label == column]
        if not same or overlap(boxes[row], boxes[same]).max() <= limits["nms_threshold"]:
            kept.append((row, column))
        if len(kept) == limits["max_detections"]:
            break
    rows, columns = np.array(kept, dtype=int).reshape(-1, 2).T
    scale = np.array([image.width / size[1], image.height / size[0]] * 2)
    return boxes[rows] * scale, scores[rows, columns], columns + 1


if __name__ == "__main__":
    model, description = load(sys.argv[1])
    for box, certainty, label in zip(*detect(model, description, Image.open(sys.argv[2])), strict=True):
        print(f"{description['classes'][label - 1]['name']:20} {certainty:.3f} {np.round(box, 1).tolist()}")
