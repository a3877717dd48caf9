# expect: L10
# from: https://github.com/pytorch/pytorch/issues/69801
import torch.nn as nn


def token_encoder(vocab, width):
    return nn.Sequential(nn.Embedding(vocab, width), nn.Dropout2d(0.1), nn.Linear(width, width), nn.ReLU())
