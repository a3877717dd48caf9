"""A small finished study that many tests read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from thinned.studies.data import load
from thinned.studies.design import LEVELS
from thinned.studies.outputs import finish
from thinned.studies.run import run

TINY = replace(
    LEVELS["default"],
    folds=2,
    candidates=2,
    map_folds=1,
    epochs=2,
    methods=("none", "dropout", "batch_norm", "l2", "batch_norm_dropout"),
)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A finished study of every experiment, on 150 digits."""
    folder = tmp_path_factory.mktemp("study") / "out"
    run(load(None, limit=150), TINY, folder, jobs=2, command="thinned study --tiny")
    return finish(folder)
