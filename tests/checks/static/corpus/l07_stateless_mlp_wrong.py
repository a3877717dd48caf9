# expect: L7
# from: https://github.com/pytorch/pytorch/issues/26338
import torch
import torch.nn.functional as F


def mlp(x, weights, biases, p=0.3):
    """A perceptron from lists of tensors, as meta-learning wants it."""
    last = len(weights) - 1
    for i, (w, b) in enumerate(zip(weights, biases)):
        x = F.linear(x, w, b)
        if i < last:
            x = torch.dropout(F.relu(x), p, True)
    return x
