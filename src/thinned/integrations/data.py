"""Data sets that return sample ids, so that each example has masks of its own."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset, IterableDataset

from .._errors import InputError


class Indexed(Dataset[Any]):
    """A map-style data set that returns each example with its index, for ``key.at``.

    ``Indexed(data)[i]`` is ``(i, data[i])``, so the default collation returns batches ``ids,
    batch``, where ``ids`` is an integer tensor with one id per example, for
    ``key.at(step, samples=ids)``. The ids are the same with any number of workers, any sampler
    (``DistributedSampler``, that of accelerate), shuffling and ``Subset``.

    Args:
        data: A data set with ``__len__`` and ``__getitem__``.
        name: Items are dicts, as for models of Hugging Face, and the id is added to a copy of each
            under this name; None returns pairs.

    Raises:
        InputError: Where ``data`` has no length or no indices, or where an item is not a dict or
            already has the name.

    Example:
        >>> Indexed(["a", "b"])[1]
        (1, 'b')
        >>> Indexed([{"x": 0.5}], name="sample")[0]
        {'x': 0.5, 'sample': 0}
    """

    def __init__(self, data: Any, name: str | None = None) -> None:
        if isinstance(data, IterableDataset) or not (
            hasattr(data, "__len__") and hasattr(data, "__getitem__")
        ):
            raise InputError(
                "data has to be map-style, with a length and items by index, but got "
                f"{type(data).__name__}; a stream can yield an id with each item"
            )
        self.data, self.name = data, name

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        position = int(index)
        if not -len(self.data) <= position < len(self.data):
            raise IndexError(
                f"index has to be in [-{len(self.data)}, {len(self.data)}), but got {position}"
            )
        return self._with_id(position % len(self.data), self.data[index])

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """The items of a batch at once, which the loader of torch asks for."""
        get_items = getattr(self.data, "__getitems__", None)
        if get_items is None:
            return [self[i] for i in indices]
        return [
            self._with_id(int(i) % len(self.data), item)
            for i, item in zip(indices, get_items(indices), strict=True)
        ]

    def _with_id(self, sample_id: int, item: Any) -> Any:
        if self.name is None:
            return sample_id, item
        if not isinstance(item, dict) or self.name in item:
            kind = type(item).__name__
            if isinstance(item, dict):
                kind = f"a dict that holds {self.name!r} already"
            raise InputError(
                f"with name={self.name!r} items have to be dicts without this key, but item "
                f"{sample_id} is {kind}"
            )
        return {**item, self.name: sample_id}
