"""The jobs of `detect sweep`: a configuration under a seed each; OUT/sweep.json: how their steps ended."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detect.config.files import read_yaml
from detect.config.model_section import is_classifier
from detect.errors import InputError
from detect.system.devices import Slot
from detect.system.files import write_atomically

STATE_FILE = "sweep.json"
DETECT = (sys.executable, "-m", "detect")


@dataclass(frozen=True)
class Job:
    """One configuration under one seed."""

    name: str
    config: Path
    seed: int
    folder: Path
    fit_flags: tuple[str, ...]
    trust: tuple[str, ...] = ()
    """The user's own modules."""

    @property
    def fingerprint(self) -> str:
        """What the job trains: the content of its configuration, its seed and the flags."""
        digest = hashlib.sha256(self.config.read_bytes())
        digest.update(json.dumps([self.seed, *self.fit_flags]).encode())
        return digest.hexdigest()

    @property
    def trains_classifier(self) -> bool:
        """Whether `detect pretrain` runs it, and nothing is exported."""
        try:
            return is_classifier(read_yaml(self.config))
        except InputError:  # the job itself says what is wrong with its configuration
            return False

    @property
    def best(self) -> Path:
        """Its best checkpoint."""
        return self.folder / "checkpoints" / "best.ckpt"

    @property
    def exported(self) -> Path:
        """The file that is benchmarked."""
        return self.folder / "model.onnx"

    def fit_command(self, slot: Slot) -> list[str]:
        """Train from where it stopped, or from the start; torchrun where the slot has several GPUs."""
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        launcher += ["--nproc_per_node", str(len(slot)), "-m", "detect"]
        command = launcher if len(slot) > 1 else [*DETECT]
        command += ["pretrain" if self.trains_classifier else "fit", "--config", str(self.config)]
        command += ["--seed_everything", str(self.seed)]
        command += ["--out", str(self.folder), "--ckpt_path", "last", *self.trust_words(), *self.fit_flags]
        return command + (["--trainer.devices", str(len(slot))] if slot else [])

    def export_command(self) -> list[str]:
        """Write and verify the ONNX file."""
        files = ["--ckpt_path", str(self.best), "--out", str(self.exported)]
        return [*DETECT, "export", *files, "--format", "onnx", "--form", "raw", *self.trust_words()]

    def command(self, step: str, slot: Slot) -> list[str]:
        """The words of a step."""
        return self.fit_command(slot) if step == "fit" else self.export_command()

    def log(self, step: str, out: Path) -> Path:
        """Where a step writes what it says, below the folder of the sweep."""
        return out / "logs" / f"{self.name}.{step}.log"

    def trust_words(self) -> list[str]:
        """The permission for the user's own modules."""
        return ["--trust", *self.trust] if self.trust else []


class SweepState:
    """OUT/sweep.json: what each job trains, and how its steps ended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.jobs: dict[str, dict[str, Any]] = {}
        if path.is_file():
            try:
                self.jobs = json.loads(path.read_text(encoding="utf-8"))["jobs"]
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(f"{path} is broken ({error}); remove it to run every job again") from error

    def begin(self, jobs: Sequence[Job]) -> None:
        """Note what `jobs` train.

        Raises:
            InputError: one was begun with another configuration or other flags.
        """
        for job in jobs:
            known = self.jobs.setdefault(job.name, {"fingerprint": job.fingerprint, "steps": {}})
            if known["fingerprint"] != job.fingerprint:
                raise InputError(
                    f"{self.path.parent} has {job.name} begun with another configuration or other flags; "
                    "give the same ones to resume, or another --out"
                )
        self.write()

    def done(self, job: Job, step: str) -> bool:
        """Whether a step ended well; training also needs its metrics to be there still."""
        ended_well = self.jobs[job.name]["steps"].get(step) == 0
        return ended_well and (step != "fit" or (job.folder / "metrics.json").is_file())

    def end(self, job: Job, step: str, exit_code: int) -> None:
        """Note how a step ended."""
        self.jobs[job.name]["steps"][step] = exit_code
        self.write()

    def slurm_job(self, job: Job) -> str:
        """The id under which SLURM last had it; empty where it never had."""
        return str(self.jobs[job.name].get("slurm", ""))

    def sent(self, job: Job, slurm_job: str) -> None:
        """Note the id that SLURM gave a job."""
        self.jobs[job.name]["slurm"] = slurm_job
        self.write()

    def write(self) -> None:
        """Write the file."""
        write_atomically(self.path, json.dumps({"jobs": self.jobs}, indent=1))


def plan_jobs(
    configs: Sequence[Path],
    seeds: Sequence[int],
    out: Path,
    fit_flags: Sequence[str],
    *,
    trust: Sequence[str] = (),
) -> list[Job]:
    """A job for each configuration and seed; all configurations under the first seed come first.

    Raises:
        InputError: a configuration is missing, two have one name, or a seed is given twice.
    """
    for config in configs:
        if not config.is_file():
            raise InputError(f"{config}: no such configuration")
    stems = [config.stem for config in configs]
    for stem in stems:
        if stems.count(stem) > 1:
            raise InputError(f"two configurations are named {stem}: their runs would have one folder")
    if not seeds or len(set(seeds)) < len(seeds):
        raise InputError(f"--seeds {' '.join(map(str, seeds))}: give one or more, each once")
    return [
        Job(name, config, seed, out / name, tuple(fit_flags), tuple(trust))
        for seed in seeds
        for config in configs
        for name in [f"{config.stem}-seed{seed}"]
    ]
