# expect: L27
# from: https://docs.jax.dev/en/latest/random-numbers.html
import equinox as eqx
import jax


class Block(eqx.Module):
    attention: eqx.nn.MultiheadAttention
    mlp: eqx.nn.MLP
    dropout1: eqx.nn.Dropout
    dropout2: eqx.nn.Dropout

    def __call__(self, x, *, key, inference=False):
        x = x + self.dropout1(self.attention(x, x, x), key=key, inference=inference)
        x = x + self.dropout2(jax.vmap(self.mlp)(x), key=key, inference=inference)
        return x
