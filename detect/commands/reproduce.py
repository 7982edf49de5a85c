"""`detect reproduce`: repeat a run from its manifest.

What the run was made of is compared with what is here, every difference is said, the run is repeated,
and the two results are compared.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from detect.commands.fit import fit
from detect.commands.fit_cli import ReadsSettings, settings_reader
from detect.commands.pretrain import classifier_settings_reader, pretrain
from detect.config.model_section import is_classifier
from detect.config.renames import renamed, renamed_run
from detect.errors import InputError
from detect.evaluation.metrics import metric_names
from detect.report.run_files import read_run
from detect.report.run_groups import flat_settings
from detect.system.files import write_atomically
from detect.system.ranks import rank_by_environment
from detect.training.classification import TOP
from detect.training.manifest import MANIFEST_FILE, update_manifest
from detect.training.reproduction import Agreement, judge
from detect.training.resume import difference_table, flat

COMPARED = (
    *("commit", "changes", "code", "own_code", "versions", "machine", "runs_on", "seed"),
    *("data", "teacher", "initial_weights", "config"),
)
"""Parts of a manifest that are compared with this machine's."""
NO_EFFECT = (
    *("changes", "commit", "machine.cores", "machine.system"),  # "code" tells whether the program is another
    *("config.checkpoint_minutes", "config.data.cache", "config.data.prefetch", "config.data.root"),
    *("config.data.train_annotations", "config.data.train_images"),
    *("config.data.val_annotations", "config.data.val_images", "config.data.workers"),
    *("config.trainer.enable_progress_bar", "config.trainer.logger", "config.model.teacher", "teacher.path"),
)
"""What may differ and leave every bit alone; data and teacher may lie elsewhere, what is in them counts."""
SHOWN_CHARACTERS = 40
"""Characters of a value in the table."""


@dataclass(frozen=True)
class ReproduceOptions:
    """How to do a run again, and what to judge it by."""

    fit_flags: Sequence[str] = ()
    """Flags of `detect fit`, where something must differ here."""
    seed_runs: Sequence[Path] = ()
    """Runs of the same configuration under other seeds: their spread is what counts as equal."""
    json_file: Path | None = None


class Original(NamedTuple):
    """A run as its manifest has it."""

    path: Path
    manifest: dict[str, Any]
    settings: dict[str, Any]
    """Its configuration as this version resolves it, with values for what that version did not have."""

    @property
    def is_classifier(self) -> bool:
        """Whether `detect pretrain` trained it."""
        return is_classifier(self.settings)

    @property
    def score(self) -> str:
        """The metric that tells its seeds apart."""
        return "top1" if self.is_classifier else "mAP"

    @property
    def identity(self) -> str:
        """Tells this manifest from any other."""
        return hashlib.sha256(json.dumps(self.manifest, sort_keys=True).encode()).hexdigest()


