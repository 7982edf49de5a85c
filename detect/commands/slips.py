"""What people type who know other tools, and what to type here: one table for all commands."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable, Iterable, Sequence

SLIPS: dict[str, tuple[str, ...]] = {
    "epoch epochs num_epochs n_epochs": ("--trainer.max_epochs {}",),
    "imgsz img img_size image_size input_size size": ("--model.image_size {square}",),
    "batch batch_size batchsize bs": ("--data.total_batch_size {}", "--batch_size {}", "--batch {}"),
    "lr lr0 learning_rate": ("--model.optimizer.lr {}",),
    "momentum": ("--model.optimizer.momentum {}",),
    "weight_decay wd": ("--model.optimizer.weight_decay {}",),
    "optimizer optim": ("--model.optimizer {}",),
    "warmup warmup_steps": ("--model.schedule.warmup_steps {}",),
    "patience": (
        "--trainer.callbacks+=EarlyStopping --trainer.callbacks.monitor val/mAP "
        "--trainer.callbacks.mode max --trainer.callbacks.patience {}",
    ),
    "device accelerator gpu": ("--trainer.{device}",),
    "devices gpus n_gpus": ("--trainer.devices {}",),
    "amp half fp16": ("--trainer.precision 16-mixed", "--precision {}"),
    "weights pretrained checkpoint ckpt model init": (
        *("--model.init_from {}", "--ckpt_path {}", "--model {}"),
    ),
    "resume": ("--ckpt_path last",),
    "backbone arch architecture": ("--model.backbone {}",),
    "nc num_classes": ("--model.num_classes {}",),
    "classes": ("--classes {}", "--model.num_classes {}"),
    "data dataset data_root data_dir root": ("--data.root {folder}",),
    "cfg conf_file configuration yaml": ("--config {}",),
    "workers num_workers": ("--data.workers {}",),
    "cache": ("--data.cache {}",),
    "seed": ("--seed_everything {}", "--seed {}"),
    "name project save_dir output_dir out_dir o": ("--out {}",),
    "conf conf_thres confidence threshold score": (
        *("--score_threshold {}", "--model.postprocess.score_threshold {}"),
    ),
    "iou iou_thres nms": ("--model.postprocess.nms_threshold {}",),
    "max_det": ("--model.postprocess.max_detections {}",),
    "input inputs image images source": ("--source {}",),
    "split": ("--data.val_split {}",),
    "anchors autoanchor auto_anchor model.anchors": ("--model.anchors auto",),
}
"""Names of other tools (lower case, `_` for `-`), and what says it here: the first that the command knows."""
NO_DEVICE = "a GPU is used where there is one; CUDA_VISIBLE_DEVICES= in front of the command hides it"
COMMAND_SLIPS = {
    "train": "fit",
    "finetune": "fit",
    "val": "validate",
    "test": "validate",
    "eval": "evaluate",
    "detect": "predict",
    "infer": "predict",
    "inference": "predict",
    "bench": "benchmark",
    "convert": "data convert",
    "check": "data check",
    "split": "data split",
    "preview": "data preview",
    "download": "data download",
    "resume": "fit",
}
"""Commands of other tools."""


def right_words(name: str, value: str | None, knows: Callable[[str], bool]) -> str | None:
    """What says here what an unknown option means elsewhere; None where nothing is known of it.

    Args:
        name: of the option, without dashes.
        value: that was given with it.
        knows: whether the command has an option.
    """
    plain = name.lower().replace("-", "_")
    for names, answers in SLIPS.items():
        if plain in names.split():
            for answer in answers:
                words = _filled(answer, value)
                if knows(words.split()[0].lstrip("-").partition("+")[0]):
                    return f"write {words}"
            if plain == "device":
                return NO_DEVICE
    return None


def nearest_command(name: str, commands: Iterable[str]) -> str | None:
    """The command that was probably meant."""
    meant = {**{command: command for command in commands}, **COMMAND_SLIPS}
    found = difflib.get_close_matches(name, list(meant), n=1)
    return meant[found[0]] if found else None


def _filled(answer: str, value: str | None) -> str:
    """The words of the table with the user's value."""
    if value is None:
        value = "VALUE"
    square = f"[{value},{value}]" if value.isdigit() else value
    folder = value.rpartition("/")[0] or "." if value.endswith((".yaml", ".yml")) else value
    index = value.removeprefix("cuda:")
    device = f"devices [{index}]" if index.replace(",", "").isdigit() else f"accelerator {value}"
    quoted = {"square": square, "folder": shlex.quote(folder), "device": device}
    return answer.format(shlex.quote(value), **quoted)


