"""RUN/nan: the step that was not finite, written so that it can be done again, and doing it again."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from detect.data.annotations import Annotations
from detect.data.dataset import DetectionDataset, SampleKey
from detect.data.sampler import TrainLoader
from detect.errors import InputError
from detect.model.checkpoint import checkpoint_content, read_checkpoint, write_checkpoint
from detect.system.files import write_atomically
from detect.training.build import module_from_checkpoint
from detect.training.classification import classification_module_from_checkpoint
from detect.training.distillation import DistillationConfig, load_teacher
from detect.training.losses import LossTerms
from detect.training.module import DetectionModule
from detect.training.run_module import RunModule, draws_of_batch
from detect.training.run_state import data_of, steps_per_epoch, train_loader
from detect.types import Batch, Target

TEACHER_FILE = "teacher.ckpt"
AUTOCAST_DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
IMAGES_IN_MESSAGE = 3


def write_nan_report(trainer: L.Trainer, module: RunModule, folder: Path, *, step: int) -> str:
    """Write weights, batches and report.json of a step, and a teacher; returns what to tell the user.

    Order and augmentation are a function of seed, epoch and image, so the batches of all ranks are made anew
    here, however long ago they were. Weights stand still since that step.

    Args:
        trainer: that was stopped.
        module: with the weights that met the step.
        folder: RUN/nan.
        step: number of the optimizer step, from 0.
    """
    data = data_of(trainer)
    loader = train_loader(trainer)
    epoch, step_of_epoch = divmod(step, steps_per_epoch(trainer))
    keys = list(keys_of_step(loader, epoch=epoch, step=step_of_epoch))
    batches = [loader.collate_fn([loader.dataset[key] for key in part]) for part in keys]
    together = [key for part in keys for key in part]
    # Batches of one forward pass stand together, rank by rank.
    places = [divmod(number, trainer.world_size) for number in range(len(batches))]
    first = step_of_epoch * trainer.accumulate_grad_batches
    draws = [draws_of_batch(data.seed, epoch, first + number, rank) for number, rank in places]
    finite = [
        ok for batch, seed in zip(batches, draws, strict=True) for ok in finite_losses(module, batch, seed)
    ]
    culprits = [key for key, ok in zip(together, finite, strict=True) if not ok]
    rows = images_shown(loader.dataset, culprits or together)
    description = module.describe()
    task = description.get("task", "detection")
    describe_image = _describe_classified if task == "classification" else _describe_image
    images = [describe_image(data.train, row) for row in rows]
    report = {
        "task": task,
        "step": step,
        "epoch": epoch + 1,
        "step_of_epoch": step_of_epoch + 1,
        "seed": data.seed,
        "precision": str(trainer.precision),
        "what": "loss of these images" if culprits else "gradients of the step; the losses are finite",
        "images": images,
    }
    if trainer.is_global_zero:
        folder.mkdir(exist_ok=True)
        checkpoint = {"detect": description, "state_dict": module.state_dict()}
        write_checkpoint(folder / "weights.ckpt", checkpoint)
        if isinstance(module, DetectionModule) and module.distillation is not None:
            report["distillation"] = asdict(module.distillation.config)
            write_checkpoint(folder / TEACHER_FILE, checkpoint_content(module.distillation.detector))
        plain = {"batches": [_to_plain(batch) for batch in batches], "draws": draws}
        write_checkpoint(folder / "batches.pt", plain)
        write_atomically(folder / "report.json", json.dumps(report, indent=1))
    return _message(report, folder)


def keys_of_step(loader: TrainLoader, *, epoch: int, step: int) -> Iterator[list[SampleKey]]:
    """The samples of each batch that made one optimizer step, of every forward pass and rank.

    Args:
        loader: of one rank.
        epoch: from 0.
        step: within the epoch, from 0.
    """
    plan, sampler = loader.batch_sampler.plan, loader.batch_sampler
    for forward_pass in range(plan.accumulate):
        for rank in range(plan.world_size):
            of_rank = sampler.of_rank(rank)
            of_rank.set_epoch(epoch)
            of_rank.start_batch = step * plan.accumulate + forward_pass
            yield next(islice(of_rank, 1))


def images_shown(dataset: DetectionDataset, keys: Sequence[SampleKey]) -> list[int]:
    """Rows of the images that the samples show, each once; a mosaic shows several."""
    return list(dict.fromkeys(tile.row for key in keys for tile in dataset.layout(key)))


@torch.no_grad()
def finite_losses(module: RunModule, batch: Batch, draws: int) -> list[bool]:
    """Whether the loss of each sample of a batch is finite, computed in float32 where `module` is.

    Args:
        module: with the weights that met the batch.
        batch: on any device.
        draws: see `draws_of_batch`.
    """
    net = deepcopy(module.net).train()
    torch.manual_seed(draws)
    losses = [sums.stacked() for sums in module.sample_terms(net, _on_device(batch, module.device))]
    finite: list[bool] = torch.stack(losses).isfinite().all(1).tolist()
    return finite


class Replayed(NamedTuple):
    """What a batch gave when its step was done again."""

    sums: LossTerms
    largest_gradient: float
    first_not_finite: str | None
    """Name of the first layer whose output was not finite."""

    @property
    def finite(self) -> bool:
        """Whether loss and gradients are numbers."""
        return bool(self.sums.stacked().isfinite().all()) and self.largest_gradient < float("inf")


def replay(folder: Path) -> int:
    """Run `detect replay RUN/nan`; returns 1 where a batch is not finite again, 0 where all are.

    Raises:
        InputError: the folder was not written by a run that stopped at a NaN, or a file in it is broken.
    """
    for name in ("report.json", "weights.ckpt", "batches.pt"):
        if not (folder / name).is_file():
            raise InputError(f"{folder / name} is missing: give the folder RUN/nan of a run that stopped so")
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        plain = torch.load(folder / "batches.pt", weights_only=True)
        batches = [_from_plain(batch) for batch in plain["batches"]]
        draws = plain.get("draws", [0] * len(batches))  # of earlier versions
    except (ValueError, KeyError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise InputError(f"{folder}: report.json or batches.pt is broken ({type(error).__name__})") from error
    module = _module_of(report, folder).to("cuda" if torch.cuda.is_available() else "cpu")
    console = Console(soft_wrap=True)
    console.print(_message(report, folder), highlight=False, markup=False)
    table = Table("batch", *module.term_names, "positives", "largest gradient")
    replayed = [
        replay_batch(module, batch, draws=seed, precision=report["precision"])
        for batch, seed in zip(batches, draws, strict=True)
    ]
    for number, result in enumerate(replayed, 1):
        sums = (f"{value:.4g}" for value in result.sums.stacked().tolist())
        table.add_row(str(number), *sums, f"{result.largest_gradient:.4g}")
    console.print(table)
    for number, result in enumerate(replayed, 1):
        if result.first_not_finite is not None:
            console.print(
                f"batch {number}: the first layer that is not finite is {result.first_not_finite}",
                markup=False,
            )
    return 0 if all(result.finite for result in replayed) else 1


def _module_of(report: dict[str, Any], folder: Path) -> RunModule:
    """What was trained, with the loss and the teacher that trained it."""
    task = report.get("task", "detection")
    checkpoint = read_checkpoint(folder / "weights.ckpt", task=task)
    if task == "classification":
        return classification_module_from_checkpoint(checkpoint)
    module = module_from_checkpoint(checkpoint)
    if "distillation" in report:
        config = DistillationConfig(**report["distillation"])
        module.distillation = load_teacher(folder / TEACHER_FILE, config)
    return module


def replay_batch(module: RunModule, batch: Batch, *, draws: int, precision: str) -> Replayed:
    """Forward, loss and backward of one batch, looking at every layer."""
    module.train()
    module.zero_grad()
    batch = _on_device(batch, module.device)
    torch.manual_seed(draws)
    bad_layers: list[str] = []

    def look(name: str) -> Any:
        def hook(layer: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not output.isfinite().all():
                bad_layers.append(name)

        return hook

    layers = [(name, layer) for name, layer in module.net.named_modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(look(name)) for name, layer in layers]
    with _autocast(precision, module.device):
        sums = module.batch_terms(batch)
    for hook in hooks:
        hook.remove()
    sums.total.backward()
    gradients = [p.grad.abs().max() for p in module.parameters() if p.grad is not None]
    # `max` would pass over a NaN.
    largest = torch.stack(gradients).nan_to_num(nan=torch.inf).max().item()
    return Replayed(sums, largest, bad_layers[0] if bad_layers else None)


def _autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    dtype = AUTOCAST_DTYPES.get(precision)
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def _describe_image(annotations: Annotations, row: int) -> dict[str, Any]:
    boxes = annotations.rows(row)
    ids = annotations.annotation_ids[boxes].tolist()
    return {
        "file": str(annotations.path(row)),
        "image_id": annotations.image_id(row),
        "annotations": [
            {"id": id_.decode() if isinstance(id_, bytes) else id_, "box_xyxy": box, "label": label}
            for id_, box, label in zip(
                ids, annotations.boxes[boxes].tolist(), annotations.labels[boxes].tolist(), strict=True
            )
        ],
    }


def _describe_classified(annotations: Annotations, row: int) -> dict[str, Any]:
    label = int(annotations.labels[annotations.rows(row)][0])
    return {"file": str(annotations.path(row)), "class": annotations.classes.names[label - 1]}


def _message(report: dict[str, Any], folder: Path) -> str:
    named = [f"{image['file']} ({_known_of(image)})" for image in report["images"][:IMAGES_IN_MESSAGE]]
    more = len(report["images"]) - len(named)
    listed = "; ".join(named) + (f"; and {more} more" if more else "")
    return (
        f"step {report['step']} (epoch {report['epoch']}, step {report['step_of_epoch']} of it) was not "
        f"finite: {report['what']}. Images: {listed}. Augmentation seed {report['seed']}. "
        f"Checkpoints are from before it. Look at the step with `detect replay {folder}`; a lower learning "
        "rate or a longer warm-up often helps"
    )


def _known_of(image: dict[str, Any]) -> str:
    if "class" in image:
        return str(image["class"])
    ids = ", ".join(str(one["id"]) for one in image["annotations"])
    return f"id {image['image_id']}, annotations {ids or 'none'}"


def _on_device(batch: Batch, device: torch.device) -> Batch:
    target = Target(*(column.to(device) for column in batch.target))
    return batch._replace(images=batch.images.to(device), target=target)


def _to_plain(batch: Batch) -> dict[str, Any]:
    """Tensors alone, which are read back without running code."""
    return {**batch._asdict(), "target": batch.target._asdict()}


def _from_plain(plain: dict[str, Any]) -> Batch:
    return Batch(**{**plain, "target": Target(**plain["target"])})
