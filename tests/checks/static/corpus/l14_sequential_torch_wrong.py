# expect: L14
# from: https://github.com/googledatalab/pydatalab/pull/392
import torch
from torch import nn

net = nn.Sequential(
    nn.Flatten(),
    nn.Linear(784, 256),
    nn.ReLU(),
    nn.Linear(256, 10),
    nn.Dropout(0.3),
)
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)


def step(x, y):
    loss = nn.functional.cross_entropy(net(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
