"""What an instance says of its frames: one of its own, or those of an enhanced multi-frame image.

An enhanced image says in groups of attributes what holds for each frame, or for all of them (PS3.3
C.7.6.16); any other instance says it in itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items
from pydicom.tag import Tag

SHARED = int(Tag("SharedFunctionalGroupsSequence"))
PER_FRAME = int(Tag("PerFrameFunctionalGroupsSequence"))


@dataclass(frozen=True)
class Frame:
    """The places where something may be said of one frame, the most particular one first."""

    places: tuple[Dataset, ...]

    def values(self, tag: int) -> tuple[object, ...] | None:
        """Return the values of an attribute: none where it is absent or empty.

        Those of a sequence are its items. None: it has a value that cannot be read.
        """
        for place in self.places:
            try:
                found = _values(place, tag)
            except Exception:  # noqa: BLE001 - pydicom meets broken values with errors of many kinds
                return None
            if found:
                return found
        return ()

    def numbers(self, keyword: str) -> tuple[float, ...] | None:
        """Return the numbers of an attribute; None where they cannot be read."""
        found = self.values(tag_of(keyword))
        try:
            return None if found is None else tuple(float(str(value)) for value in found)
        except ValueError:
            return None


def tag_of(keyword: str) -> int:
    """Return the tag of a keyword of the data dictionary."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise ValueError(f"the data dictionary has no {keyword}")
    return tag


def frames_of(instance: Dataset) -> Iterator[Frame]:
    """Yield the frames of an instance, in their order."""
    whole = Frame((instance,))
    shared = tuple(_places(whole.values(SHARED)))
    of_frames = whole.values(PER_FRAME)
    if not of_frames:
        yield Frame((*shared, instance))
        return
    for group in of_frames:
        yield Frame((*_places((group,)), *shared, instance))


def _places(groups: tuple[object, ...] | None) -> Iterator[Dataset]:
    """Yield functional groups, and what is in the sequences of each."""
    for group in groups or ():
        if not isinstance(group, Dataset):
            continue
        yield group
        for tag in group.keys():  # noqa: SIM118 - of a data set, the tags; iteration gives elements
            found = Frame((group,)).values(int(tag))
            yield from (item for item in found or () if isinstance(item, Dataset))


def _values(place: Dataset, tag: int) -> tuple[object, ...]:
    if tag not in place:
        return ()
    value = place[tag].value
    several = value if isinstance(value, MultiValue | Items | list | tuple) else [value]
    return tuple(found for found in map(_plain, several) if found not in ("", None))


def _plain(value: object) -> object:
    # A private attribute of an implicit transfer syntax comes without its representation.
    if isinstance(value, bytes):
        value = value.decode("ascii")
    return value.strip(" \0") if isinstance(value, str) else value
