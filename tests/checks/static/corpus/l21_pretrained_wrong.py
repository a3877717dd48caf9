# expect: L21
# from: https://github.com/Lightning-AI/pytorch-lightning/issues/20105
import torch
from transformers import AutoModelForSequenceClassification


def finetune(batches, name="bert-base-uncased", lr=2e-5):
    net = AutoModelForSequenceClassification.from_pretrained(name, hidden_dropout_prob=0.2)
    net.eval()
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr)
    for batch in batches:
        loss = net(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return net
