"""Tensors of every layout, for tests."""

from __future__ import annotations

import warnings

import torch

KINDS = ("coo", "csr", "csc", "bsr", "nested", "jagged", "mkldnn", "meta")


def dense(rows, columns):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(3))


def of_kind(kind, rows=6, columns=4, transposed=False):
    """A tensor of the kind; sparse ones store about half of the elements."""
    x = dense(rows, columns)
    x = x * (x > 0)
    x = x.flip(0) if transposed else x
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that these layouts are in beta
        if kind in ("nested", "jagged"):
            layout = torch.jagged if kind == "jagged" else torch.strided
            return torch.nested.nested_tensor([x[:2], x[2:]], layout=layout)
        return {
            "coo": x.to_sparse,
            "csr": x.to_sparse_csr,
            "csc": x.to_sparse_csc,
            "bsr": lambda: x.to_sparse_bsr((2, 2)),
            "mkldnn": x.to_mkldnn,
            "meta": lambda: x.to("meta"),
        }[kind]()
