"""Which instances become one group, and when it is due; over the wire, on a clock of our own."""

from collections.abc import Iterator
from datetime import timedelta
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_adapter.model import GroupSummary, Priority
from tests.processors.tools import config, submitted, title, wait_submitted
from tests.support import SUCCESS, ManualClock, Running, make_instance, running, send


def private(value: str, *, implicit: bool) -> Dataset:
    """Return an instance with a private attribute (0099,1001)."""
    instance = make_instance()
    instance.add_new(0x00990010, "LO", "OURS")
    instance.add_new(0x00991001, "LO", value)
    instance.file_meta.TransferSyntaxUID = (
        ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    )
    buffer = BytesIO()
    instance.save_as(buffer, implicit_vr=implicit, little_endian=True)
    buffer.seek(0)
    return dcmread(buffer)


def keys(adapter: Running, name: str) -> list[tuple[str, int]]:
    """Return key and size of the groups of an AE title."""
    return [(group.key, group.instances) for group in adapter.groups() if group.ae_title == name]


def open_group(adapter: Running, instances: int) -> GroupSummary:
    """Wait until one group holds so many instances, and return it."""
    (group,) = adapter.grouped(instances)
    return group


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with an AE title for each kind of `group_by`; its clock stands still."""
    text = config(
        title("SERIES", group_by="series"),
        title("PATIENT", group_by="patient"),
        title("ASSOCIATION", group_by="association"),
        title("ACCESSION", group_by="(0008,0050)"),
        title("NUMBER", group_by="SeriesNumber"),
        title("PRIVATE", group_by="0099,1001"),
    )
    with running(tmp_path_factory.mktemp("levels"), text, ManualClock()) as adapter:
        yield adapter


def grouped(adapter: Running, name: str, *associations: list[Dataset]) -> list[tuple[str, int]]:
    """Send each list over an association of its own; return the groups that it makes."""
    for instances in associations:
        assert set(send(adapter.port, instances, called=name)) == {SUCCESS}
    count = sum(map(len, associations))

    def found() -> list[tuple[str, int]]:
        groups = keys(adapter, name)
        return groups if sum(size for _, size in groups) == count else []

    return adapter.wait_for(found)


def test_s70_each_ae_title_decides_what_its_instances_become(tmp_path: Path) -> None:
    """The same two series become one job at one AE title, and two of another pipeline elsewhere."""
    clock = ManualClock()
    text = config(
        "ONE: {settings: {pipeline-a: lung}}",
        "TWO: {settings: {group_by: series, pipeline-a: heart}}",
        pipelines=("lung", "heart"),
    )
    series = [make_instance(series="1.2.3.4"), make_instance(series="1.2.3.5")]
    with running(tmp_path, text, clock) as adapter:
        for name in ("ONE", "TWO"):
            assert send(adapter.port, series, called=name) == [SUCCESS] * 2
        adapter.grouped(4)
        clock.advance(5)
        found = wait_submitted(adapter, 3)
    made = [(s.submission.ae_title, s.submission.pipeline, len(s.instances)) for s in found]
    assert sorted(made) == [("ONE", "lung", 2), ("TWO", "heart", 1), ("TWO", "heart", 1)]


def test_s73_by_default_a_study_is_a_group(tmp_path: Path) -> None:
    """Instances of two studies, mixed in one association, become a job for each study."""
    clock = ManualClock()
    mixed = [make_instance(study=f"1.2.{n % 2 + 1}", series=f"1.2.3.{n}") for n in range(6)]
    with running(tmp_path, config(title("TEST")), clock) as adapter:
        assert send(adapter.port, mixed) == [SUCCESS] * 6
        assert [group.key for group in adapter.grouped(6)] == ["1.2.1", "1.2.2"]
        clock.advance(5)
        jobs = wait_submitted(adapter, 2)
    studies = [{i.study_instance_uid for i in job.instances} for job in jobs]
    assert sorted(studies, key=sorted) == [{"1.2.1"}, {"1.2.2"}]
    assert [len(job.instances) for job in jobs] == [3, 3]


def test_s74_the_priority_is_put_on_the_jobs(tmp_path: Path) -> None:
    """Jobs have the priority that their AE title says, and `normal` where it says none."""
    clock = ManualClock()
    words = ("lower", "normal", "higher", "immediate")
    text = config(title("NONE"), *[title(word.upper(), priority=word) for word in words])
    with running(tmp_path, text, clock) as adapter:
        for name in ("NONE", "LOWER", "NORMAL", "HIGHER", "IMMEDIATE"):
            assert send(adapter.port, [make_instance()], called=name) == [SUCCESS]
        adapter.grouped(5)
        clock.advance(5)
        found = {job.ae_title: job.priority for job in adapter.ended_jobs(5)}
    assert found == {
        "NONE": Priority.NORMAL,
        "LOWER": Priority.LOWER,
        "NORMAL": Priority.NORMAL,
        "HIGHER": Priority.HIGHER,
        "IMMEDIATE": Priority.IMMEDIATE,
    }


def test_s75_the_timeout_is_waited_for_from_the_last_instance(tmp_path: Path) -> None:
    """A group is due the timeout after its last instance, to the microsecond, and not before."""
    clock = ManualClock()
    with running(tmp_path, config(title("TEST", timeout=60)), clock) as adapter:
        send(adapter.port, [make_instance()])
        opened = open_group(adapter, 1).opened_at
        clock.advance(59.999999)
        send(adapter.port, [make_instance()])
        group = open_group(adapter, 2)
        assert group.opened_at == opened
        assert group.last_instance_at == opened + timedelta(seconds=59.999999)
        assert group.ready_at == group.last_instance_at + timedelta(seconds=60)
        clock.advance(59.999999)
        # What comes now is handled after everything that was due before it.
        send(adapter.port, [make_instance(study="1.9")])
        assert len(adapter.grouped(3)) == 2
        assert submitted(adapter) == []
        clock.advance(0.000001)
        (job,) = wait_submitted(adapter, 1)
    assert len(job.instances) == 2


def test_s84_associations_do_not_bound_a_group(tmp_path: Path) -> None:
    """One study from four associations, of two senders, is one group."""
    with running(tmp_path, config(title("TEST")), ManualClock()) as adapter:
        for calling in ("CT1", "CT1", "CT2", "CT2"):
            assert send(adapter.port, [make_instance()], calling=calling) == [SUCCESS]
        assert open_group(adapter, 4).key == "1.2.3"


def test_max_wait_caps_a_study_that_never_stops(tmp_path: Path) -> None:
    """Instances that keep coming defer a group no further than `max_wait` after its first."""
    clock = ManualClock()
    with running(tmp_path, config(title("TEST", timeout=10, max_wait=25)), clock) as adapter:
        send(adapter.port, [make_instance()])
        opened = open_group(adapter, 1).opened_at
        for count, due in ((2, 18), (3, 25), (4, 25)):
            clock.advance(8)
            send(adapter.port, [make_instance()])
            assert open_group(adapter, count).ready_at == opened + timedelta(seconds=due)
        clock.advance(1)
        (job,) = wait_submitted(adapter, 1)
        send(adapter.port, [make_instance()])
        rest = open_group(adapter, 1)
    assert len(job.instances) == 4
    assert rest.opened_at == opened + timedelta(seconds=25)


def test_group_by_series(levels: Running) -> None:
    """Two series of one study are two groups."""
    series = [make_instance(series=f"1.2.3.{n}") for n in (1, 2, 1)]
    assert grouped(levels, "SERIES", series) == [("1.2.3.1", 2), ("1.2.3.2", 1)]


def test_group_by_patient_tells_issuers_apart(levels: Running) -> None:
    """The same Patient ID of two issuers is two patients, and one without an issuer a third."""
    instances = [
        make_instance(study="1.1", patient="P1", IssuerOfPatientID="NORTH"),
        make_instance(study="1.2", patient="P1", IssuerOfPatientID="SOUTH"),
        make_instance(study="1.3", patient="P1", IssuerOfPatientID="NORTH "),
        make_instance(study="1.4", patient="P1"),
        make_instance(study="1.5", patient=" P1 ", IssuerOfPatientID=""),
        make_instance(study="1.6", patient="P2", IssuerOfPatientID="NORTH"),
    ]
    assert grouped(levels, "PATIENT", instances) == [
        ("P1\\NORTH", 2),
        ("P1\\SOUTH", 1),
        ("P1\\", 2),
        ("P2\\NORTH", 1),
    ]


def test_group_by_association(levels: Running) -> None:
    """What comes in one association is a group, whatever it is."""
    first = [make_instance(study="1.1"), make_instance(study="1.2", patient="P2")]
    found = grouped(levels, "ASSOCIATION", first, [make_instance(study="1.1")])
    assert [count for _, count in found] == [2, 1]


def test_group_by_a_tag(levels: Running) -> None:
    """A tag groups by its value, without the spaces around it, and multiple values as a whole."""
    values = ("A1", "A1 ", " A1", "A2", ["A1", "A2"])
    instances = [make_instance(AccessionNumber=value) for value in values]
    assert grouped(levels, "ACCESSION", instances) == [("A1", 3), ("A2", 1), ("A1\\A2", 1)]


def test_group_by_a_number(levels: Running) -> None:
    """A number groups as it is written."""
    instances = [make_instance(SeriesNumber=value) for value in (1, 2, 1)]
    assert grouped(levels, "NUMBER", instances) == [("1", 2), ("2", 1)]


def test_group_by_a_private_tag(levels: Running) -> None:
    """A private attribute groups alike whether the wire tells its representation or not."""
    instances = [private(value, implicit=flag) for value in ("x", "yy") for flag in (False, True)]
    assert grouped(levels, "PRIVATE", instances) == [("x", 2), ("yy", 2)]


def test_a_late_instance_makes_a_new_group(tmp_path: Path) -> None:
    """What comes once its group was handed over becomes a group, and jobs, of its own."""
    clock = ManualClock()
    with running(tmp_path, config(title("TEST", late="separate")), clock) as adapter:
        send(adapter.port, [make_instance(), make_instance()])
        first = open_group(adapter, 2)
        clock.advance(5)
        wait_submitted(adapter, 1)
        send(adapter.port, [make_instance()])
        second = open_group(adapter, 1)
        clock.advance(5)
        jobs = wait_submitted(adapter, 2)
    assert first.id != second.id
    assert first.key == second.key
    assert [len(job.instances) for job in jobs] == [2, 1]
    assert not {*jobs[0].uids} & {*jobs[1].uids}


def test_two_ae_titles_do_not_mix(tmp_path: Path) -> None:
    """The same study at two AE titles is two groups, with instances and deadlines of their own."""
    clock = ManualClock()
    study = [make_instance(), make_instance()]
    with running(tmp_path, config(title("A"), title("B", timeout=8)), clock) as adapter:
        for name in ("A", "B"):
            assert send(adapter.port, study, called=name) == [SUCCESS] * 2
        adapter.grouped(4)
        clock.advance(5)
        (one,) = wait_submitted(adapter, 1)
        clock.advance(3)
        _, two = wait_submitted(adapter, 2)
    assert {i.ae_title for i in one.instances} == {"A"}
    assert {i.ae_title for i in two.instances} == {"B"}
    assert one.uids == two.uids
    assert not {i.id for i in one.instances} & {i.id for i in two.instances}


def test_groups_are_handed_over_in_the_order_in_which_they_are_due(tmp_path: Path) -> None:
    """Three groups that are due at different times make their jobs in that order."""
    clock = ManualClock()
    text = config(
        "TEST: {settings: {pipeline-z: lung, pipeline-b: heart, pipeline-a: breast}}",
        pipelines=("lung", "heart", "breast"),
    )
    with running(tmp_path, text, clock) as adapter:
        for count, number in enumerate((3, 1, 2), start=1):
            send(adapter.port, [make_instance(study=f"1.{number}")])
            adapter.grouped(count)
            clock.advance(1)
        clock.advance(10)
        jobs = wait_submitted(adapter, 9)
    assert [(job.instances[0].study_instance_uid, job.submission.pipeline) for job in jobs] == [
        (study, pipeline)
        for study in ("1.3", "1.1", "1.2")
        for pipeline in ("lung", "heart", "breast")
    ]
