# expect: none
# from: https://flax-linen.readthedocs.io/en/latest/guides/training_techniques/dropout.html
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn


class Encoder(nn.Module):
    width: int

    @nn.compact
    def __call__(self, x: jnp.ndarray, deterministic: bool):
        x = nn.gelu(nn.Dense(self.width)(x))
        x = nn.Dropout(0.1)(x, deterministic=deterministic)
        return nn.Dense(self.width)(x)


def train_loss(params, model, x, y, rng):
    logits = model.apply({"params": params}, x, deterministic=False, rngs={"dropout": rng})
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


step = jax.jit(jax.grad(train_loss), static_argnums=1)
