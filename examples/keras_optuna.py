"""Search for the dropout rates of a Keras model with Optuna or KerasTuner.

Run ``python keras_optuna.py [optuna|tuner] [trials]``. It needs scikit-learn for the digits data
set, and ``pip install optuna`` or ``pip install keras-tuner``.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import keras
from thinned.keras import layers


def model(hidden: float, last: float, scale: str) -> keras.Model:
    network = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(128, "relu"),
            layers.Dropout(hidden, scale),
            keras.layers.Dense(64, "relu"),
            layers.Dropout(last, scale),
            keras.layers.Dense(10, "softmax"),
        ]
    )
    network.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return network


def data() -> list:
    x, y = load_digits(return_X_y=True)
    return train_test_split(
        (x / 16).astype("float32"), y, test_size=0.3, stratify=y, random_state=0
    )


def by_optuna(trials: int, epochs: int = 3) -> dict:
    import optuna

    x, x_test, y, y_test = data()

    def loss(trial: optuna.Trial) -> float:
        keras.utils.set_random_seed(0)
        rates = (trial.suggest_float(name, 0.0, 0.6) for name in ("hidden", "last"))
        network = model(*rates, trial.suggest_categorical("scale", ["inverted", "classic"]))
        network.fit(x, y, epochs=epochs, batch_size=64, verbose=0)
        return network.evaluate(x_test, y_test, batch_size=512, verbose=0)[0]

    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(loss, trials)
    return study.best_params


def by_tuner(trials: int, epochs: int = 3) -> dict:
    import keras_tuner

    x, x_test, y, y_test = data()

    def build(hp: keras_tuner.HyperParameters) -> keras.Model:
        rates = (hp.Float(name, 0.0, 0.6, step=0.1) for name in ("hidden", "last"))
        return model(*rates, hp.Choice("scale", ["inverted", "classic"]))

    with tempfile.TemporaryDirectory() as folder:
        tuner = keras_tuner.RandomSearch(
            build, "val_loss", max_trials=trials, seed=0, directory=folder
        )
        tuner.search(
            x, y, epochs=epochs, batch_size=64, validation_data=(x_test, y_test), verbose=0
        )
        return tuner.get_best_hyperparameters()[0].values


SEARCHES: dict[str, Callable[[int], dict]] = {"optuna": by_optuna, "tuner": by_tuner}

if __name__ == "__main__":
    library = sys.argv[1] if len(sys.argv) > 1 else "optuna"
    print(SEARCHES[library](int(sys.argv[2]) if len(sys.argv) > 2 else 20))
