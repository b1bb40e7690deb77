"""Training: optimizers, the loop that fits a network to labelled images, runs that survive what happens to them."""

from ..data.augmentation import Shifts
from .captured import CapturedStep
from .evaluation import Evaluation, evaluate, measure
from .feeds import ArrayFeed, Feed
from .loop import Epoch, Observer, Training
from .optimizers import SGD, Adam, Optimizer, optimizer_from_config
from .steps import NonFiniteLoss, train_step
from .trainer import fit

__all__ = ["SGD", "Adam", "ArrayFeed", "CapturedStep", "Epoch", "Evaluation", "Feed", "NonFiniteLoss", "Observer",
           "Optimizer", "Shifts", "Training", "evaluate", "fit", "measure", "optimizer_from_config", "train_step"]
