"""What an adapter is to do, said once more and as simply as possible."""

from dataclasses import dataclass, field
from datetime import datetime

from tests.torture.parts import PIPELINES, RETAIN, TIMEOUT


@dataclass(eq=False)
class Group:
    """A study's instances that come together."""

    study: int
    due: datetime
    is_open: bool = True


@dataclass(eq=False)
class Instance:
    """An instance that was acknowledged, or was found in the spool."""

    id: str
    number: int
    study: int
    data: bytes
    received_at: datetime
    #: "received" and not yet in its group, "kept" there, handed over and "released", "reclaiming"
    #: while it is being removed, or "reclaimed".
    state: str = "received"
    group: Group | None = None
    #: Since when nothing needs it.
    free_since: datetime | None = None

    @property
    def is_kept(self) -> bool:
        """True while it must be there with its bytes."""
        return self.state not in {"reclaiming", "reclaimed"}


@dataclass(eq=False)
class Submission:
    """A job that is asked for."""

    group: Group
    pipeline: str
    members: list[Instance]
    state: str = "pending"
    #: Whether the platform has made the job, whether or not anybody was told.
    has_job: bool = False


@dataclass
class Model:
    """Everything that there is."""

    instances: list[Instance] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    submissions: list[Submission] = field(default_factory=list)
    #: What was never acknowledged, and has a file: its number, study and data, by its id.
    orphans: dict[str, tuple[int, int, bytes]] = field(default_factory=dict)

    def known(self, number: int, data: bytes) -> Instance | None:
        """Return the instance of these bytes that is kept."""
        found = [i for i in self.instances if i.is_kept and (i.number, i.data) == (number, data)]
        return found[0] if found else None

    def receive(self, received: Instance) -> Instance:
        """Take an instance; return the one that stands for it, which is due again if it is over."""
        same = self.known(received.number, received.data)
        if same is None:
            self.instances.append(received)
            return received
        if same.state == "released":
            same.state, same.received_at = "received", received.received_at
            same.free_since = None
        return same

    def adopt(self) -> None:
        """Take what has a file and no row; where the same bytes are known, the file goes."""
        for instance_id, (number, study, data) in sorted(self.orphans.items()):
            if self.known(number, data) is None:
                at = datetime.fromtimestamp(int(instance_id[:12], 16) / 1000).astimezone()
                self.instances.append(Instance(instance_id, number, study, data, at))
        self.orphans.clear()

    def process(self, now: datetime) -> None:
        """Put what was received into its groups, and hand over those that are due."""
        for instance in sorted(self.instances, key=lambda one: one.received_at):
            if instance.state == "received":
                self._join(instance)
        for group in sorted(self.groups, key=lambda one: one.due):
            if group.is_open and group.due <= now:
                self._hand_over(group)

    def _join(self, instance: Instance) -> None:
        found = [group for group in self.groups if group.is_open and group.study == instance.study]
        group = found[0] if found else Group(instance.study, instance.received_at + TIMEOUT)
        if not found:
            self.groups.append(group)
        group.due = max(group.due, instance.received_at + TIMEOUT)
        instance.group, instance.state = group, "kept"

    def _hand_over(self, group: Group) -> None:
        own = [one for one in self.instances if one.group is group and one.state == "kept"]
        earlier = [
            one
            for one in self.instances
            if one.state == "released" and one.group is not None and one.study == group.study
        ]
        group.is_open = False
        for pipeline in PIPELINES:
            self.submissions.append(Submission(group, pipeline, earlier + own))
        for instance in earlier + own:
            instance.state, instance.free_since = "released", None

    def accept(self, submission: Submission, now: datetime) -> None:
        """Note that a submission is settled, and free what it alone held."""
        submission.state, submission.has_job = "accepted", True
        for instance in submission.members:
            if (
                instance.state == "released"
                and instance.free_since is None
                and not self._is_held(instance)
            ):
                instance.free_since = now

    def _is_held(self, instance: Instance) -> bool:
        return any(instance in one.members and one.state != "accepted" for one in self.submissions)

    def removable(self, now: datetime) -> list[Instance]:
        """Return what is delivered, and has been kept for as long as it is to be."""
        return [
            one
            for one in self.instances
            if one.state == "released" and one.free_since and one.free_since + RETAIN <= now
        ]

    def reclaim(self, now: datetime) -> None:
        """Remove that, and what a crash left half removed."""
        begun = [one for one in self.instances if one.state == "reclaiming"]
        for instance in [*begun, *self.removable(now)]:
            instance.state = "reclaimed"
