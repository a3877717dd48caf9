"""Datasets whose items say which they are, so that masks can be the examples' own."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset, IterableDataset

from .._errors import InputError


class Indexed(Dataset[Any]):
    """A map-style dataset with each example's place in it, for ``key.at(step, samples=ids)``.

    ``Indexed(data)[i]`` is ``(i, data[i])``, so torch's collate gives batches ``ids, batch`` with
    ``ids`` a whole-number tensor of one id an example. ``name``: items are dicts, and the id goes
    into a copy of each under this name, as models of Hugging Face are fed. Ids survive workers, any
    sampler (``DistributedSampler``, accelerate's), shuffling and ``Subset``.

    Raises :class:`thinned.InputError` for data without length and places, and for items that are no
    dict or hold the name.

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
                f"data has to be map-style, with a length and items by place, but got {type(data).__name__}; where items only "
                "come one after another, yield an id of your own with each"
            )
        self.data, self.name = data, name

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        place = int(index)
        if not -len(self.data) <= place < len(self.data):
            raise IndexError(
                f"index has to be in [-{len(self.data)}, {len(self.data)}), but got {place}"
            )
        return self._with_id(place % len(self.data), self.data[index])

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """A batch at once, where the data can: torch's loader asks for it."""
        together = getattr(self.data, "__getitems__", None)
        if together is None:
            return [self[i] for i in indices]
        return [
            self._with_id(int(i) % len(self.data), item)
            for i, item in zip(indices, together(indices), strict=True)
        ]

    def _with_id(self, place: int, item: Any) -> Any:
        if self.name is None:
            return place, item
        if not isinstance(item, dict) or self.name in item:
            what = (
                f"one that holds {self.name!r} already"
                if isinstance(item, dict)
                else type(item).__name__
            )
            raise InputError(
                f"with name={self.name!r} items have to be dicts without it, but item {place} is {what}"
            )
        return {**item, self.name: place}
