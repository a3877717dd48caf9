# expect: L27
# from: https://docs.jax.dev/en/latest/random-numbers.html
import jax
import jax.numpy as jnp
from jax import random as jr


def mlp(params, x, key, p=0.2):
    h = jax.nn.relu(x @ params["w1"])
    h = jnp.where(jr.bernoulli(key, 1 - p, h.shape), h / (1 - p), 0)
    h = jax.nn.relu(h @ params["w2"])
    h = jnp.where(jr.bernoulli(key, 1 - p, h.shape), h / (1 - p), 0)
    return h @ params["w3"]
