"""Training: optimizers over a network's parameters, and the loop that fits them to labelled images."""

from .augmentation import Shifts
from .optimizers import SGD, Adam, Optimizer
from .trainer import Epoch, Evaluation, NonFiniteLoss, evaluate, fit, train_step

__all__ = ["SGD", "Adam", "Epoch", "Evaluation", "NonFiniteLoss", "Optimizer", "Shifts", "evaluate", "fit",
           "train_step"]
