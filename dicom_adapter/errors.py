"""The one tree of exceptions; each edge (DIMSE, gRPC, exit code) translates it in one place.

DicomAdapterError
├── ConfigError                  the configuration is wrong; holds every mistake
├── StartError                   the service cannot start here: port taken, folder not writable
├── InvalidArgumentError         a caller's value is wrong; names the field
├── NotFoundError                a caller named something that does not exist
├── AlreadyExistsError           a caller asked for something that is there already
├── UnauthenticatedError         nobody knows who calls: no token, or none that is valid
├── PermissionDeniedError        the caller is known, but may not
├── WrongStateError              the thing is there, but its state forbids the move
│   └── StaleLeaseError          the job is no longer held by the attempt that wants to change it
├── SourceError                  a source refuses, or cannot do, what it is asked for
├── NoPictureError               an instance holds nothing that can be drawn
├── UnavailableError             the peer does not answer now; try again later
│   ├── UncertainError           not done, but a crash may do it after all
│   └── FullError                a queue has all that its limit lets in
├── RefusedInstanceError         a received instance is refused; the sender is told why
│   ├── OutOfResourcesError      no room or no ledger to keep it in
│   ├── NoInstanceUIDError       the C-STORE command names no SOP instance
│   ├── UnsupportedClassError    its SOP class is not that of the presentation context
│   ├── MismatchedInstanceError  the data set is not what the C-STORE command announced
│   └── UnreadableInstanceError  the data set cannot be understood or grouped
└── QuarantineInstance           a processor sets an instance aside for a person to see
"""

import sysconfig
import traceback
from dataclasses import dataclass


class DicomAdapterError(Exception):
    """Anything that this product raises on purpose."""


@dataclass(frozen=True)
class Mistake:
    """One mistake in a configuration file."""

    file: str
    line: int
    key: str
    problem: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.key}: {self.problem}"


class ConfigError(DicomAdapterError):
    """The configuration is wrong; every mistake is told at once, a line each."""

    def __init__(self, mistakes: tuple[Mistake, ...]) -> None:
        super().__init__("\n".join(map(str, mistakes)))
        self.mistakes = mistakes


class StartError(DicomAdapterError):
    """The service cannot start on this machine as it is now."""


class InvalidArgumentError(DicomAdapterError):
    """A caller's value is wrong."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class NotFoundError(DicomAdapterError):
    """A caller named something that does not exist."""


class AlreadyExistsError(DicomAdapterError):
    """A caller asked for something that is there already."""


class UnauthenticatedError(DicomAdapterError):
    """Nobody knows who calls."""


class PermissionDeniedError(DicomAdapterError):
    """The caller is known, but may not do this."""


class WrongStateError(DicomAdapterError):
    """The thing exists, but its state forbids the move."""


class StaleLeaseError(WrongStateError):
    """The job is no longer held by the attempt that wants to change it."""


class SourceError(DicomAdapterError):
    """A source of studies refuses, or cannot do, what it is asked for; asking again is no use."""


class NoPictureError(DicomAdapterError):
    """The instance holds no picture, or none that can be decoded and drawn here."""


class UnavailableError(DicomAdapterError):
    """The peer does not answer now; the same call may succeed later."""


class UncertainError(UnavailableError):
    """A change was not made, but a crash may make it after all."""


class FullError(UnavailableError):
    """A queue holds as much as its limit lets in; it will have room again."""


class RefusedInstanceError(DicomAdapterError):
    """A received instance is refused."""


class OutOfResourcesError(RefusedInstanceError):
    """There is no room, or no ledger, to keep the instance in."""


class NoInstanceUIDError(RefusedInstanceError):
    """The C-STORE command names no SOP instance by one UID."""


class UnsupportedClassError(RefusedInstanceError):
    """The SOP class of the C-STORE command is not that of the presentation context."""


class MismatchedInstanceError(RefusedInstanceError):
    """The data set is not what the C-STORE command announced."""


class UnreadableInstanceError(RefusedInstanceError):
    """The data set cannot be understood, or lacks what every group needs."""


class QuarantineInstance(DicomAdapterError):  # noqa: N818 - not a fault: a processor's decision
    """A processor sets the instance aside: no group can take it, and a person shall see why."""


def fingerprint(error: BaseException) -> dict[str, str]:
    """Return type and place of an exception, for a log line.

    Its message may quote a data set, and so patient data; these two do not.
    """
    frames = traceback.extract_tb(error.__traceback__)
    # The innermost line that is not a library's: there the cause is looked for.
    libraries = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"))
    own = [frame for frame in frames if not frame.filename.startswith(libraries)]
    places = [f"{frame.filename}:{frame.lineno}" for frame in own or frames]
    return {"error": type(error).__name__, "at": places[-1] if places else "unknown"}
