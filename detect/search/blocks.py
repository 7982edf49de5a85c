"""Block-wise search: Optuna draws networks, short trainings score them, a reward weighs accuracy and latency.

The reward is ACC x (LAT / TAR)^w, as in MnasNet and MobileNetV3. What trains a network is given by the
caller, so that a trial takes the way of `detect fit`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from statistics import median
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from detect.errors import InputError
from detect.search.latency_table import OTHER_MACHINE, Setting
from detect.search.measure import Bench, network_alone, print_line
from detect.search.space import Choice, Space
from detect.search.study import is_dead, require_optuna, this_worker

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

Goal = Literal["reward", "pareto"]
Sampler = Literal["tpe", "nsga2"]
REWARD_POWER = -0.15
"""w for small models (MobileNetV3, section 4.1); MnasNet's is -0.07."""
MOST_FAILURES = 3
"""Trials that may fail one after the other: then it is no accident."""
PRUNE_AFTER_TRIALS = 5
"""Trials that end before one can be called bad."""
SECONDS_PER_HOUR = 3600
WORKER, STARTED_MS, SETTING = "worker", "start_ms", "setting"
"""Attributes of a trial and of the study."""


@dataclass(frozen=True)
class BlockOptions:
    """What is looked for, and for how long."""

    target: float | None = None
    """Latency to reach, a share of the start's."""
    target_ms: float | None = None
    """The same in ms."""
    power: float = REWARD_POWER
    """w of the reward, below 0: how much a slow network loses."""
    goal: Goal = "reward"
    """One reward, or the front of accuracy and latency."""
    sampler: Sampler | None = None
    """Null: TPE for the reward, NSGA-II for the front."""
    trials: int = 50
    """Of all workers together, those that were stopped early included."""
    hours: float | None = None
    """Of this worker: no trial begins afterwards."""
    seed: int = 0
    other_machine: bool = False
    """Join a study that was begun on another machine."""

    def check(self) -> None:
        """Stop at what is no search.

        Raises:
            InputError: names the option.
        """
        targets = [value for value in (self.target, self.target_ms) if value is not None]
        if len(targets) != 1 or targets[0] <= 0:
            raise InputError(
                "give --target (a share of the latency, 0.8) or --target_ms, one of them, above 0"
            )
        if self.power >= 0:
            raise InputError(f"--power is {self.power}; below 0, such as -0.15 or -0.07")
        if self.trials < 1:
            raise InputError(f"--trials is {self.trials}; give 1 or more")


TrainTrial = Callable[[dict[str, Any], int, Callable[[float], bool]], bool]
"""Trains a `model:` section, as the trial of this number; tells each epoch's mAP to a function that answers
whether to stop. Returns whether it was stopped."""


class TrialFailed(Exception):
    """One training went wrong; the message says why. The search continues with another network."""


@dataclass(frozen=True)
class Result:
    """A trial that ended."""

    number: int
    state: str
    """complete, pruned or failed."""
    accuracy: float | None
    """Best mAP of its epochs, on the images held out."""
    latency_ms: float | None
    reward: float | None
    params: dict[str, Choice]
    seconds: float | None


