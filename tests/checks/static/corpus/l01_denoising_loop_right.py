# expect: none
# from: https://github.com/pytorch/pytorch/issues/26338
import torch
import torch.nn.functional as F


def train_denoiser(model, loader, optimizer, corruption=0.3):
    model.train()
    for x, _ in loader:
        noisy = F.dropout(x, corruption)
        loss = F.mse_loss(model(noisy), x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
