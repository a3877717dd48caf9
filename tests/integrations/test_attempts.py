"""An error of what a callback adds is one warning, and nothing is called after it."""

from __future__ import annotations

import warnings

import pytest

from thinned.integrations.attempts import Attempts


def test_the_first_error_is_a_warning_and_the_last_call():
    attempts, calls = Attempts("watching"), []

    def fails(x):
        calls.append(x)
        raise KeyError("ids")

    assert attempts(len, [1, 2]) == 2
    with pytest.warns(UserWarning, match="watching ends here, and the training goes on: KeyError"):
        assert attempts(fails, 1) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert attempts(fails, 2) is None
        assert attempts(len, [1]) is None
    assert calls == [1]


def test_interrupts_pass():
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Attempts("watching")(interrupted)
