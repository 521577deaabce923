"""Optimizer, schedule of the learning rate, and moving average of the weights; each with a state that JSON holds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from .settings import Settings

_DECAYS_IN_INTERACTIONS = ("linear.weight", "skip_tp_full.weight")


def make_optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """Adam or AdamW, with or without AMSGrad; the weights that decay are those of `mace_run_train`.

    Decay: linear weights of the interactions, and the products. No decay: embedding, other weights of the
    interactions, readouts, and whatever else has weights, such as a long-range layer.
    """
    decaying, others = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (decaying if _decays(name) else others).append(parameter)
    groups = [
        {"params": decaying, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=settings.lr, betas=(settings.beta, 0.999), amsgrad=settings.amsgrad, fused=True)


def _decays(name: str) -> bool:
    if name.startswith("interactions."):
        return any(part in name for part in _DECAYS_IN_INTERACTIONS)
    return name.startswith("products.")


class Schedule:
    """The learning rate of the first stage, epoch by epoch; the second has a fixed one.

    "ReduceLROnPlateau": after more than `scheduler_patience` evaluations in a row whose loss is not below 0.9999 of
    the best, the rate is multiplied by `lr_factor`. "ExponentialLR": it is multiplied by `lr_scheduler_gamma` after
    every epoch.
    """

    def __init__(self, settings: Settings):
        self._settings = settings
        self.lr, self._best, self._waited = settings.lr, None, 0

    def after_epoch(self) -> None:
        """An epoch of the first stage has ended."""
        if self._settings.scheduler == "ExponentialLR":
            self.lr *= self._settings.lr_scheduler_gamma

    def after_evaluation(self, loss: float) -> None:
        """An evaluation in the first stage gave `loss`."""
        if self._settings.scheduler != "ReduceLROnPlateau":
            return
        if self._best is None or loss < 0.9999 * self._best:
            self._best, self._waited = loss, 0
        else:
            self._waited += 1
        if self._waited > self._settings.scheduler_patience:
            self.lr, self._waited = self.lr * self._settings.lr_factor, 0

    def enter_stage_two(self) -> None:
        """Take the rate of the second stage."""
        self.lr = self._settings.swa_lr

    def state_dict(self) -> dict:
        """Plain data."""
        return {"lr": self.lr, "best": self._best, "waited": self._waited}

    def load_state_dict(self, saved: dict) -> None:
        """Go on from `state_dict`."""
        self.lr, self._best, self._waited = saved["lr"], saved["best"], saved["waited"]


class Average:
    """Exponential moving average of weights,

        a ← a + (1 − β)(w − a) ,   β = min(decay, (1 + n)/(10 + n)) at the n-th update,

    so that the start is forgotten soon. With `decay` 0 the average is the weights themselves.

    Parameters
    ----------
    parameters : list of Tensor
        Updated in place by an optimizer.
    decay : float
        0 to keep no average.
    """

    def __init__(self, parameters: Sequence[Tensor], decay: float):
        self._parameters, self._decay, self.updates = list(parameters), decay, 0
        self.averages = [parameter.detach().clone() for parameter in self._parameters] if decay else []

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        self.updates += 1
        if self._decay:
            beta = min(self._decay, (1 + self.updates) / (10 + self.updates))
            torch._foreach_lerp_(self.averages, self._parameters, 1.0 - beta)

    def weights(self) -> list[Tensor]:
        """Copies of the averages, or of the weights where no average is kept."""
        return [tensor.detach().clone() for tensor in (self.averages or self._parameters)]

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages in the place of the weights for a while."""
        if not self._decay:
            yield
            return
        kept = [parameter.detach().clone() for parameter in self._parameters]
        self.load(self._parameters, self.averages)
        try:
            yield
        finally:
            self.load(self._parameters, kept)

    @staticmethod
    @torch.no_grad()
    def load(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
        """Copy values into parameters."""
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
