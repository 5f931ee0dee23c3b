"""Tells the volumes apart that a series holds at the same positions: times, echoes, b-values."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from dicom_adapter.pipelines.planes import VOLUME_KEYS
from dicom_adapter.pipelines.series import Image

Slices = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Order:
    """Indices of images, as many volumes for each slice, and what they are ordered by."""

    slices: Slices
    keyword: str | None


def order_volumes(images: Sequence[Image], slices: Slices) -> Order | None:
    """Order the images at each position so that the n-th of each are one volume.

    An attribute orders them when at each position it has the same values, each once. Failing that,
    the order of InstanceNumber (and of frames) does if all volumes, or all positions, follow one
    another in it. None when there is no such order.
    """
    if {len(same) for same in slices} == {1}:
        return Order(slices, None)
    keys = [dict(image.plane.volume_keys) for image in images]
    for keyword in dict.fromkeys(keyword for _, keyword in VOLUME_KEYS):
        values = [[keys[index].get(keyword) for index in same] for same in slices]
        known = [sorted(value for value in at_one if value is not None) for at_one in values]
        agree = all(at_one == known[0] for at_one in known)
        if agree and len(set(known[0])) == len(slices[0]):
            by_value = [sorted(same, key=lambda index: keys[index][keyword]) for same in slices]
            return Order(tuple(map(tuple, by_value)), keyword)
    return _by_number(images, slices)


def _by_number(images: Sequence[Image], slices: Slices) -> Order | None:
    """The order of InstanceNumber and frame, if it goes volume by volume or slice by slice."""
    numbers = [(image.instance.instance_number, image.plane.frame) for image in images]
    if any(number is None for number, _ in numbers) or len(set(numbers)) < len(numbers):
        return None
    ranks = [(number or 0, frame) for number, frame in numbers]
    ordered = tuple(tuple(sorted(same, key=lambda index: ranks[index])) for same in slices)
    place = {index: (k, t) for k, same in enumerate(ordered) for t, index in enumerate(same)}
    sequence = [place[index] for index in sorted(place, key=lambda index: ranks[index])]
    volumes = [t for _, t in sequence]
    changes = sum(one[0] != other[0] for one, other in pairwise(sequence))
    if volumes == sorted(volumes) or changes == len(slices) - 1:
        return Order(ordered, "InstanceNumber")
    return None
