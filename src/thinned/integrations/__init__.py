"""Callbacks for training frameworks, one file each: lightning, huggingface, keras."""
