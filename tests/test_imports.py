"""What importing costs, in fresh processes."""

from __future__ import annotations

import subprocess
import sys

import pytest


def loaded(code: str) -> set[str]:
    script = f"{code}\nimport sys; print(*(m for m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.split())


HEAVY = {"torch", "sklearn", "pandas", "scipy", "matplotlib", "jinja2", "rich", "typer", "keras"}


@pytest.mark.parametrize(
    "code",
    [
        "import thinned",
        "import thinned.algebra, thinned.presets; thinned.presets.make('drop_block').to_json()",
        "import thinned.engines.numpy",
        "import thinned; dir(thinned); thinned.InputError",
    ],
)
def test_light_imports(code):
    assert not loaded(code) & HEAVY


def test_torch_parts_need_torch_alone():
    assert not loaded("from thinned import nn, functional, train") & (HEAVY - {"torch"})


def test_keras_callback_needs_no_torch():
    """Keras runs on other backends; a stand-in has the only name that the import needs."""
    code = """
import sys, types
keras = sys.modules["keras"] = types.ModuleType("keras")
keras.callbacks = types.SimpleNamespace(Callback=object)
from thinned.integrations.keras import WatchCallback
WatchCallback([0], [0]).verdicts
"""
    assert not loaded(code) & (HEAVY - {"keras"})


def test_unknown_name():
    import thinned

    with pytest.raises(AttributeError, match="has no attribute 'dropuot'"):
        _ = thinned.dropuot
