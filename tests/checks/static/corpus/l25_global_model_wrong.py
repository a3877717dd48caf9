# expect: L25
# from: https://github.com/rusty1s/pytorch_geometric
import torch
import torch.nn.functional as F

model = build(dropout=0.2)
optimizer = torch.optim.Adam(model.parameters())


def train():
    for x, y in loader():
        loss = F.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def test():
    return sum(float(F.mse_loss(model(x), y)) for x, y in loader())
