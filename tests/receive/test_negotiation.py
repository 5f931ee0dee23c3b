"""What is negotiated: SOP classes, transfer syntaxes, and whose order decides."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from pydicom._uid_dict import UID_dictionary
from pydicom.uid import UID
from pynetdicom import AE, AllStoragePresentationContexts, build_context

from tests.receive.support import (
    CT,
    EXPLICIT,
    IMPLICIT,
    MR,
    VERIFICATION,
    Receiving,
    config,
    receiving,
)
from tests.support import SUCCESS, make_instance, send

CONTEXTS_PER_ASSOCIATION = 128
PRIVATE = "1.3.12.2.1107.5.9.1"
JPEG = "1.2.840.10008.1.2.4.50"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
ACCEPTED, NO_SUCH_CLASS, NO_SUCH_SYNTAX = 0, 3, 4

#: PS3.6 table A-1 names these as transfer syntaxes; none is an encoding that C-STORE carries.
NOT_FOR_STORAGE = {
    "1.2.840.10008.1.2.6.1",  # MIME
    "1.2.840.10008.1.2.6.2",  # XML
    "1.2.840.10008.1.20",  # Papyrus 3
}


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receiving]:
    """A listener with one AE title that accepts everything, and one private SOP class."""
    text = config(f"private_sop_classes: ['{PRIVATE}']")
    with receiving(tmp_path_factory.mktemp("negotiation"), text) as running:
        yield running


def negotiate(
    port: int, proposals: Sequence[tuple[str, Sequence[str]]], called: str = "TEST"
) -> list[tuple[int, str]]:
    """Propose contexts in this order; return each one's result, and the transfer syntax chosen."""
    answers: list[tuple[int, str]] = []
    for start in range(0, len(proposals), CONTEXTS_PER_ASSOCIATION):
        portion = proposals[start : start + CONTEXTS_PER_ASSOCIATION]
        opened = AE("SCU").associate(
            "127.0.0.1",
            port,
            [build_context(abstract, list(transfers)) for abstract, transfers in portion],
            ae_title=called,
        )
        both = [*opened.accepted_contexts, *opened.rejected_contexts]
        both.sort(key=lambda context: context.context_id or 0)
        answers += [
            (context.result or 0, str(context.transfer_syntax[0]) if not context.result else "")
            for context in both
        ]
        if opened.is_established:
            opened.release()
    assert len(answers) == len(proposals)
    return answers


def test_every_storage_class_is_accepted(adapter: Receiving) -> None:
    """Each of the storage SOP classes that pynetdicom knows gets its presentation context."""
    classes = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    assert len(classes) > CONTEXTS_PER_ASSOCIATION
    answers = negotiate(adapter.port, [(uid, [EXPLICIT]) for uid in classes])
    assert answers == [(ACCEPTED, EXPLICIT)] * len(classes)


def test_every_transfer_syntax_of_the_standard_is_accepted_alone(adapter: Receiving) -> None:
    """Whatever encoding of the standard a peer has, it need not have another one too."""
    syntaxes = [
        uid
        for uid, (_, kind, *_) in UID_dictionary.items()
        if kind == "Transfer Syntax" and uid not in NOT_FOR_STORAGE
    ]
    assert len(syntaxes) > 50
    answers = negotiate(adapter.port, [(CT, [uid]) for uid in syntaxes])
    assert answers == [(ACCEPTED, uid) for uid in syntaxes]


def test_an_unknown_class_and_an_unknown_syntax_get_their_own_results(adapter: Receiving) -> None:
    """Result 3 says abstract syntax, result 4 transfer syntaxes (PS3.8 table 9-18)."""
    answers = negotiate(
        adapter.port,
        [
            ("1.2.3.4.5", [EXPLICIT]),
            ("1.2.840.10008.5.1.4.1.2.1.1", [IMPLICIT]),  # Patient Root FIND: no storage
            (CT, ["1.2.3.4.5.6"]),
            (MR, ["1.2.3.4.5.6", *sorted(NOT_FOR_STORAGE)]),
            (CT, [EXPLICIT]),
        ],
    )
    assert [result for result, _ in answers] == [
        NO_SUCH_CLASS,
        NO_SUCH_CLASS,
        NO_SUCH_SYNTAX,
        NO_SUCH_SYNTAX,
        ACCEPTED,
    ]


def test_the_proposers_order_decides_in_each_context(adapter: Receiving) -> None:
    """The first acceptable transfer syntax is taken, whatever other contexts of the class say."""
    answers = negotiate(
        adapter.port,
        [
            (CT, [JPEG, IMPLICIT]),
            (CT, [IMPLICIT, JPEG]),
            (CT, [BIG_ENDIAN, EXPLICIT, IMPLICIT]),
            (CT, ["1.2.3.4", EXPLICIT, IMPLICIT]),
            (MR, [IMPLICIT, EXPLICIT]),
        ],
    )
    assert [chosen for _, chosen in answers] == [JPEG, IMPLICIT, BIG_ENDIAN, EXPLICIT, IMPLICIT]


