"""Callbacks for training frameworks, one file each (lightning, huggingface, skorch, keras), and
data that says whose masks.
"""