def nearest_class(value: str, names: Sequence[str]) -> str | None:
    """The class that a name without its exact spelling means: `mobilenet_v3_large` is MobileNetV3."""
    plain = {name.lower(): name for name in names}
    asked = value.lower().replace("_", "").replace("-", "")
    starts = [name for name in plain if asked.startswith(name) or name.startswith(asked)]
    found = starts or difflib.get_close_matches(asked, list(plain), n=1, cutoff=0.5)
    return plain[found[0]] if found else None


_DEVICES = """\
  --trainer.accelerator NAME       auto, cpu, cuda or mps
  --trainer.devices N              devices on this machine: a number, a list as [0,2], or auto
  --trainer.precision NAME         32-true; bf16-mixed or 16-mixed for less memory and time on a GPU
  --data.workers N                 loading processes per device; null: by the cores
"""
_RUN = """\
the run
  --out FOLDER                     of the run; null: runs/NAME-NNN
  --ckpt_path last|FILE            resume: `--out RUN --ckpt_path last`
  --seed_everything N              of weights, order and augmentation (0)
  --trust MODULE ...               your own classes: my_parts, or path/to/my_parts.py

"""
_FIT_HELP = f"""\
what to train
  --config FILE                    the configuration; may be given again, later ones win key by key
  --data.root FOLDER               the data set: COCO, Pascal VOC and YOLO are recognised
  --data.train_split NAME          its training split; null: train2017 or train
  --data.val_split NAME            its validation split; null: val2017, val, valid or test
  --model.init_from FILE|coco      a detector to start from, yours or the published one; any classes; starter:
                                   one that comes with the package
  --model.backbone NAME            MobileNetV1, MobileNetV2, MobileNetV3, MnasNetA1, or Timm for any of timm
  --model.backbone.weights FILE    weights of a classifier for it; imagenet: the published ones
  --model.anchors auto             anchors whose scales are fitted to the training boxes
  --model.image_size [H,W]         input in pixels (320 x 320); more finds smaller objects and takes longer

how long, how fast
  --trainer.max_epochs N           epochs (30)
  --data.total_batch_size N        images per optimizer step over all devices (32)
  --model.optimizer.lr NUMBER      learning rate for this batch
  --model.schedule.warmup_steps N  steps until the learning rate is reached
{_DEVICES}  --data.cache ram|disk            keep decoded images

{_RUN}Any value of the configuration can be given as `--section.key VALUE`:
  detect fit --help all            every option
  detect fit --model.loss.help MultiBoxLoss    settings of a class
  docs/configuration.md            every value with its meaning
"""
_PRETRAIN_HELP = f"""\
what to train
  --config FILE                    the configuration: configs/pretrain/, or your own
  --data.root FOLDER               images: train/NAME/* and val/NAME/*, a folder for each class
  --data.train_split NAME          the folder to train on; null: train
  --data.val_split NAME            the folder to validate on; null: val
  --data.licence TEXT              terms of the images, noted in the weights
  --model.backbone NAME            MobileNetV1, MobileNetV2, MobileNetV3, MnasNetA1
  --model.image_size [H,W]         input in pixels (224 x 224)
  --model.dropout SHARE            of the last layer's inputs (0.2)
  --model.label_smoothing SHARE    of each label (0.1)
  --model.mixup_alpha NUMBER       mix two images of a batch; 0: never
  --model.cutmix_alpha NUMBER      paste a part of one image into another; 0: never

how long, how fast
  --trainer.max_epochs N           epochs (30)
  --data.total_batch_size N        images per optimizer step over all devices (256)
  --model.optimizer.lr NUMBER      learning rate for this batch
{_DEVICES}  --data.cache ram|disk            keep decoded images

{_RUN}`detect fit --model.backbone.weights RUN/weights.safetensors` starts from it. Any value can be given:
  detect pretrain --help all       every option
  docs/pretraining.md              recipes, and what they are worth
"""
SHORT_HELP = {"fit": _FIT_HELP, "pretrain": _PRETRAIN_HELP}
"""By command: the options that most runs need; the list of all is four to ten times as long."""
