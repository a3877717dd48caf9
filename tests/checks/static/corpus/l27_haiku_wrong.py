# expect: L27
# from: https://docs.jax.dev/en/latest/random-numbers.html
import haiku as hk
import jax


def network(x, rate=0.1):
    rng = hk.next_rng_key()
    x = jax.nn.gelu(hk.Linear(512)(x))
    x = hk.dropout(rng, rate, x)
    x = jax.nn.gelu(hk.Linear(512)(x))
    x = hk.dropout(rng, rate, x)
    return hk.Linear(10)(x)