class BlockSearch:
    """A worker of one study: it draws, measures and trains networks until enough are done.

    Args:
        stated: the network to start from, every width stated.
        options: what is looked for.
        storage: where the study is, see `open_storage`.
        setting: machine and runtime of the latencies.
        bench: measures latency.

    Raises:
        InputError: Optuna is missing, or the study is of another machine.
    """

    def __init__(
        self,
        stated: dict[str, Any],
        options: BlockOptions,
        *,
        storage: BaseStorage,
        setting: Setting,
        bench: Bench,
    ) -> None:
        options.check()
        self.options, self.bench, self.space, self.setting = options, bench, Space(stated), setting
        self.after_trial: Callable[[], None] = lambda: None
        """Called whenever a trial has ended."""
        self.study = self._open_study(storage, stated, setting)
        self._forget_dead_trials()
        self.start_ms = self._latency_of_start()

    @property
    def target_ms(self) -> float:
        """TAR of the reward."""
        options = self.options
        return options.target_ms if options.target_ms is not None else (options.target or 1.0) * self.start_ms

    def run(self, train: TrainTrial) -> None:
        """Run trials until all workers together have done enough, or the time is over.

        Raises:
            InputError: several trials failed one after the other.
        """
        began = time.monotonic()
        hours, failures = self.options.hours, 0
        while self._done() < self.options.trials:
            if hours is not None and time.monotonic() - began > hours * SECONDS_PER_HOUR:
                print_line(f"{hours:g} hours are over")
                return
            try:
                self.run_trial(train)
                failures = 0
            except TrialFailed as error:
                failures += 1
                print_line(str(error))
                if failures == MOST_FAILURES:
                    raise InputError(f"{failures} trials failed one after the other: {error}") from error
            self.after_trial()
            self._say_progress(began)

    def run_trial(self, train: TrainTrial) -> None:
        """Draw one network, measure and train it. What stops the process loses this trial and no other."""
        import optuna

        began = time.monotonic()
        trial = self.study.ask()
        trial.set_user_attr(WORKER, this_worker())
        with self._failing(trial):
            params = self.space.draw(lambda name, choices: trial.suggest_categorical(name, choices))
            network = self.space.network(params)
            latency_ms = self.latency_ms(network)
            trial.set_user_attr("latency_ms", latency_ms)
            accuracies: list[float] = []

            def after_epoch(accuracy: float) -> bool:
                accuracies.append(accuracy)
                trial.set_user_attr("accuracies", accuracies)
                if self.options.goal == "pareto":  # Optuna stops trials of one objective alone
                    return False
                trial.report(self.reward(max(accuracies), latency_ms), len(accuracies))
                return trial.should_prune()

            pruned = train(network, trial.number, after_epoch)
            trial.set_user_attr("seconds", round(time.monotonic() - began, 1))
            if pruned:
                self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            elif not accuracies:
                raise TrialFailed(f"trial {trial.number} was never validated")
            else:
                self.study.tell(trial, self._values(max(accuracies), latency_ms))

    def reward(self, accuracy: float, latency_ms: float) -> float:
        """ACC x (LAT / TAR)^w."""
        return reward(accuracy, latency_ms / self.target_ms, power=self.options.power)

    def latency_ms(self, network: dict[str, Any]) -> float:
        """Latency of a network: its time over the start's in the same rounds, times the start's."""
        ratio = self.bench.ratio(network_alone(network), network_alone(self.space.stated))
        return ratio * self.start_ms

    def results(self) -> list[Result]:
        """Every trial that ended, of all workers."""
        return [
            self._result(trial)
            for trial in self.study.get_trials(deepcopy=False)
            if trial.state.is_finished()
        ]

    def found(self) -> Result:
        """The trial of the highest reward; of a front, the most accurate one within the target.

        Raises:
            InputError: no trial was completed.
        """
        done = [result for result in self.results() if result.state == "complete"]
        if not done:
            raise InputError("no trial was completed, so nothing is found: run the same command again")
        if self.options.goal == "reward":
            return max(done, key=lambda result: result.reward or 0.0)
        inside = [result for result in done if (result.latency_ms or 0.0) <= self.target_ms]
        if not inside:
            return self.front()[0]  # the fastest; of equally fast ones the most accurate
        return max(inside, key=lambda result: result.accuracy or 0.0)

    def front(self) -> list[Result]:
        """Completed trials that no other one beats in both accuracy and latency, the fastest first."""
        done = [result for result in self.results() if result.state == "complete"]
        done.sort(key=lambda result: (result.latency_ms or 0.0, -(result.accuracy or 0.0)))
        best, front = float("-inf"), []
        for result in done:
            if (result.accuracy or 0.0) > best:
                best = result.accuracy or 0.0
                front.append(result)
        return front

    def to_json(self) -> dict[str, Any]:
        """The trials and what they were measured with, for S/trials.json."""
        return {
            "goal": self.options.goal,
            "power": self.options.power,
            "start_ms": self.start_ms,
            "target_ms": self.target_ms,
            "setting": self.study.user_attrs[SETTING],
            "space": {name: list(choices) for name, choices in self.space.choices.items()},
            "trials": [asdict(result) for result in self.results()],
            "front": [result.number for result in self.front()],
        }

    def _open_study(self, storage: BaseStorage, stated: dict[str, Any], setting: Setting) -> Study:
        optuna = require_optuna()
        options = self.options
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        told = [options.goal, options.target, options.target_ms, options.power]
        named = hashlib.sha256(json.dumps([stated, told], sort_keys=True, default=str).encode()).hexdigest()
        directions = ["maximize"] if options.goal == "reward" else ["maximize", "minimize"]
        study: Study = optuna.create_study(
            storage=storage,
            study_name=f"detect-blocks-{named[:12]}",
            directions=directions,
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=PRUNE_AFTER_TRIALS),
        )
        study.sampler = self._sampler(optuna, len(study.get_trials(deepcopy=False)))
        if SETTING not in study.user_attrs:
            study.set_user_attr(SETTING, asdict(setting))
            study.enqueue_trial(self.space.start, skip_if_exists=True)
        begun = study.user_attrs[SETTING]
        begun_on = Setting(**{**begun, "image_size": tuple(begun["image_size"])})
        if begun_on.key != setting.key and not options.other_machine:
            raise InputError(
                f"this study was begun on another machine or in another setting "
                f"({'; '.join(begun_on.differences(setting))}): latency does not carry over. Join it all the "
                f"same with {OTHER_MACHINE}: latencies are then shares of the start's, taken here"
            )
        return study

    def _sampler(self, optuna: ModuleType, done: int) -> Any:
        """Workers and restarts draw differently: the seed counts what is there."""
        options = self.options
        seed = options.seed + done
        which = options.sampler or ("tpe" if options.goal == "reward" else "nsga2")
        if which == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)

    def _latency_of_start(self) -> float:
        """Measured once in a study: all workers give shares of it."""
        if STARTED_MS not in self.study.user_attrs:
            (taken,) = self.bench.measure([network_alone(self.space.stated)])
            self.study.set_user_attr(STARTED_MS, median(taken.tolist()))
        return float(self.study.user_attrs[STARTED_MS])

    def _forget_dead_trials(self) -> None:
        """Trials of this machine whose process is gone have failed."""
        import optuna

        for trial in self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            if is_dead(trial.user_attrs.get(WORKER)):
                self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
                print_line(f"trial {trial.number} was lost with its process")

    @contextmanager
    def _failing(self, trial: Trial) -> Iterator[None]:
        """A trial in which anything goes wrong has failed."""
        import optuna

        try:
            yield
        except BaseException:
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
            raise

    def _values(self, accuracy: float, latency_ms: float) -> list[float]:
        reward_alone = self.options.goal == "reward"
        return [self.reward(accuracy, latency_ms)] if reward_alone else [accuracy, latency_ms]

    def _done(self) -> int:
        return sum(result.state != "failed" for result in self.results())

    def _result(self, trial: FrozenTrial) -> Result:
        told = trial.user_attrs
        accuracies, latency_ms = told.get("accuracies") or [], told.get("latency_ms")
        accuracy = max(accuracies, default=None)
        gained = (
            self.reward(accuracy, latency_ms) if accuracy is not None and latency_ms is not None else None
        )
        return Result(
            trial.number,
            {"COMPLETE": "complete", "PRUNED": "pruned"}.get(trial.state.name, "failed"),
            accuracy,
            latency_ms,
            gained,
            dict(trial.params),
            told.get("seconds"),
        )

    def _say_progress(self, began: float) -> None:
        results = self.results()
        last = results[-1]
        best = max((r for r in results if r.state == "complete"), key=lambda r: r.reward or 0.0, default=None)
        words = f"trial {last.number}: {last.state}"
        if last.accuracy is not None and last.latency_ms is not None:
            words += f", mAP {last.accuracy:.3f} at {last.latency_ms:.2f} ms (target {self.target_ms:.2f})"
        if best is not None:
            words += f"; best so far trial {best.number}, mAP {best.accuracy:.3f} at {best.latency_ms:.2f} ms"
        print_line(f"{words}; {self._done()} of {self.options.trials} done, {time.monotonic() - began:.0f} s")


def reward(accuracy: float, latency: float, *, power: float) -> float:
    """ACC x (LAT / TAR)^w.

    Args:
        accuracy: ACC, mAP as a fraction of one.
        latency: LAT / TAR.
        power: w.

    Source: MnasNet (arXiv 1807.11626) equation 2; w of small models from MobileNetV3 section 4.1.
    """
    return accuracy * float(latency**power)
