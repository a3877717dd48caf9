# expect: none
# from: https://github.com/googledatalab/pydatalab/pull/392
import torch
from torch import nn

encoder = nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.Dropout(0.3))
net = nn.Sequential(encoder, nn.ReLU(), nn.Dropout(0.3), nn.Linear(256, 10))
optimizer = torch.optim.SGD([*encoder.parameters(), *net.parameters()], lr=0.1)


def step(x, y):
    loss = nn.functional.cross_entropy(net(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
