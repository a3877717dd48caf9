"""Training: one loop for a single network or a whole population of networks."""

from .data import Rows, Split, Task, rows
from .fit import Score, Trained, fit, fit_population
from .recipe import Augment, Cnn, Custom, Mlp, Optimizer, Recipe

__all__ = [
    "Augment",
    "Cnn",
    "Custom",
    "Mlp",
    "Optimizer",
    "Recipe",
    "Rows",
    "Score",
    "Split",
    "Task",
    "Trained",
    "fit",
    "fit_population",
    "rows",
]
