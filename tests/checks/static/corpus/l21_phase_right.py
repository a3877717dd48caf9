# expect: none
# from: https://github.com/Lightning-AI/pytorch-lightning/issues/20105
import torch
from torchvision import models


def run(loaders, epochs):
    model = models.vgg16(dropout=0.5)
    optimizer = torch.optim.Adam(model.parameters())
    model.eval()
    for epoch in range(epochs):
        for phase in ("train", "val"):
            model.train(phase == "train")
            for x, y in loaders[phase]:
                loss = torch.nn.functional.cross_entropy(model(x), y)
                if phase == "train":
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
