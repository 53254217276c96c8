"""The settings of AdamW's groups of parameters, which a resumed run takes from its configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

Settings = dict[str, Any]


def settings_of_groups(optimizer: Optimizer) -> list[Settings]:
    """The settings of each group: its learning rate, betas, weight decay, and what else it has but parameters."""
    return [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]


def use_settings(optimizer: Optimizer, schedule: LambdaLR, settings: Sequence[Settings]) -> None:
    """Give an optimizer and its schedule, whose states were loaded, the settings of `settings_of_groups`.

    The learning rate of each group becomes that which the schedule has at its step.
    """
    schedule.base_lrs = [group["lr"] for group in settings]
    rates = [
        rate * scale(schedule.last_epoch) for rate, scale in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    ]
    for group, own, rate in zip(optimizer.param_groups, settings, rates, strict=True):
        group.update({**own, "initial_lr": own["lr"], "lr": rate})
    schedule._last_lr = rates
