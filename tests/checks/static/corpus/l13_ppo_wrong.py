# expect: L13
# from: https://github.com/huggingface/trl/issues/744
import torch
from torch import nn


class Policy(nn.Module):
    def __init__(self, obs, actions):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(obs, 64), nn.Tanh(), nn.Dropout(0.1), nn.Linear(64, actions))

    def forward(self, obs):
        return torch.distributions.Categorical(logits=self.net(obs))


def update(policy, optimizer, batch, clip=0.2):
    policy.train()
    new_logprob = policy(batch["obs"]).log_prob(batch["actions"])
    ratio = torch.exp(new_logprob - batch["old_logprob"])
    advantage = batch["advantages"]
    loss = -torch.min(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
