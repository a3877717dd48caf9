# expect: L4
# from: https://github.com/google-research/google-research/pull/369
import flax.linen as nn


class Head(nn.Module):
    features: int
    keep_prob: float = 0.9

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.relu(nn.Dense(128)(x))
        x = nn.Dropout(rate=self.keep_prob)(x, deterministic=not train)
        return nn.Dense(self.features)(x)
