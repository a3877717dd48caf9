# expect: L9
# from: https://github.com/huggingface/accelerate/issues/114
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn


def train(args, loader):
    accelerator = Accelerator()
    set_seed(args.seed)
    model = nn.Sequential(nn.Linear(32, 64), nn.Dropout(0.3), nn.Linear(64, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    model.train()
    for x, y in loader:
        loss = nn.functional.cross_entropy(model(x), y)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
