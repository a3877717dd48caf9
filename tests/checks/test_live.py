"""The live checks: precision and recall on a corpus, and that a model is left as it was."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_path = Path(__file__).with_name("corpus_live.py")
_spec = importlib.util.spec_from_file_location("corpus_live", _path)
corpus = importlib.util.module_from_spec(_spec)
sys.modules["corpus_live"] = corpus
_spec.loader.exec_module(corpus)
CASES = corpus.CASES
