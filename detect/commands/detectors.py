"""Commands about one detector: score it, use it, export it, time it.

Nothing that takes time to import is imported above the functions: `detect --help` shows their docstrings.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from detect.commands.arguments import (
    add_model_arguments,
    add_protocol_arguments,
    add_trust_argument,
    choice,
    model_argument,
    new_parser,
    one_of,
    parse,
)
from detect.errors import InputError
from detect.system.files import require_writable

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser


def validate_command(args: list[str]) -> int:
    """Score a checkpoint or an exported file on a data set."""
    from detect.data.datamodule import DetectionData
    from detect.deploy.validate import validate

    parser = new_parser(
        "validate", validate_command, "detect validate --ckpt_path runs/a/checkpoints/best.ckpt --data.root D"
    )
    add_model_arguments(parser)
    parser.add_class_arguments(DetectionData, "data", skip={"image_size", "resize_rule"})
    parser.add_argument("--backend", type=Literal["faster", "pycocotools"], default="faster")
    parser.add_argument("--json", type=Path | None, default=None, help="write the metrics there")
    config = parse(parser, args)
    require_writable(config.json)
    return validate(
        model_argument(config), config.data.as_dict(), backend=config.backend, json_file=config.json
    )


def thresholds_command(args: list[str]) -> int:
    """Find a score threshold for each class on the validation split; write a checkpoint that has them."""
    from detect.data.datamodule import DetectionData
    from detect.deploy.find_thresholds import find_thresholds
    from detect.evaluation.class_thresholds import Aim, Goal

    parser = new_parser(
        "thresholds",
        thresholds_command,
        "detect thresholds --ckpt_path best.ckpt --data.root D --at best-f1 --out tuned.ckpt",
    )
    parser.add_argument("--ckpt_path", type=Path, required=True, help="checkpoint of detect")
    add_trust_argument(parser)
    parser.add_class_arguments(DetectionData, "data", skip={"image_size", "resize_rule"})
    parser.add_argument("--at", type=Literal["best-f1"] | None, default=None, help="where F1 is best")
    parser.add_argument(
        "--precision", type=float | None, default=None, help="instead: the highest recall at this precision"
    )
    parser.add_argument(
        "--recall", type=float | None, default=None, help="instead: the highest precision at this recall"
    )
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint to write")
    parser.add_argument("--json", type=Path | None, default=None, help="write the figures there")
    config = parse(parser, args)
    require_writable(config.json)
    require_writable(config.out)
    if config.out.exists():
        raise InputError(f"{config.out} exists and is never overwritten: give another --out, or move it away")
    given: dict[Aim, Any] = {"best-f1": config.at, "precision": config.precision, "recall": config.recall}
    goals = [
        Goal(aim, 0.0 if aim == "best-f1" else value) for aim, value in given.items() if value is not None
    ]
    if len(goals) > 1:
        raise InputError("give --at best-f1, --precision or --recall, one of them; several were given")
    return find_thresholds(
        config.ckpt_path,
        config.data.as_dict(),
        goals[0] if goals else Goal(),
        out=config.out,
        json_file=config.json,
    )


def predict_command(args: list[str]) -> int:
    """Detect objects in images, folders, videos, cameras; write drawn ones and detections.json."""
    from detect.deploy.predict import PredictOptions, predict
    from detect.deploy.video_sources import find_videos

    parser = new_parser(
        "predict", predict_command, "detect predict --ckpt_path best.ckpt --source photos --out out"
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--source",
        type=str,
        nargs="+",
        required=True,
        help="images, folders, globs; or videos, camera:0, rtsp://... (the extra video)",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument(
        "--score_threshold",
        type=float | None,
        default=None,
        help="minimum score; null: that of each class (detect thresholds) or 0.3, or that of an exported "
        "file with NMS where it is higher",
    )
    parser.add_argument("--classes", type=str, nargs="+", default=None, help="names of classes to keep")
    parser.add_argument(
        "--format",
        type=Literal["coco", "voc", "yolo"] | None,
        default=None,
        help="write annotations for a labelling tool as well",
    )
    parser.add_argument("--draw", type=bool, default=PredictOptions.draw, help="write the drawn images")
    parser.add_argument(
        "--recursive",
        type=bool,
        nargs="?",
        const=True,
        default=PredictOptions.recursive,
        help="search folders to the bottom",
    )
    parser.add_argument(
        "--batch_size", type=int, default=PredictOptions.batch_size, help="images per pass of the network"
    )
    config = parse(parser, args)
    options = PredictOptions(
        score_threshold=config.score_threshold,
        classes=config.classes,
        format=config.format,
        batch_size=config.batch_size,
        draw=config.draw,
        recursive=config.recursive,
    )
    if videos := find_videos(config.source):
        from detect.deploy.predict_video import predict_videos

        return predict_videos(model_argument(config), videos, output=config.out, options=options)
    return predict(model_argument(config), config.source, output=config.out, options=options)


def export_command(args: list[str]) -> int:
    """Write a detector for a runtime, run the file and compare it with PyTorch."""
    from detect.deploy.export import ExportOptions, export
    from detect.deploy.int8 import Int8Options
    from detect.deploy.web_page import WEB, export_page

    config = parse(export_parser(), args)
    source = one_of(ckpt_path=config.ckpt_path, config=config.config)
    if config.nms and config.form not in (None, "nms"):
        raise InputError(f"--nms and --form {config.form} contradict each other")
    if config.int8 != (config.calibration is not None):
        raise InputError("--int8 and --calibration DATA belong together: give both or neither")
    int8 = None
    if config.int8:
        data = {"root": config.calibration, **config.data.as_dict()}
        int8 = Int8Options(data, config.calibration_images, config.max_drop, tuple(config.keep_fp32))
    options = ExportOptions(
        format=config.format,
        form="nms" if config.nms else config.form,
        score_threshold=config.score_threshold,
        pictures=config.pictures,
        int8=int8,
    )
    if config.format == WEB:
        return export_page(source, config.out, options, config.onnxruntime_web)
    if config.onnxruntime_web is not None:
        raise InputError(f"--onnxruntime_web is for --format {WEB}; the format is {config.format}")
    return export(source, config.out, options)


def export_parser() -> ArgumentParser:
    """The options of `detect export`."""
    from detect.deploy.runtimes.table import FORMATS
    from detect.deploy.spec import Form
    from detect.deploy.web_page import WEB

    parser = new_parser(
        "export", export_command, "detect export --ckpt_path best.ckpt --format onnx --out model.onnx"
    )
    parser.add_argument("--ckpt_path", type=Path | None, default=None, help="checkpoint of detect")
    parser.add_argument("--config", type=Path | None, default=None, help="a YAML instead: random weights")
    add_trust_argument(parser)
    parser.add_argument(
        "--format", type=choice([*FORMATS, WEB]), required=True, help=f"{WEB}: a page for browsers"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help=f"file to write; FILE.json comes beside it. With --format {WEB} a folder",
    )
    parser.add_argument("--form", type=Form | None, default=None, help="null: with NMS where the format can")
    parser.add_argument("--nms", action="store_true", help="the same as --form nms")
    parser.add_argument(
        "--score_threshold",
        type=float | None,
        default=None,
        help="minimum score; null: the model's own, with NMS that of each class where it has them",
    )
    parser.add_argument(
        "--pictures", type=Path, nargs="+", default=None, help="images to verify on, 3 or more"
    )
    parser.add_argument(
        "--onnxruntime_web",
        type=Path | None,
        default=None,
        help=f"{WEB}: npm's package onnxruntime-web, a .tgz or a folder; null: fetched once",
    )
    _add_int8_arguments(parser)
    return parser


def _add_int8_arguments(parser: ArgumentParser) -> None:
    from detect.deploy.int8 import Int8Options

    parser.add_argument(
        "--int8", action="store_true", help="8 bits; written only if mAP drops by no more than --max_drop"
    )
    parser.add_argument("--calibration", type=Path | None, default=None, help="int8: folder of a data set")
    parser.add_argument("--data.train_split", type=str | None, default=None, help="int8: ranges come from it")
    parser.add_argument("--data.val_split", type=str | None, default=None, help="int8: mAP is measured on it")
    parser.add_argument(
        "--calibration_images",
        type=int,
        default=Int8Options.images,
        help="int8: images that ranges are taken from",
    )
    parser.add_argument(
        "--max_drop", type=float, default=Int8Options.max_drop, help="int8: maximum mAP drop (0.01 = 1 point)"
    )
    parser.add_argument(
        "--keep_fp32", type=str, nargs="+", default=[], help="int8: layers to leave in float32"
    )


def benchmark_command(args: list[str]) -> int:
    """Measure latency from file to boxes: models by runtimes by threads by batch sizes, interleaved."""
    from detect.deploy.benchmark import BenchmarkOptions, benchmark
    from detect.deploy.latency import Protocol

    config = parse(benchmark_parser(), args)
    require_writable(config.json)
    cores = None if config.cores is None else tuple(config.cores)
    options = BenchmarkOptions(
        runtimes=config.runtime,
        threads=config.threads,
        batches=config.batch,
        providers=config.provider,
        protocol=Protocol(config.rounds, config.warmup, config.clock, cores),
        form=config.form,
        precision=config.precision,
        pictures=config.pictures,
        memory=config.memory,
    )
    return benchmark(config.model, options, json_file=config.json)


def benchmark_parser() -> ArgumentParser:
    """The options of `detect benchmark`."""
    from detect.deploy.benchmark import BenchmarkOptions
    from detect.deploy.exported_file import Precision
    from detect.deploy.latency import Protocol
    from detect.deploy.runtimes.base import Provider
    from detect.deploy.runtimes.table import RUNTIMES
    from detect.deploy.spec import Form

    parser = new_parser(
        "benchmark", benchmark_command, "detect benchmark --model a.onnx --runtime onnxruntime openvino"
    )
    parser.add_argument(
        "--model", type=Path, nargs="+", required=True, help="checkpoints, exported files, configs"
    )
    add_trust_argument(parser)
    parser.add_argument(
        "--runtime", type=choice(RUNTIMES), nargs="+", default=list(BenchmarkOptions.runtimes)
    )
    parser.add_argument(
        "--provider",
        type=Provider,
        nargs="+",
        default=list(BenchmarkOptions.providers),
        help="what ONNX Runtime computes with; cuda and tensorrt need the package onnxruntime-gpu",
    )
    parser.add_argument("--threads", type=int, nargs="+", default=list(BenchmarkOptions.threads))
    parser.add_argument(
        "--batch", type=int, nargs="+", default=list(BenchmarkOptions.batches), help="images per run"
    )
    add_protocol_arguments(parser, Protocol(), runs_of="row")
    parser.add_argument("--cores", type=int, nargs="+", default=None, help="pin to these cores")
    parser.add_argument(
        "--form", type=Form, default=BenchmarkOptions.form, help="form of what is exported from a checkpoint"
    )
    parser.add_argument("--precision", type=Precision | None, default=None, help="bf16 for OpenVINO")
    parser.add_argument(
        "--pictures", type=Path, nargs="+", default=None, help="images to run on; null: generated ones"
    )
    parser.add_argument(
        "--memory", type=bool, default=BenchmarkOptions.memory, help="measure the peak memory of each row"
    )
    parser.add_argument(
        "--json", type=Path | None, default=None, help="write figures there, a plot beside it"
    )
    return parser


def evaluate_command(args: list[str]) -> int:
    """Score a results file against annotations; no model is involved."""
    from detect.evaluation.results_file import evaluate

    parser = new_parser(
        "evaluate", evaluate_command, "detect evaluate --annotations instances_val.json --detections d.json"
    )
    parser.add_argument("--annotations", type=Path, required=True, help="ground truth in COCO's format")
    parser.add_argument("--detections", type=Path, required=True, help="detections in COCO's results format")
    parser.add_argument("--backend", type=Literal["faster", "pycocotools"], default="faster")
    parser.add_argument("--json", type=Path | None, default=None, help="write the metrics there")
    config = parse(parser, args)
    return evaluate(config.annotations, config.detections, backend=config.backend, json_file=config.json)


def models_command(args: list[str]) -> int:
    """List every detector in configs/ with its counts beside the paper's."""
    from detect.inspection.models import list_models, show_network

    parser = new_parser("models", models_command, "detect models --json models.json")
    parser.add_argument("--config", type=Path | None, default=None, help="one network, layer by layer")
    parser.add_argument("--json", type=Path | None, default=None, help="write the list there")
    config = parse(parser, args)
    require_writable(config.json)
    if config.config is not None:
        return show_network(config.config, config.json)
    return list_models(json_file=config.json)
