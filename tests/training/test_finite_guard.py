import pytest
import torch
from torch import nn

from detect.training.finite_guard import FiniteGuard, NonFiniteError

CPU = torch.device("cpu")
ONE = torch.tensor(1.0)


def parameters_with_gradients() -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2, 2))]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, 2.0)
    return parameters


def gradients(parameters: list[nn.Parameter]) -> list[torch.Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


@pytest.mark.parametrize("optimizer_class", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_a_fused_optimizer_stands_still_from_the_first_bad_step_on(
    optimizer_class: type[torch.optim.Optimizer],
) -> None:
    parameters = parameters_with_gradients()
    optimizer = optimizer_class(parameters, lr=0.1, weight_decay=0.1, fused=True)  # type: ignore[call-arg]
    guard = FiniteGuard(CPU, can_skip=True)
    guard.read_every = 100  # as on a GPU: the host does not look in between
    guard.scale_gradients(optimizer, gradients(parameters), factor=ONE, loss=ONE, step=1)
    optimizer.step()
    before = [parameter.detach().clone() for parameter in parameters]
    assert not before[0].equal(torch.ones(3))
    for step, bad in ((2, True), (3, False)):
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, 2.0)
        if bad:
            gradients(parameters)[1][0, 1] = torch.inf
        guard.scale_gradients(optimizer, gradients(parameters), factor=ONE, loss=ONE, step=step)
        optimizer.step()
    assert all(new.equal(old) for new, old in zip(parameters, before, strict=True))
    with pytest.raises(NonFiniteError, match="step 2 "):
        guard.raise_if_bad()


def test_gradients_are_scaled() -> None:
    parameters = parameters_with_gradients()
    optimizer = torch.optim.SGD(parameters, lr=0.1, fused=True)
    guard = FiniteGuard(CPU, can_skip=True)
    guard.scale_gradients(optimizer, gradients(parameters), factor=torch.tensor(0.25), loss=ONE, step=0)
    assert all((gradient == 0.5).all() for gradient in gradients(parameters))


def test_a_loss_that_is_not_finite_is_found_where_gradients_are() -> None:
    parameters = parameters_with_gradients()
    guard = FiniteGuard(CPU, can_skip=True)
    optimizer = torch.optim.SGD(parameters, lr=0.1, fused=True)
    with pytest.raises(NonFiniteError, match="step 7 "):
        guard.scale_gradients(
            optimizer, gradients(parameters), factor=ONE, loss=torch.tensor(torch.nan), step=7
        )


def test_other_optimizers_are_stopped_before_they_step() -> None:
    parameters = parameters_with_gradients()
    gradients(parameters)[0][0] = torch.nan
    guard = FiniteGuard(torch.device("meta"), can_skip=False)
    assert guard.read_every == 1  # on any device
    guard = FiniteGuard(CPU, can_skip=False)
    optimizer = torch.optim.SGD(parameters, lr=0.1, fused=False)
    with pytest.raises(NonFiniteError):
        guard.scale_gradients(optimizer, gradients(parameters), factor=ONE, loss=ONE, step=3)


def test_a_loss_scale_may_overflow_but_not_vanish() -> None:
    parameters = parameters_with_gradients()
    guard = FiniteGuard(CPU, can_skip=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**-30)
    scaler.scale(ONE)  # makes its scale
    gradients(parameters)[0][0] = torch.inf
    guard.scale_float16_gradients(scaler, gradients(parameters), factor=ONE, loss=ONE, step=1)
    guard.raise_if_bad()
    with pytest.raises(NonFiniteError, match="step 16 "):
        guard.scale_float16_gradients(scaler, gradients(parameters), factor=ONE, loss=ONE, step=16)


def test_under_a_loss_scale_a_bad_loss_makes_the_scaler_leave_out_the_update() -> None:
    parameters = parameters_with_gradients()
    guard = FiniteGuard(CPU, can_skip=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    optimizer = torch.optim.SGD(parameters, lr=0.1, fused=True)
    scaler.scale(ONE)
    guard.scale_float16_gradients(
        scaler, gradients(parameters), factor=ONE, loss=torch.tensor(torch.inf), step=1
    )
    scaler.step(optimizer)
    assert parameters[0].equal(torch.ones(3))
