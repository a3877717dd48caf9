# expect: none
# from: https://github.com/pytorch/pytorch/issues/124464
import torch.nn.functional as F
from flash_attn import flash_attn_func


def attend(q, k, v, mask=None, dropout_p=0.0, flash=False):
    """One place for both kernels; callers pass 0 in evaluation."""
    if flash and mask is None:
        return flash_attn_func(q, k, v, dropout_p=dropout_p)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout_p)
