"""Fit time and accuracy of ``DropoutClassifier`` compared with ``MLPClassifier`` of scikit-learn.

The data sets are digits, 10,000 rows of MNIST, and texts. All methods have the same architecture,
batch size, number of epochs, solver and learning rate. Each seed has its own split (the texts have
only one) and initial weights that all methods share. Pixels are scaled to [0, 1]; texts are sparse
TF-IDF of words. ``MLPClassifier`` trains in the dtype of its rows, so it gets them in float32, and
in float64 as loaders, scalers and vectorizers of scikit-learn return them; there is a ratio to
each. Fits take turns within one process, with as many threads as each library uses by default. The
speed-ups of a method are printed only if its accuracy is not below that of scikit-learn by more
than two standard errors of the paired differences.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import statistics
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from scipy.sparse import issparse
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neural_network import MLPClassifier

from common import write_result
from thinned import presets
from thinned.sklearn import DropoutClassifier, DropoutSearchCV

BASE = ("MLPClassifier, float32", "MLPClassifier, float64")
METHODS = {
    "DropoutClassifier, dropout 0": {"dropout": 0.0},
    "DropoutClassifier, dropout 0.2": {"dropout": 0.2},
    "DropoutClassifier, dropout 0.5": {"dropout": 0.5},
    "DropoutClassifier, batchwise 0.2": {"dropout": presets.batchwise_dropout(0.2)},
    "DropoutClassifier, batchwise 0.5": {"dropout": "batchwise_dropout"},
}


def digits(seed):
    """Training rows and classes, then 360 to test on."""
    x, y = load_digits(return_X_y=True)
    x, rest, y, classes = train_test_split(x / 16, y, test_size=360, random_state=seed, stratify=y)
    return x, y, rest, classes


def mnist(folder, seed):
    """10,000 of the training rows, and the 10,000 test rows."""
    from thinned.studies.data import load

    data = load(folder)
    x, y = data.x.reshape(len(data.x), -1), data.y
    x, _, y, _ = train_test_split(x, y, train_size=10_000, random_state=seed, stratify=y)
    top = x.max()
    rest, classes = data.extra
    return x / top, y, rest.reshape(len(rest), -1) / top, classes


def clinc(folder, _):
    """15,000 questions of 150 intents, and 4,500 to test on, as sparse rows."""
    with gzip.open(Path(folder) / "data_full.json.gz", "rt") as file:
        splits = json.load(file)
    words = TfidfVectorizer()
    x, rest = (
        words.fit_transform([text for text, _ in splits["train"]]),
        words.transform([text for text, _ in splits["test"]]),
    )
    y, classes = (np.array([intent for _, intent in splits[split]]) for split in ("train", "test"))
    return x, y, rest, classes


def compare(name, make, widths, epochs, batch, seeds):
    """Print and return time and accuracy of every method."""
    records = {method: [] for method in (*BASE, *METHODS)}
    common = {
        "hidden_layer_sizes": widths,
        "max_iter": epochs,
        "batch_size": batch,
        "n_iter_no_change": epochs,
    }
    for seed in range(seeds):
        x, y, rest, classes = make(seed)
        for method, record in records.items():
            kind = np.float64 if method.endswith("64") else np.float32
            options = {**common, "random_state": seed}
            net = (
                MLPClassifier(**options)
                if method in BASE
                else DropoutClassifier(**options, **METHODS[method])
            )
            rows = x.astype(kind) if issparse(x) else np.ascontiguousarray(x, kind)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                began = time.perf_counter()
                net.fit(rows, y)
            seconds = time.perf_counter() - began
            assert net.n_iter_ == epochs, "a method ended early"
            record.append((seconds, net.score(rest.astype(kind), classes)))
    seconds = {
        method: statistics.median(s for s, _ in record) for method, record in records.items()
    }
    scores = {method: [a for _, a in record] for method, record in records.items()}
    fastest = min(BASE, key=seconds.get)
    print(f"\n{name}: {widths} units, {epochs} epochs of batches of {batch}, {seeds} seeds")
    out = {}
    for method in records:
        gain = [a - b for a, b in zip(scores[method], scores[fastest], strict=True)]
        error = statistics.stdev(gain) / math.sqrt(seeds) if seeds > 1 else math.inf
        mean, ahead = statistics.mean(scores[method]), statistics.mean(gain)
        fair = method in BASE or ahead >= -2 * error
        ratios = {
            kind: seconds[base] / seconds[method]
            for kind, base in zip(("float32", "float64"), BASE, strict=True)
        }
        each = ", ".join(f"{ratio:.2f} x {kind}" for kind, ratio in ratios.items())
        ratios_text = each if fair else "its accuracy is lower: no speed-up is printed"
        print(
            f"  {method:47} {seconds[method]:7.2f} s  "
            f"accuracy {mean:.4f} ({ahead:+.4f} +- {error:.4f})  {ratios_text}"
        )
        out[method] = {
            "seconds": round(seconds[method], 3),
            "accuracy": round(mean, 5),
            "gain": round(ahead, 5),
            "standard_error": error,
        }
        if fair:
            out[method]["times_as_fast_as"] = {
                kind: round(ratio, 2) for kind, ratio in ratios.items()
            }
    return {"units": widths, "epochs": epochs, "batch": batch, "seeds": seeds, "methods": out}


def searches():
    """Print and return the time of a search over 12 candidates and 3 folds.

    The fits of ``DropoutSearchCV`` are batched; those of ``GridSearchCV`` run one by one.
    """
    x, y, _, _ = digits(0)
    x = x.astype(np.float32)
    net = DropoutClassifier((128,), max_iter=30, n_iter_no_change=30, random_state=0)
    grid = {"dropout": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5], "alpha": [1e-4, 1e-2]}
    methods = {
        "DropoutSearchCV": lambda: DropoutSearchCV(net, grid, cv=3),
        "GridSearchCV": lambda: GridSearchCV(net, grid, cv=3),
        "GridSearchCV, two processes": lambda: GridSearchCV(net, grid, cv=3, n_jobs=2),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        methods["GridSearchCV, two processes"]().fit(
            x[:200], y[:200]
        )  # starts the processes, which are used again
    print("\na search of 12 candidates in 3 folds on digits, (128,) units, 30 epochs")
    out, fitted = {}, {}
    for method, make in methods.items():
        seconds = []
        for _ in range(3):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                began = time.perf_counter()
                fitted[method] = make().fit(x, y)
            seconds.append(time.perf_counter() - began)
        out[method] = round(statistics.median(seconds), 3)
        print(
            f"  {method:47} {out[method]:7.2f} s  {out[method] / out['DropoutSearchCV']:.2f} x  "
            f"best {fitted[method].best_params_}"
        )
    batched, single = (
        fitted[method].cv_results_["mean_test_score"]
        for method in ("DropoutSearchCV", "GridSearchCV")
    )
    out["largest_difference_of_a_score"] = float(np.abs(batched - single).max())
    return out


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--mnist", help="a folder with MNIST as IDX files; without it, MNIST is skipped"
    )
    parser.add_argument(
        "--clinc", help="a folder with data_full.json.gz of CLINC150; without it, texts are skipped"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--epochs", type=int, nargs=3, default=(60, 20, 10), help="on digits, MNIST and texts"
    )
    parser.add_argument("--dry", action="store_true", help="write no result")
    options = parser.parse_args()
    results = {
        "searches": searches(),
        "digits": compare("digits", digits, (256, 256), options.epochs[0], 64, options.seeds),
    }
    if options.mnist:
        results["mnist"] = compare(
            "MNIST",
            partial(mnist, options.mnist),
            (256, 256),
            options.epochs[1],
            200,
            options.seeds,
        )
    if options.clinc:
        results["clinc150"] = compare(
            "CLINC150",
            partial(clinc, options.clinc),
            (256, 256),
            options.epochs[2],
            200,
            options.seeds,
        )
    if not options.dry:
        write_result("perceptrons", results)


if __name__ == "__main__":
    main()
