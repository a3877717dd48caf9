# expect: none
# from: https://flax-linen.readthedocs.io/en/latest/guides/training_techniques/dropout.html
from flax import linen as nn


class Tower(nn.Module):
    units: int

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.relu(nn.Dense(self.units)(x))
        x = nn.Dropout(0.3)(x, deterministic=not train)
        return nn.Dense(1)(x)
