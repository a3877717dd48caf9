# expect: L6
# from: https://github.com/lululxvi/deepxde/pull/350
import torch


class Regressor(torch.nn.Module):
    def __init__(self, d):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(64)
        self.a = torch.nn.Linear(d, 64)
        self.b = torch.nn.Linear(64, 1)
        self.drop = torch.nn.Dropout(0.1)

    def forward(self, x):
        return self.b(self.drop(torch.relu(self.norm(self.a(x)))))

    def predict_uncertainty(self, x, times=100):
        self.train()
        with torch.no_grad():
            runs = torch.stack([self(x) for _ in range(times)])
        return runs.mean(0), runs.std(0)
