# expect: L28
# from: https://github.com/speechbrain/speechbrain/issues/2340
import torch
from transformers import Wav2Vec2Config, Wav2Vec2Model


def build(local_rank):
    config = Wav2Vec2Config(layerdrop=0.1)
    model = Wav2Vec2Model(config).to(local_rank)
    return torch.nn.parallel.DistributedDataParallel(
        model, device_ids=[local_rank], find_unused_parameters=False
    )
