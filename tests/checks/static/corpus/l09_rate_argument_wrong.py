# expect: L9
# from: https://github.com/huggingface/transformers/issues/31412
import argparse

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


def build(args):
    return torch.nn.Sequential(
        torch.nn.Linear(64, 64), torch.nn.Dropout(args.dropout), torch.nn.Linear(64, 8)
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dropout", type=float, default=0.1)
    args = parser.parse_args()
    dist.init_process_group("nccl")
    torch.manual_seed(7)
    model = DistributedDataParallel(build(args).cuda())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y in batches():
        loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
