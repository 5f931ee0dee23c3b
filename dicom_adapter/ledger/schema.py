"""The tables. Migrations make them; a test proves that the two agree."""

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    text,
)
from sqlalchemy.types import TypeDecorator

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def microseconds(moment: datetime) -> int:
    """Return an aware time as the tables have it."""
    return (moment - EPOCH) // MICROSECOND


class Moment(TypeDecorator[datetime]):
    """A time as whole microseconds since 1970, UTC: exact, ordered, and alike on every backend."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Turn an aware time into microseconds."""
        del dialect
        return None if value is None else microseconds(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # noqa: ANN401 - the driver's
        """Turn microseconds into an aware time."""
        del dialect
        return None if value is None else EPOCH + value * MICROSECOND


def _sequence() -> Column[int]:
    # AUTOINCREMENT on SQLite: a number is never given twice, also after deletions.
    return Column("seq", Integer, primary_key=True, autoincrement=True)


def _text(name: str, **options: Any) -> Column[str]:  # noqa: ANN401 - passed on to Column
    return Column(name, Text, nullable=False, **options)


def _moment(name: str, *, nullable: bool = False, **options: Any) -> Column[datetime]:  # noqa: ANN401 - passed on to Column
    return Column(name, Moment, nullable=nullable, **options)


def _integer(name: str, **options: Any) -> Column[int]:  # noqa: ANN401 - passed on to Column
    return Column(name, BigInteger, nullable=False, **options)


instances = Table(
    "instances",
    metadata,
    _sequence(),
    _text("id", unique=True),
    _text("ae_title"),
    _integer("association"),
    _text("calling_ae_title"),
    _text("source_address"),
    # The C-MOVE that caused the C-STORE (PS3.7 9.1.1.1), where the sender named it.
    Column("move_originator_ae_title", Text),
    Column("move_originator_message_id", Integer),
    *map(_text, ("sop_class_uid", "sop_instance_uid", "study_instance_uid")),
    *map(_text, ("series_instance_uid", "transfer_syntax_uid")),
    Column("instance_number", BigInteger),
    _text("sha256"),
    _integer("size"),
    _moment("received_at"),
    _text("state"),
    _integer("attempts", server_default=text("0")),
    _moment("ready_at"),
    _text("reason", server_default=""),
    Column("group_id", Text, ForeignKey("groups.id")),
    # Set once the processor let it go and no submission needs it any more.
    _moment("reclaimable_at", nullable=True),
    _moment("reclaimed_at", nullable=True),
    sqlite_autoincrement=True,
)
Index("ix_instances_work", instances.c.ae_title, instances.c.state, instances.c.ready_at)
Index("ix_instances_identity", instances.c.ae_title, instances.c.sop_instance_uid)
Index("ix_instances_group_id", instances.c.group_id)
Index("ix_instances_state", instances.c.state, instances.c.reclaimable_at)

groups = Table(
    "groups",
    metadata,
    _sequence(),
    _text("id", unique=True),
    _text("ae_title"),
    _text("key"),
    # The group of the same key that was handed over before it.
    Column("previous_id", Text),
    _text("state"),
    _moment("opened_at"),
    _moment("last_instance_at"),
    # The one column that deadlines, retries and `groups complete` share.
    _moment("ready_at"),
    _moment("ready_by", nullable=True),
    _moment("closed_at", nullable=True),
    _integer("attempts", server_default=text("0")),
    _text("error", server_default=""),
    sqlite_autoincrement=True,
)
Index(
    "uq_groups_open",
    groups.c.ae_title,
    groups.c.key,
    unique=True,
    sqlite_where=groups.c.state == "open",
    postgresql_where=groups.c.state == "open",
)
Index("ix_groups_key", groups.c.ae_title, groups.c.key)
Index("ix_groups_work", groups.c.ae_title, groups.c.state, groups.c.ready_at)

submissions = Table(
    "submissions",
    metadata,
    _sequence(),
    _text("id", unique=True),
    _text("ae_title"),
    _text("project", server_default=text("'default'")),
    Column("group_id", Text, ForeignKey("groups.id")),
    _text("name"),
    _text("pipeline"),
    _integer("priority"),
    _text("state"),
    _integer("attempts", server_default=text("0")),
    _moment("created_at"),
    _moment("ready_at"),
    _moment("settled_at", nullable=True),
    _text("error", server_default=""),
    Column("job_id", Text),
    # The submission whose job this one's takes the place of.
    Column("supersedes", Text),
    sqlite_autoincrement=True,
)
Index("ix_submissions_group_id", submissions.c.group_id)
Index("ix_submissions_work", submissions.c.state, submissions.c.ready_at)

submission_instances = Table(
    "submission_instances",
    metadata,
    Column("submission_id", Text, ForeignKey("submissions.id"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("instance_id", Text, ForeignKey("instances.id"), nullable=False, index=True),
)

jobs = Table(
    "jobs",
    metadata,
    _sequence(),
    _text("id", unique=True),
    _text("name", unique=True),
    _text("request_id", unique=True),
    _text("request_sha256"),
    _text("project"),
    _text("pipeline"),
    _text("pipeline_version"),
    Column("command", JSON, nullable=False),
    # The container image that it runs in, as it was configured, and what that was, once known.
    _text("image", server_default=text("''")),
    _text("image_id", server_default=text("''")),
    Column("timeout", Float),
    _text("state"),
    _text("reason", server_default=""),
    _integer("priority"),
    _text("ae_title"),
    _integer("instances"),
    Column("arguments", JSON, nullable=False),
    _integer("cpus"),
    _integer("memory"),
    _integer("gpus"),
    _moment("created_at"),
    # When it came into the queue: when it was made, or was last retried by a person.
    _moment("queued_at", server_default=text("0")),
    _moment("started_at", nullable=True),
    _moment("finished_at", nullable=True),
    _integer("attempts", server_default=text("0")),
    Column("exit_code", Integer),
    _text("error", server_default=""),
    Column("cpu_seconds", Float),
    Column("max_rss_bytes", BigInteger),
    Column("wall_seconds", Float),
    # The request id of the job that this one takes the place of.
    Column("supersedes", Text),
    # The id of the job whose definition and inputs this one has.
    Column("rerun_of", Text),
    # What a cancellation does to its process, and the state that the last one found it in.
    _text("cancel_policy", server_default=text("'kill'")),
    Column("cancelled_from", Text),
    # What holds for each of its runs; a job that was made before there were rules has none.
    Column("rules", JSON(none_as_null=True)),
    # How often it was run again by itself, and before when it must not be.
    _integer("retried", server_default=text("0")),
    _moment("ready_at", nullable=True),
    # Until when it may wait in the queue.
    _moment("expires_at", nullable=True),
    # How far the attempt is that runs now.
    Column("phase", Text),
    # The attempt that runs now: only who holds it may move the job, and no longer than until then.
    Column("lease", Text),
    _moment("leased_until", nullable=True),
    _moment("inputs_reclaimed_at", nullable=True),
    _moment("outputs_reclaimed_at", nullable=True),
    _moment("logs_reclaimed_at", nullable=True),
    sqlite_autoincrement=True,
)
Index(
    "ix_jobs_queue",
    *jobs.c["state", "project", "pipeline", "priority", "queued_at", "seq"],
)
Index("ix_jobs_started", jobs.c.pipeline, jobs.c.started_at)
Index("ix_jobs_project_started", jobs.c.project, jobs.c.started_at)
# For what becomes due: whose wait is over.
Index("ix_jobs_ready_at", jobs.c.state, jobs.c.ready_at)
Index("ix_jobs_expires_at", jobs.c.state, jobs.c.expires_at)
# For lists: the newest of each state, of all jobs or those that pass a filter.
Index("ix_jobs_state", jobs.c.state, jobs.c.seq)
Index("ix_jobs_pipeline", jobs.c.pipeline, jobs.c.state, jobs.c.seq)
Index("ix_jobs_ae_title", jobs.c.ae_title, jobs.c.state, jobs.c.seq)
Index("ix_jobs_both", jobs.c.pipeline, jobs.c.ae_title, jobs.c.state, jobs.c.seq)
Index("ix_jobs_project", jobs.c.project, jobs.c.state, jobs.c.seq)
Index("ix_jobs_project_pipeline", *jobs.c["project", "pipeline", "state", "seq"])
Index("ix_jobs_finished_at", jobs.c.finished_at)

job_items = Table(
    "job_items",
    metadata,
    Column("id", Text, primary_key=True),
    Column("job_id", Text, ForeignKey("jobs.id"), nullable=False, index=True),
    _integer("position"),
    _text("state"),
)

job_inputs = Table(
    "job_inputs",
    metadata,
    Column("item_id", Text, ForeignKey("job_items.id"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    _text("study"),
    _text("series"),
    _text("range"),
    _integer("instances"),
)

job_files = Table(
    "job_files",
    metadata,
    Column("item_id", Text, ForeignKey("job_items.id"), primary_key=True),
    Column("input_position", Integer, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    _text("instance_id"),
    _text("sop_instance_uid"),
    _text("sha256"),
)

job_steps = Table(
    "job_steps",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    _text("name"),
    _text("state"),
    Column("progress", Float, nullable=False),
)

# Of attempts that ended well, before the job was run once more.
superseded_outputs = Table(
    "superseded_outputs",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id"), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("path", Text, primary_key=True),
    _integer("size"),
    _text("sha256"),
)

job_outputs = Table(
    "job_outputs",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id"), primary_key=True),
    Column("path", Text, primary_key=True),
    _integer("size"),
    _text("sha256"),
)

tokens = Table(
    "tokens",
    metadata,
    _sequence(),
    _text("name", unique=True),
    # Of the secret, which nobody has but who was given it.
    _text("sha256", unique=True),
    _text("role"),
    Column("project", Text),
    _moment("created_at"),
    _text("created_by"),
    _moment("expires_at", nullable=True),
    _moment("revoked_at", nullable=True),
    sqlite_autoincrement=True,
)

uploads = Table(
    "uploads",
    metadata,
    Column("instance_id", Text, primary_key=True),
    Column("sha256", Text, primary_key=True),
    _integer("size"),
    _moment("used_at"),
)

# No foreign key: the audit trail outlives what it tells of.
events = Table(
    "events",
    metadata,
    _sequence(),
    _moment("at"),
    *map(_text, ("actor", "kind", "subject")),
    # Of what belongs to one.
    _text("project", server_default=""),
    *map(_text, ("action", "from_state", "to_state", "reason")),
    sqlite_autoincrement=True,
)
Index("ix_events_subject", events.c.subject, events.c.seq)

# How far the events of jobs were looked through for each webhook.
webhooks = Table(
    "webhooks",
    metadata,
    Column("name", Text, primary_key=True),
    _integer("event"),
    # Until then nothing is sent to it: it did not answer, or has asked for a pause.
    _moment("held_until", nullable=True),
)

deliveries = Table(
    "deliveries",
    metadata,
    _sequence(),
    _text("id", unique=True),
    _text("webhook"),
    _integer("event"),
    *map(_text, ("type", "job_id", "job", "body", "state")),
    _integer("attempts", server_default=text("0")),
    _moment("created_at"),
    _moment("queued_at"),
    _moment("ready_at"),
    _moment("settled_at", nullable=True),
    Column("status", Integer),
    _text("error", server_default=""),
    sqlite_autoincrement=True,
)
# An event is told once to each webhook, also where a crash had it looked at twice.
Index("uq_deliveries_event", deliveries.c.webhook, deliveries.c.event, unique=True)
Index("ix_deliveries_work", deliveries.c.state, deliveries.c.webhook, deliveries.c.ready_at)
Index("ix_deliveries_settled_at", deliveries.c.state, deliveries.c.settled_at)

# What is still to be told of jobs whose record was deleted.
deleted_jobs = Table(
    "deleted_jobs",
    metadata,
    Column("id", Text, primary_key=True),
    _integer("event"),
    Column("facts", JSON, nullable=False),
)

# What may run at another platform; no foreign key: it may outlive the job that it was made for.
remote_jobs = Table(
    "remote_jobs",
    metadata,
    Column("request_id", Text, primary_key=True),
    *map(_text, ("place", "job_id", "executor")),
    # Its id there, once that was answered.
    _text("remote_id", server_default=""),
    # Whether nobody wants it any more: it is to end, and never taken on.
    _integer("unwanted", server_default=text("0")),
)
