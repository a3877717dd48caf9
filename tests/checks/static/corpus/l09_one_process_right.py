# expect: none
# from: https://github.com/huggingface/transformers/issues/31412
import torch
from torch import nn

torch.manual_seed(42)
model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 1))
optimizer = torch.optim.Adam(model.parameters())
x, y = torch.randn(512, 8), torch.randn(512, 1)
for _ in range(100):
    loss = nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
