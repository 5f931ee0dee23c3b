"""The storage SOP classes by keyword and UID, as pynetdicom knows them."""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, ValidationInfo
from pydicom.uid import UID
from pynetdicom import AllStoragePresentationContexts, sop_class

from dicom_adapter.config import units
from dicom_adapter.config.values import Kind, check_uid, from_context, near


@cache
def storage_classes() -> Mapping[str, str]:
    """Gives the UID of every storage SOP class by its keyword, such as CTImageStorage."""
    uids = {str(context.abstract_syntax) for context in AllStoragePresentationContexts}
    # The two libraries spell some keywords differently, and know a few that the other does not.
    classes = {
        name: str(uid)
        for name, uid in vars(sop_class).items()
        if isinstance(uid, str) and uid in uids
    }
    classes |= {UID(uid).keyword: uid for uid in uids}
    return MappingProxyType({name: uid for name, uid in classes.items() if name})


def _storage_class(value: str) -> str:
    """Gives the UID that a keyword or UID stands for."""
    if value[:1].isdigit():
        return check_uid(value)
    classes = storage_classes()
    if value not in classes:
        raise ValueError(
            f"{units.show(value)} is no storage SOP class: give its UID, or its keyword such as "
            f"CTImageStorage{near(value, classes)}"
        )
    return classes[value]


def _accepted_class(value: str, info: ValidationInfo) -> str:
    uid = _storage_class(value)
    private: frozenset[str] | None = from_context(info, "private_sop_classes")
    if private is None or uid in private or uid in storage_classes().values():
        return uid
    raise ValueError(
        f"{uid} is no storage SOP class known here: add it to dicom.private_sop_classes if it is "
        "a private one"
    )


def _not_empty(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise ValueError("would accept nothing: leave it out to accept every storage SOP class")
    return values


_KIND = Kind("UID or keyword")

StorageClass: TypeAlias = Annotated[str, AfterValidator(_storage_class), _KIND]
IgnoredClass: TypeAlias = StorageClass
AcceptedClass: TypeAlias = Annotated[str, AfterValidator(_accepted_class), _KIND]
AcceptedClasses: TypeAlias = Annotated[tuple[AcceptedClass, ...], AfterValidator(_not_empty)]
