"""Callbacks for Lightning, Hugging Face, skorch and Keras, and data sets that return sample ids."""
