"""Takes in DICOM files as they come over HTTP (PS3.18 section 10.4.1.1.1), piece by piece."""

from collections.abc import Iterable, Iterator
from io import BytesIO
from struct import Struct

from pydicom import dcmread
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from dicom_adapter.errors import SourceError, UnreadableInstanceError
from dicom_adapter.receive.deposit import Deposit, Incoming, Named
from dicom_adapter.retrieve.problems import Problems

_PREFIX = b"DICM"
# Preamble, prefix, and the group length element, which stands before what it counts (PS3.10 7.1).
_START = Struct("<128s4sHH2sHI")
_LONGEST_META = 64 * 1024
# As many are kept together: their flushes and commit are shared.
_MOST_AT_A_TIME = 16


def take_in(content_type: str, chunks: Iterable[bytes], deposit: Deposit) -> Iterator[str]:
    """Take in the files of an answer; yield why one was not taken, or nothing as it goes on.

    Raises:
        SourceError: the answer is none that has files in it.
    """
    files = _Files(deposit)
    kind, options = parse_options_header(content_type)
    try:
        if kind == b"application/dicom":
            # Some servers answer so where one file was asked for.
            files.begin()
            for chunk in chunks:
                files.take(chunk, 0, len(chunk))
                if files.is_refused:
                    # The rest of it may have no end.
                    break
                yield ""
            files.end()
        elif kind == b"multipart/related" and options.get(b"boundary"):
            parser = MultipartParser(
                options[b"boundary"],
                {
                    "on_part_begin": files.begin,
                    "on_part_data": files.take,
                    "on_part_end": files.end,
                },
            )
            for chunk in chunks:
                parser.write(chunk)
                yield from files.problems.told()
                yield ""
        else:
            raise SourceError("its answer holds no DICOM files")
        files.keep()
        yield from files.problems.told()
    except MultipartParseError as error:
        raise SourceError("its answer is no multipart message") from error
    finally:
        files.close()


class _Files:
    """The files of one answer: each is taken in as it comes, and several are kept together."""

    def __init__(self, deposit: Deposit) -> None:
        self._deposit = deposit
        self._head = bytearray()
        self._coming: Incoming | None = None
        #: Why the present one cannot be taken; the rest of it is only read then.
        self._error: Exception | None = None
        self._finished: list[Incoming] = []
        self.problems = Problems()

    @property
    def is_refused(self) -> bool:
        """Whether the present file cannot be taken."""
        return self._error is not None

    def begin(self) -> None:
        """Begin with the next file."""
        self._head, self._coming, self._error = bytearray(), None, None

    def take(self, data: bytes, start: int, end: int) -> None:
        """Take the next bytes of it."""
        if self._error is not None:
            return
        piece = memoryview(data)[start:end]
        try:
            if self._coming is not None:
                self._coming.write(piece)
                return
            self._head += piece
            length = _length_of_meta(self._head)
            if length is not None and len(self._head) >= length:
                head, self._head = bytes(self._head), bytearray()
                self._coming = self._deposit.begin(_named(head[:length]))
                self._coming.write(head[length:])
        except Exception as error:  # noqa: BLE001 - a fault of ours costs this instance alone
            self._fail(error)

    def end(self) -> None:
        """Finish it."""
        coming, self._coming = self._coming, None
        if self._error is not None:
            return
        if coming is None:
            self._fail(UnreadableInstanceError("it is no DICOM file"))
            return
        try:
            coming.finish()
        except Exception as error:  # noqa: BLE001 - as above
            coming.discard()
            self._fail(error)
            return
        self._finished.append(coming)
        if len(self._finished) == _MOST_AT_A_TIME:
            self.keep()

    def keep(self) -> None:
        """Keep what is finished."""
        finished, self._finished = self._finished, []
        if not finished:
            return
        try:
            for outcome in self._deposit.keep(finished):
                if outcome.error is not None:
                    self.problems.note(outcome.error)
        finally:
            for one in finished:
                one.discard()

    def close(self) -> None:
        """Keep what is whole, and leave nothing of the rest."""
        try:
            self.keep()
        finally:
            if self._coming is not None:
                self._coming.discard()
                self._coming = None

    def _fail(self, error: Exception) -> None:
        self._error = error
        if self._coming is not None:
            self._coming.discard()
            self._coming = None
        self.problems.note(error)


def _length_of_meta(head: bytearray) -> int | None:
    """Return how long a file's beginning is, up to its data set; None: that is not here yet."""
    if len(head) < _START.size:
        return None
    _preamble, prefix, group, element, _vr, _size, length = _START.unpack_from(head)
    if prefix != _PREFIX or (group, element) != (2, 0) or length > _LONGEST_META:
        raise UnreadableInstanceError("it is no DICOM file with its file meta information")
    return _START.size + int(length)


def _named(head: bytes) -> Named:
    try:
        meta = dcmread(BytesIO(head)).file_meta
        uids = (
            meta.MediaStorageSOPClassUID,
            meta.MediaStorageSOPInstanceUID,
            meta.TransferSyntaxUID,
        )
    except Exception as error:
        # pydicom meets what is no file meta information with errors of many kinds.
        raise UnreadableInstanceError("its file meta information lacks a UID") from error
    return Named(*map(str, uids))
