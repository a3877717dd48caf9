# expect: none
# from: https://github.com/Lightning-AI/pytorch-lightning/issues/20105
import torch
import torch.nn.functional as F
from transformers import AutoModelForSequenceClassification


def distil(batches, teacher_name, student_name, lr=2e-5):
    teacher = AutoModelForSequenceClassification.from_pretrained(teacher_name)
    teacher.eval()
    student = AutoModelForSequenceClassification.from_pretrained(student_name)
    student.train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=lr)
    for batch in batches:
        with torch.no_grad():
            target = teacher(**batch).logits.softmax(-1)
        loss = F.cross_entropy(student(**batch).logits, target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return student
