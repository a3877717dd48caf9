# expect: none
# from: https://docs.jax.dev/en/latest/random-numbers.html
import jax
import jax.numpy as jnp
from jax import random as jr


def noise(x, key, p=0.2, gaussian=False):
    if gaussian:
        x = x * (1 + jr.normal(key, x.shape) * (p / (1 - p)) ** 0.5)
    else:
        x = jnp.where(jr.bernoulli(key, 1 - p, x.shape), x / (1 - p), 0)
    return jax.nn.relu(x)


def layers(params, x, key, p=0.2):
    for w in params:
        key, sub = jr.split(key)
        x = jnp.where(jr.bernoulli(sub, 1 - p, x.shape), x / (1 - p), 0) @ w
    return x