def reproduce(source: Path, out: Path, options: ReproduceOptions) -> int:
    """Do a run again; returns 0 where the results agree and 1 where they do not.

    Args:
        source: a run folder or a manifest.
        out: folder of the new run; a reproduction that was stopped there resumes.
        options: flags, other seeds, where to write the verdict.

    Raises:
        InputError: the manifest is not enough, or `out` holds another run.
        RunStopped: as `detect fit`.
    """
    original = read_original(source)
    seed_values = values_of_seeds(original, options.seed_runs)
    refuse_other_run(original, out)
    use_threads(original)
    found: dict[str, tuple[Any, Any]] = {}

    def check(folder: Path) -> None:
        words = ["detect", "reproduce", str(source), "--out", str(out), *options.fit_flags]
        update_manifest(folder, command=words, reproduces=original.identity)
        now = read_manifest(folder / MANIFEST_FILE)
        found.update(differences({**original.manifest, "config": original.settings}, now))
        print(describe(original, found), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"  # JSON is YAML too
        config.write_text(json.dumps(original.manifest["config"]), encoding="utf-8")
        words = ["--config", str(config), "--out", str(out), "--ckpt_path", "last", *options.fit_flags]
        (pretrain if original.is_classifier else fit)(words, before_training=check)
    if rank_by_environment():
        return 0
    manifest = read_manifest(out / MANIFEST_FILE)
    decisive = [name for name in found if not name.startswith(NO_EFFECT)]
    on_cpu = manifest["runs_on"]["device"] == "cpu"
    agreement = judge(
        original.manifest["result"],
        manifest["result"],
        seed_values=seed_values,
        decisive=decisive,
        on_cpu=on_cpu,
        shown=tuple(TOP) if original.is_classifier else metric_names("brief"),
    )
    print(agreement)
    if options.json_file is not None:
        write_json(options.json_file, agreement, found)
    return agreement.exit_code


def read_original(source: Path) -> Original:
    """Read a run's manifest and make sure that it can be done again.

    Raises:
        InputError: no manifest, one that lacks what a new run needs, or a run that was not finished.
    """
    if not source.exists():
        raise InputError(f"{source}: no such run or manifest")
    path = source / MANIFEST_FILE if source.is_dir() else source
    manifest = read_manifest(path)
    lacking = [key for key in ("config", "data", "runs_on", "initial_weights") if key not in manifest]
    if lacking:
        raise InputError(
            f"{path} does not say {', '.join(lacking)}: it is no manifest of a training, or an older one. "
            "Train again from the run's config.yaml: detect fit --config RUN/config.yaml --out NEW"
        )
    if "result" not in manifest:
        raise InputError(
            f"{path} has no result to compare with, for the run was not finished: continue it with "
            "detect fit --out RUN --ckpt_path last"
        )
    reader = reader_of(manifest["config"])
    settings = reader.read(manifest["config"], path)
    # A run that was resumed with other settings ended by the last of them.
    for later in manifest.get("continued", []):
        changed = settings_changed(settings, reader.read(later["config"], path))
        if changed:
            table = difference_table(changed, ("setting", "at first", "later"))
            raise InputError(
                f"{path}: the run was continued with other settings, which no single run repeats:\n{table}"
                "repeat it by hand, in the same steps"
            )
    return Original(path, manifest, settings)


def reader_of(config: dict[str, Any]) -> ReadsSettings:
    """What reads the settings of a run, by its task."""
    return classifier_settings_reader() if is_classifier(config) else settings_reader()


def settings_changed(first: dict[str, Any], later: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings that differ and may change a result."""
    found = differences({"config": first}, {"config": later})
    return {name: values for name, values in found.items() if not name.startswith(NO_EFFECT)}


def read_manifest(path: Path) -> dict[str, Any]:
    """A manifest's content.

    Raises:
        InputError: no such file, or it holds something else.
    """
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} cannot be read as a manifest ({error}); give a run or its manifest"
        ) from error
    if not isinstance(manifest, dict):
        raise InputError(f"{path} holds a {type(manifest).__name__}, which is no manifest")
    manifest = {key: renamed(value) for key, value in manifest.items()}
    for start in (manifest, *manifest.get("continued", [])):
        if "config" in start:
            start["config"] = renamed_run(start["config"])
    return manifest


def values_of_seeds(original: Original, runs: Sequence[Path]) -> list[float]:
    """The mAP, or top-1, of the original and of every other seed.

    Raises:
        InputError: one is a run of another configuration or of the same seed, or was not scored.
    """
    mine = flat_settings(original.settings)
    values = [float(original.manifest["result"]["metrics"][original.score])]
    seeds = [original.manifest["seed"]]
    for folder in runs:
        run = read_run(folder)
        other = flat_settings(reader_of(run.config).read(run.config, folder))
        names = sorted(name for name in mine.keys() | other.keys() if mine.get(name) != other.get(name))
        strange = [name for name in names if not f"config.{name}".startswith(NO_EFFECT)]
        if strange:
            raise InputError(f"{folder} is no other seed of this run: it differs in {', '.join(strange[:5])}")
        if run.seed in seeds:
            raise InputError(f"{folder} has the seed {run.seed}, as the original or another of --runs")
        seeds.append(run.seed)
        if run.metrics is None:
            raise InputError(f"{folder} has no metrics.json: its run was not finished")
        values.append(float(run.metrics[original.score]))
    return values


def refuse_other_run(original: Original, out: Path) -> None:
    """Let `out` be new, or the same reproduction begun before.

    Raises:
        InputError: it holds something else.
    """
    if rank_by_environment() or not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"--out {out} is a file; give a folder")
    path = out / MANIFEST_FILE
    if any(out.iterdir()) and not (
        path.is_file() and read_manifest(path).get("reproduces") == original.identity
    ):
        raise InputError(f"{out} exists and holds something else: choose another --out")


def use_threads(original: Original) -> None:
    """Take as many threads as the original: sums are split by them, and so are their last bits."""
    threads = original.manifest["runs_on"]["threads"]
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)


def differences(original: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """By dotted name, what the two manifests say, where it is not the same; None where one says nothing."""
    found = {}
    for part in COMPARED:
        old, new = flat(original.get(part), part), flat(now.get(part), part)
        for name in [*old, *(name for name in new if name not in old)]:
            if old.get(name) != new.get(name):
                found[name] = (old.get(name), new.get(name))
    return found


def describe(original: Original, found: dict[str, tuple[Any, Any]]) -> str:
    """What was checked and what differs."""
    manifest = original.manifest
    head = [
        f"{original.path}: {' '.join(manifest['command'])}",
        f"begun {manifest['started']} on {manifest['machine']['processor']}",
    ]
    what = "images" if original.is_classifier else "boxes and images"
    checked = (
        f"checked: code and commit, {len(manifest['versions'])} versions, machine, seed {manifest['seed']}, "
        f"{what} of {len(manifest['data'])} splits, {len(flat(manifest['config']))} settings, "
        "initial weights"
    )
    if not found:
        return "\n".join([*head, f"{checked}: nothing differs"])
    shown = {
        name if not name.startswith(NO_EFFECT) else f"{name} (no effect)": (shorten(old), shorten(new))
        for name, (old, new) in found.items()
    }
    return "\n".join([*head, f"{checked}; these differ:", difference_table(shown, ("", "original", "now"))])


def shorten(value: Any) -> str:
    """A value in as few characters as a table has room for."""
    text = str(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 3] + "..."


def write_json(path: Path, agreement: Agreement, found: dict[str, tuple[Any, Any]]) -> None:
    """Write what differs and the verdict."""
    content = {
        "differs": {name: {"original": old, "now": new} for name, (old, new) in found.items()},
        **agreement.to_json(),
    }
    write_atomically(path, json.dumps(content, indent=1))
