"""Commands of these tests keep their results in a folder of the test."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("THINNED_CACHE", str(tmp_path_factory.mktemp("cache")))
