"""Whatever happens in whatever order: instances, groups and submissions are what they should be.

The parts of the service are real, but for their threads, and are compared with a simple model.
"""

import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from structlog.testing import capture_logs

from dicom_adapter.lifecycle import Action
from tests.torture.model import Instance, Model, Submission
from tests.torture.parts import PIPELINES, RETAIN, TIMEOUT, Bench, data_set, file_of, uid

pytestmark = pytest.mark.timeout(3600)

EXAMPLES = 25 * int(os.environ.get("TORTURE", "1"))
STEPS = 30
STUDIES = st.integers(1, 2)
# Longer than any pause of the outbox, and any time that something is kept.
_LONG = 3600.0
# So much is to have come before everything is settled.
_MANY = 8


class Adapter(RuleBasedStateMachine):
    """The service, and what it should be."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = Path(tempfile.mkdtemp())
        self._bench = Bench(self._folder)
        self._model = Model()
        self._numbers = 0

    def teardown(self) -> None:
        """Leave nothing behind."""
        self._bench.close()
        shutil.rmtree(self._folder)

    # What happens

    @rule(study=STUDIES)
    def receive(self, study: int) -> None:
        """An instance comes, perhaps after its study was handed over."""
        self._numbers += 1
        self._receive(self._numbers, study, data_set(self._numbers, study, 0))

    @rule(data=st.data(), study=STUDIES, is_again=st.booleans(), is_delivered=st.booleans())
    def hand_over(
        self, data: st.DataObject, study: int, *, is_again: bool, is_delivered: bool
    ) -> None:
        """An instance comes to its group and on to a submission, as it mostly does."""
        if is_again and self._model.instances:
            self.receive_again(data)
        else:
            self.receive(study)
        self.process(TIMEOUT.total_seconds())
        if is_delivered:
            self.submit("")

    @precondition(lambda self: self._model.instances)
    @rule(data=st.data())
    def receive_again(self, data: st.DataObject) -> None:
        """The same bytes come again."""
        known = data.draw(st.sampled_from(self._model.instances))
        self._receive(known.number, known.study, known.data)

    @precondition(lambda self: self._model.instances)
    @rule(data=st.data(), variant=st.integers(1, 2))
    def receive_other_bytes(self, data: st.DataObject, variant: int) -> None:
        """Other bytes come by the same SOP Instance UID."""
        known = data.draw(st.sampled_from(self._model.instances))
        self._receive(known.number, known.study, data_set(known.number, known.study, variant))

    def _receive(self, number: int, study: int, data: bytes) -> None:
        instance_id, is_new = self._bench.receive(number, data)
        one = Instance(instance_id, number, study, data, self._bench.now())
        assert self._model.receive(one).id == instance_id
        assert is_new == (one in self._model.instances)

    @rule(study=STUDIES, mend=st.booleans(), leaves=st.booleans(), is_sent_again=st.booleans())
    def restart(self, study: int, *, mend: bool, leaves: bool, is_sent_again: bool) -> None:
        """It starts anew; a file may be left that nobody was told of, and its sender come again."""
        if not leaves:
            self._restart(mend=mend)
            return
        self._numbers += 1
        number, data = self._numbers, data_set(self._numbers, study, 0)
        orphan = self._bench.leave_file(number, data)
        self._model.orphans[orphan] = (number, study, data)
        self._restart(mend=mend)
        if is_sent_again:
            self._receive(number, study, data)

    def _restart(self, *, mend: bool) -> None:
        self._bench.restart(mend=mend)
        if mend:
            self._model.adopt()

    @rule(seconds=st.sampled_from([0.0, 1.0, 5.0, 30.0, 60.0, 600.0]))
    def process(self, seconds: float) -> None:
        """Time passes, and groups become due."""
        self._bench.clock.advance(seconds)
        self._bench.process()
        self._model.process(self._bench.now())

    @rule(fault=st.sampled_from(["", "", "down", "answer lost", "refused"]), retry=st.booleans())
    def submit(self, fault: str, *, retry: bool = True) -> None:
        """What is due is submitted, and accepted, refused, or not answered."""
        if retry:
            self._retry()
        now = self._bench.now()
        due = self._bench.due()
        before = self._by_id()
        self._bench.submit(fault)
        for submission_id in due:
            submission = before[submission_id]
            assert submission.state == "pending"
            # A job that is there already is the answer, whatever pipelines there are by now.
            if fault == "" or (fault == "refused" and submission.has_job):
                self._model.accept(submission, now)
            elif fault == "refused":
                submission.state = "parked"
            elif fault == "answer lost":
                submission.has_job = True

    def _retry(self) -> None:
        """A person has everything that waits, or is parked, tried again."""
        for submission_id, submission in self._by_id().items():
            if submission.state in {"pending", "parked"}:
                self._bench.retry(submission_id)
                submission.state = "pending"

    def _end_a_job(self, *, is_well: bool) -> None:
        self._bench.end_job(Action.FINISH if is_well else Action.FAIL)

    @rule(part=st.sampled_from([0.0, 0.5, 1.0]), is_well=st.sampled_from([None, True, False]))
    def reclaim(self, part: float, *, is_well: bool | None = None) -> None:
        """A job may end, and a part of `retain` passes; what nothing needs is removed."""
        if is_well is not None:
            self._end_a_job(is_well=is_well)
        self._bench.clock.advance(part * RETAIN.total_seconds())
        self._bench.reclaim()
        self._model.reclaim(self._bench.now())

    @precondition(lambda self: self._model.removable(self._bench.now() + RETAIN))
    @rule(
        most=st.integers(1, 3), unlinked=st.integers(0, 2), mend=st.booleans(), again=st.booleans()
    )
    def crash_in_reclaim(self, most: int, unlinked: int, *, mend: bool, again: bool) -> None:
        """A crash leaves instances marked, and some of them unlinked; one of them comes again."""
        self._bench.clock.advance(RETAIN.total_seconds())
        removable = {one.id: one for one in self._model.removable(self._bench.now())}
        ids = self._bench.crash_in_reclaim(most, unlinked)
        assert len(ids) == min(most, len(removable))
        for instance_id in ids:
            removable[instance_id].state = "reclaiming"
        self._restart(mend=mend)
        for one in [removable[instance_id] for instance_id in ids[:1]] if again else []:
            self._receive(one.number, one.study, one.data)

    @precondition(lambda self: self._numbers >= _MANY)
    @rule()
    def settle(self) -> None:
        """Once everything works, everything is delivered, and then removed."""
        self._restart(mend=True)
        for _ in range(2):
            self.process(_LONG)
            self.submit("")
        assert {one.state for one in self._model.submissions} <= {"accepted"}
        self.reclaim(1.0)
        assert not self._bench.files()
        assert {one.state for one in self._model.instances} <= {"reclaimed"}

    # What is always so

    @invariant()
    def every_instance_is_kept_once(self) -> None:
        """All have one row; what is not reclaimed one file with its bytes, nothing else has one."""
        kept = {one.id: one for one in self._model.instances if one.is_kept}
        rows = self._bench.rows("select id, sop_instance_uid, state from instances")
        expected = [(one.id, uid(one.number), one.state) for one in self._model.instances]
        assert Counter(rows) == Counter(expected)
        files = self._bench.files()
        orphans = self._model.orphans
        removed = {one.id for one in self._model.instances if one.state == "reclaiming"}
        for instance_id, (number, _, data) in orphans.items():
            assert files.pop(instance_id) == file_of(number, data)
        for instance_id, one in kept.items():
            assert files.pop(instance_id) == file_of(one.number, one.data)
        assert files.keys() <= removed

    @invariant()
    def every_instance_is_in_its_group(self) -> None:
        """Two instances are in the same group where they should be, and in no other."""
        rows = dict(self._bench.rows("select id, group_id from instances"))
        pairs = {(one.group, rows[one.id]) for one in self._model.instances}
        assert len(pairs) == len({group for group, _ in pairs})
        assert len(pairs) == len({group_id for _, group_id in pairs})
        open_ids = {i for (i,) in self._bench.rows("select id from groups where state = 'open'")}
        assert open_ids == {i for group, i in pairs if group is not None and group.is_open}

    @invariant()
    def every_group_is_submitted_once(self) -> None:
        """To each pipeline, with all that was to be in it; and makes no more than one job."""
        submissions = self._by_id()
        assert len(submissions) == len(self._model.submissions)
        of_group = self._bench.rows("select group_id, pipeline from submissions")
        assert len(set(of_group)) == len(of_group)
        handed_over = self._bench.rows("select id from groups where state = 'dispatched'")
        expected = {(group, pipeline) for (group,) in handed_over for pipeline in PIPELINES}
        assert set(of_group) == expected
        states = dict(self._bench.rows("select id, state from submissions"))
        assert states == {key: one.state for key, one in submissions.items()}
        jobs = Counter(request for (request,) in self._bench.rows("select request_id from jobs"))
        assert jobs == Counter(key for key, one in submissions.items() if one.has_job)
        assert self._bench.broken_jobs() == []

    def _by_id(self) -> dict[str, Submission]:
        """Return what the model has of each submission of the ledger, by pipeline and members."""
        members: dict[str, list[str]] = {}
        for key, instance_id in self._bench.rows(
            "select submission_id, instance_id from submission_instances order by submission_id"
        ):
            members.setdefault(key, []).append(instance_id)
        left = list(self._model.submissions)
        found: dict[str, Submission] = {}
        rows: list[Any] = self._bench.rows("select id, pipeline from submissions order by seq")
        for key, pipeline in rows:
            # The same members may be submitted more than once: they are made in the same order.
            one = next(
                one
                for one in left
                if one.pipeline == pipeline
                and sorted(i.id for i in one.members) == sorted(members[key])
            )
            left.remove(one)
            found[key] = one
        return found


def test_whatever_happens_in_whatever_order() -> None:
    """The service is at every step what the model is."""
    with capture_logs():
        run_state_machine_as_test(
            Adapter,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
