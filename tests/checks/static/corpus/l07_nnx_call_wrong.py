# expect: L7
# from: https://github.com/google/flax
from flax import nnx


class Translator(nnx.Module):
    def __init__(self, width, rngs):
        self.inner = nnx.Linear(width, width, rngs=rngs)
        self.drop = nnx.Dropout(0.3, rngs=rngs)

    def __call__(self, states):
        return self.drop(self.inner(states), deterministic=False)
