# expect: none
# from: https://github.com/Lightning-AI/pytorch-lightning/issues/20105
import pytorch_lightning as pl
import torch
from torch import nn


class LitNet(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(30, 64), nn.Dropout(0.3), nn.Linear(64, 2))

    def training_step(self, batch, _):
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    @torch.no_grad()
    def validation_step(self, batch, _):
        x, y = batch
        self.log("val_acc", (self.net(x).argmax(1) == y).float().mean())

    def test_step(self, batch, _):
        return self.validation_step(batch, _)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())