def test_a_private_class_is_accepted_where_configured_and_stored(adapter: Receiving) -> None:
    """A private SOP class of the configuration is as good as one of the standard."""
    instance = make_instance(SOPClassUID=UID(PRIVATE))
    instance.file_meta.MediaStorageSOPClassUID = UID(PRIVATE)
    assert send(adapter.port, [instance]) == [SUCCESS]
    assert adapter.stored()[-1].sop_class_uid == PRIVATE


def test_a_private_class_is_refused_where_it_is_not_configured(adapter: Receiving) -> None:
    """Nothing private comes in unasked."""
    assert negotiate(adapter.port, [(PRIVATE + ".1", [EXPLICIT])]) == [(NO_SUCH_CLASS, "")]


def test_accepted_classes_limit_the_negotiation(tmp_path: Path) -> None:
    """Only accepted_sop_classes are negotiated, by keyword or UID; other titles are untouched."""
    text = config("", f"SOME: accepted_sop_classes: [CTImageStorage, {PRIVATE}]", "ALL")
    text = text.replace("port: 0", f"port: 0, private_sop_classes: ['{PRIVATE}']", 1)
    proposals = [(CT, [EXPLICIT]), (MR, [EXPLICIT]), (PRIVATE, [EXPLICIT])]
    with receiving(tmp_path, text) as running:
        some = [result for result, _ in negotiate(running.port, proposals, "SOME")]
        everything = [result for result, _ in negotiate(running.port, proposals, "ALL")]
    assert some == [ACCEPTED, NO_SUCH_CLASS, ACCEPTED]
    assert everything == [ACCEPTED] * 3


@pytest.mark.parametrize("ignored", ["MRImageStorage", MR, "1.2.3.4.5.6.7"])
def test_what_is_ignored_is_answered_success_and_not_stored(tmp_path: Path, ignored: str) -> None:
    """Success, no file and no row: also for a class that nobody but the configuration knows."""
    uid = UID(MR if ignored == "MRImageStorage" else ignored)
    instance = make_instance(SOPClassUID=uid)
    instance.file_meta.MediaStorageSOPClassUID = uid
    with receiving(tmp_path, config("", f"TEST: ignored_sop_classes: ['{ignored}']")) as running:
        assert send(running.port, [instance, make_instance(), instance]) == [SUCCESS] * 3
        assert [stored.sop_class_uid for stored in running.stored()] == [CT]
        assert len(running.files()) == 1


@pytest.mark.parametrize(
    ("keys", "proposed", "why"),
    [
        ("", [(VERIFICATION, [IMPLICIT])], ""),
        ("", [("1.2.840.10008.5.1.4.1.2.2.1", [IMPLICIT])], ""),
        ("", [(CT, [EXPLICIT]), (PRIVATE, [EXPLICIT])], ""),
        (", ignored_sop_classes: ['1.9']", [(PRIVATE, [EXPLICIT]), ("1.9", [EXPLICIT])], ""),
        ("", [(PRIVATE, [EXPLICIT])], "SOP class is accepted: see dicom.private_sop_classes"),
        (
            ", accepted_sop_classes: [CTImageStorage]",
            [(MR, [EXPLICIT]), (VERIFICATION, [IMPLICIT])],
            "SOP class is accepted: see accepted_sop_classes",
        ),
        ("", [(CT, ["1.2.3.4"])], "transfer syntax is one that data sets are stored in"),
    ],
)
def test_who_can_store_nothing_is_remembered(
    tmp_path: Path, keys: str, proposed: list[tuple[str, list[str]]], why: str
) -> None:
    """A sender that is let in for nothing is told of with the key; one that asks less is not."""
    with receiving(tmp_path, config("", f"TEST: {keys.removeprefix(', ')}")) as running:
        negotiate(running.port, proposed)
        seen = [rejection.why for rejection in running.listener.rejections()]
    assert [text.endswith(why) for text in seen] == ([True] if why else [])


def test_ignored_and_accepted_classes_work_together(tmp_path: Path) -> None:
    """What is ignored is negotiated beside what is accepted, and only the latter is stored."""
    keys = "accepted_sop_classes: [CTImageStorage], ignored_sop_classes: [MRImageStorage]"
    mr = make_instance(SOPClassUID=UID(MR))
    mr.file_meta.MediaStorageSOPClassUID = UID(MR)
    sc = "1.2.840.10008.5.1.4.1.1.7"
    with receiving(tmp_path, config("", f"TEST: {keys}")) as running:
        answers = negotiate(running.port, [(uid, [EXPLICIT]) for uid in (CT, MR, sc)])
        assert send(running.port, [mr, make_instance()]) == [SUCCESS] * 2
        assert [stored.sop_class_uid for stored in running.stored()] == [CT]
    assert [result for result, _ in answers] == [ACCEPTED, ACCEPTED, NO_SUCH_CLASS]
