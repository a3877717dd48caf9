# expect: none
# from: https://github.com/jax-ml/jax/issues/170
import jax
from flax import linen as nn


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Dense(64)(x))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(1)(x)


@jax.jit
def train_step(state, x, y):
    key = jax.random.fold_in(jax.random.PRNGKey(0), state.step)

    def loss_fn(params):
        pred = state.apply_fn({"params": params}, x, True, rngs={"dropout": key})
        return ((pred - y) ** 2).mean()

    grads = jax.grad(loss_fn)(state.params)
    return state.apply_gradients(grads=grads)
