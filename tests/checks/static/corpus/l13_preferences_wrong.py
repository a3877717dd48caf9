# expect: L13
# from: https://github.com/huggingface/trl/issues/3500
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

name = "Qwen/Qwen2-0.5B-Instruct"
model = AutoModelForCausalLM.from_pretrained(name)
config = DPOConfig(output_dir="out", beta=0.1, disable_dropout=False)
trainer = DPOTrainer(
    model=model,
    args=config,
    processing_class=AutoTokenizer.from_pretrained(name),
    train_dataset=load_dataset("trl-lib/ultrafeedback_binarized", split="train"),
)
trainer.train()
