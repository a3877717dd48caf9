# expect: L7
# from: https://flax-linen.readthedocs.io/en/latest/guides/training_techniques/dropout.html
import jax.numpy as jnp
from flax import linen as nn


class Encoder(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x: jnp.ndarray):
        x = nn.gelu(nn.Dense(self.width)(x))
        x = nn.Dropout(0.1, deterministic=False)(x)
        return nn.Dense(self.width)(x)
