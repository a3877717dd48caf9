# expect: none
# from: https://github.com/mahmoodlab/CLAM/pull/314
import torch
import torch.nn as nn


class GatedAttention(nn.Module):
    def __init__(self, d=1024, h=256):
        super().__init__()
        self.a = nn.Sequential(nn.Linear(d, h), nn.Tanh(), nn.Dropout(0.25))
        self.b = nn.Sequential(nn.Linear(d, h), nn.Sigmoid(), nn.Dropout(0.25))
        self.c = nn.Linear(h, 1)

    def forward(self, x):
        return self.c(self.a(x) * self.b(x))


def load(path):
    model = GatedAttention()
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


def infer_slide(path, features):
    model = load(path)
    with torch.no_grad():
        scores = model(features)
    return scores.squeeze(-1).cpu().numpy()
