"""Stop updating weights at the first loss or gradient that is not finite; the host waits for no device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

READ_EVERY = 16
"""Optimizer steps between two looks at the flag on a GPU; updates are frozen meanwhile."""
LEAST_LOSS_SCALE = 2.0**-24
"""A float16 loss scale below this, float16's smallest number, means gradients that no scale makes finite."""


class NonFiniteError(Exception):
    """Loss or gradients of optimizer step `step` (from 0) were not finite; the weights are from before it."""

    def __init__(self, step: int) -> None:
        super().__init__(f"step {step} has a loss or gradients that are not finite")
        self.step = step


class FiniteGuard:
    """Scales gradients, and freezes the weights from the first step on that has a NaN or an infinity.

    Args:
        device: of the gradients.
        can_skip: the optimizer is fused: it leaves out its update where the device says so. Others are
            stopped from the host before they change anything, which has to look at every step.
    """

    def __init__(self, device: torch.device, *, can_skip: bool) -> None:
        self.can_skip = can_skip
        self.read_every = READ_EVERY if can_skip and device.type != "cpu" else 1
        self.first_bad_step = torch.full((), -1, dtype=torch.int64, device=device)

    def scale_gradients(
        self,
        optimizer: torch.optim.Optimizer,
        gradients: Sequence[Tensor],
        *,
        factor: Tensor,
        loss: Tensor,
        step: int,
    ) -> None:
        """Multiply `gradients` by `factor` in place, and note whether they and the loss are finite.

        Args:
            optimizer: leaves out its next update when this or an earlier step was not finite.
            gradients: the same on all ranks.
            factor: scalar.
            loss: scalar, the same on all ranks.
            step: number of this optimizer step, from 0.

        Raises:
            NonFiniteError: a step was not finite and this is one of those where the host looks.
        """
        found_inf = (~torch.isfinite(loss)).float()
        torch._amp_foreach_non_finite_check_and_unscale_(list(gradients), found_inf, factor)
        self._note(found_inf > 0, step)
        if self.can_skip:
            optimizer.found_inf = (self.first_bad_step >= 0).float()  # type: ignore[attr-defined]
        if step % self.read_every == 0:
            self.raise_if_bad()

    def scale_float16_gradients(
        self,
        scaler: torch.amp.GradScaler,
        gradients: Sequence[Tensor],
        *,
        factor: Tensor,
        loss: Tensor,
        step: int,
    ) -> None:
        """As `scale_gradients`, under a loss scale: gradients may overflow, for the scaler then lowers it.

        Raises:
            NonFiniteError: the loss was not finite, or the scale has fallen to nothing.
        """
        self._note(~torch.isfinite(loss), step)
        # A NaN is what makes the scaler leave out the update.
        torch._foreach_mul_(list(gradients), torch.where(self.first_bad_step >= 0, torch.nan, factor))
        if step % READ_EVERY == 0:
            self.raise_if_bad()
            if scaler.get_scale() < LEAST_LOSS_SCALE:
                raise NonFiniteError(step)

    def raise_if_bad(self) -> None:
        """Look at the flag: the host waits for the device.

        Raises:
            NonFiniteError: a step was not finite.
        """
        first_bad_step = int(self.first_bad_step)
        if first_bad_step >= 0:
            raise NonFiniteError(first_bad_step)

    def _note(self, bad: Tensor, step: int) -> None:
        is_first = bad & (self.first_bad_step < 0)
        self.first_bad_step = torch.where(is_first, step, self.first_bad_step)
