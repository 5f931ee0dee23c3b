"""The tables. Migrations make them; a test proves that the two agree."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    text,
)

from dicom_adapter.ledger.columns import integer, moment, sequence, text_column

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

instances = Table(
    "instances",
    metadata,
    sequence(),
    text_column("id", unique=True),
    text_column("ae_title"),
    integer("association"),
    text_column("calling_ae_title"),
    text_column("source_address"),
    # The C-MOVE that caused the C-STORE (PS3.7 9.1.1.1), where the sender named it.
    Column("move_originator_ae_title", Text),
    Column("move_originator_message_id", Integer),
    text_column("sop_class_uid"),
    text_column("sop_instance_uid"),
    text_column("study_instance_uid"),
    text_column("series_instance_uid"),
    text_column("transfer_syntax_uid"),
    Column("instance_number", BigInteger),
    text_column("sha256"),
    integer("size"),
    moment("received_at"),
    text_column("state"),
    integer("attempts", server_default=text("0")),
    moment("ready_at"),
    text_column("reason", server_default=""),
    Column("group_id", Text, ForeignKey("groups.id")),
    # Set once the processor let it go and no submission needs it any more.
    moment("reclaimable_at", nullable=True),
    moment("reclaimed_at", nullable=True),
    sqlite_autoincrement=True,
)
Index("ix_instances_work", instances.c.ae_title, instances.c.state, instances.c.ready_at)
Index("ix_instances_identity", instances.c.ae_title, instances.c.sop_instance_uid)
Index("ix_instances_group_id", instances.c.group_id)
Index("ix_instances_state", instances.c.state, instances.c.reclaimable_at)

groups = Table(
    "groups",
    metadata,
    sequence(),
    text_column("id", unique=True),
    text_column("ae_title"),
    text_column("key"),
    # The group of the same key that was handed over before it.
    Column("previous_id", Text),
    text_column("state"),
    moment("opened_at"),
    moment("last_instance_at"),
    # The one column that deadlines, retries and `groups complete` share.
    moment("ready_at"),
    moment("ready_by", nullable=True),
    moment("closed_at", nullable=True),
    integer("attempts", server_default=text("0")),
    text_column("error", server_default=""),
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
    sequence(),
    text_column("id", unique=True),
    text_column("ae_title"),
    text_column("project", server_default=text("'default'")),
    Column("group_id", Text, ForeignKey("groups.id")),
    text_column("name"),
    text_column("pipeline"),
    integer("priority"),
    text_column("state"),
    integer("attempts", server_default=text("0")),
    moment("created_at"),
    moment("ready_at"),
    moment("settled_at", nullable=True),
    text_column("error", server_default=""),
    Column("job_id", Text),
    # The submission whose job this one's takes the place of.
    Column("supersedes", Text),
    # What becomes of it where its series are not what the pipeline requires.
    text_column("on_mismatch", server_default=text("'park'")),
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
    sequence(),
    text_column("id", unique=True),
    text_column("name", unique=True),
    text_column("request_id", unique=True),
    text_column("request_sha256"),
    text_column("project"),
    text_column("pipeline"),
    text_column("pipeline_version"),
    Column("command", JSON, nullable=False),
    # The container image that it runs in, as it was configured, and what that was, once known.
    text_column("image", server_default=text("''")),
    text_column("image_id", server_default=text("''")),
    Column("timeout", Float),
    text_column("state"),
    text_column("reason", server_default=""),
    integer("priority"),
    text_column("ae_title"),
    integer("instances"),
    Column("arguments", JSON, nullable=False),
    integer("cpus"),
    integer("memory"),
    integer("gpus"),
    moment("created_at"),
    # When it came into the queue: when it was made, or was last retried by a person.
    moment("queued_at", server_default=text("0")),
    moment("started_at", nullable=True),
    moment("finished_at", nullable=True),
    integer("attempts", server_default=text("0")),
    Column("exit_code", Integer),
    text_column("error", server_default=""),
    Column("cpu_seconds", Float),
    Column("max_rss_bytes", BigInteger),
    Column("wall_seconds", Float),
    # The request id of the job that this one takes the place of.
    Column("supersedes", Text),
    # The id of the job whose definition and inputs this one has.
    Column("rerun_of", Text),
    # What a cancellation does to its process, and the state that the last one found it in.
    text_column("cancel_policy", server_default=text("'kill'")),
    Column("cancelled_from", Text),
    # What holds for each of its runs; a job that was made before there were rules has none.
    Column("rules", JSON(none_as_null=True)),
    # How often it was run again by itself, and before when it must not be.
    integer("retried", server_default=text("0")),
    moment("ready_at", nullable=True),
    # Until when it may wait in the queue.
    moment("expires_at", nullable=True),
    # How far the attempt is that runs now.
    Column("phase", Text),
    # The attempt that runs now: only who holds it may move the job, and no longer than until then.
    Column("lease", Text),
    moment("leased_until", nullable=True),
    moment("inputs_reclaimed_at", nullable=True),
    moment("outputs_reclaimed_at", nullable=True),
    moment("logs_reclaimed_at", nullable=True),
    # Of its inputs, in order: two jobs with the same work on the same instances.
    text_column("inputs_sha256", server_default=""),
    sqlite_autoincrement=True,
)
Index(
    "ix_jobs_queue",
    *jobs.c["state", "project", "pipeline", "priority", "queued_at", "seq"],
)
Index("ix_jobs_inputs", *jobs.c["inputs_sha256", "pipeline"])
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
    integer("position"),
    text_column("state"),
    text_column("reason", server_default=""),
    text_column("error", server_default=""),
    Column("exit_code", Integer),
    moment("started_at", nullable=True),
    moment("finished_at", nullable=True),
    Column("cpu_seconds", Float),
    Column("max_rss_bytes", BigInteger),
    Column("wall_seconds", Float),
)

job_inputs = Table(
    "job_inputs",
    metadata,
    Column("item_id", Text, ForeignKey("job_items.id"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    text_column("study"),
    text_column("series"),
    text_column("range"),
    integer("instances"),
)

job_files = Table(
    "job_files",
    metadata,
    Column("item_id", Text, ForeignKey("job_items.id"), primary_key=True),
    Column("input_position", Integer, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    text_column("instance_id"),
    text_column("sop_instance_uid"),
    text_column("sha256"),
)

job_steps = Table(
    "job_steps",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id"), primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    text_column("name"),
    text_column("state"),
    Column("progress", Float, nullable=False),
)

# Of attempts that ended well, before the job was run once more.
superseded_outputs = Table(
    "superseded_outputs",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id"), primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("path", Text, primary_key=True),
    integer("size"),
    text_column("sha256"),
)

job_outputs = Table(
    "job_outputs",
    metadata,
    Column("job_id", Text, ForeignKey("jobs.id"), primary_key=True),
    Column("path", Text, primary_key=True),
    integer("size"),
    text_column("sha256"),
)

tokens = Table(
    "tokens",
    metadata,
    sequence(),
    text_column("name", unique=True),
    # Of the secret, which nobody has but who was given it.
    text_column("sha256", unique=True),
    text_column("role"),
    Column("project", Text),
    moment("created_at"),
    text_column("created_by"),
    moment("expires_at", nullable=True),
    moment("revoked_at", nullable=True),
    sqlite_autoincrement=True,
)

uploads = Table(
    "uploads",
    metadata,
    Column("instance_id", Text, primary_key=True),
    Column("sha256", Text, primary_key=True),
    integer("size"),
    moment("used_at"),
)

# No foreign key: the audit trail outlives what it tells of.
events = Table(
    "events",
    metadata,
    sequence(),
    moment("at"),
    text_column("actor"),
    text_column("kind"),
    text_column("subject"),
    # Of what belongs to one.
    text_column("project", server_default=""),
    text_column("action"),
    text_column("from_state"),
    text_column("to_state"),
    text_column("reason"),
    sqlite_autoincrement=True,
)
Index("ix_events_subject", events.c.subject, events.c.seq)

# How far the events of jobs were looked through for each webhook.
webhooks = Table(
    "webhooks",
    metadata,
    Column("name", Text, primary_key=True),
    integer("event"),
    # Until then nothing is sent to it: it did not answer, or has asked for a pause.
    moment("held_until", nullable=True),
)

deliveries = Table(
    "deliveries",
    metadata,
    sequence(),
    text_column("id", unique=True),
    text_column("webhook"),
    integer("event"),
    text_column("type"),
    text_column("job_id"),
    text_column("job"),
    text_column("body"),
    text_column("state"),
    integer("attempts", server_default=text("0")),
    moment("created_at"),
    moment("queued_at"),
    moment("ready_at"),
    moment("settled_at", nullable=True),
    Column("status", Integer),
    text_column("error", server_default=""),
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
    integer("event"),
    Column("facts", JSON, nullable=False),
)

# What may run at another platform; no foreign key: it may outlive the job that it was made for.
remote_jobs = Table(
    "remote_jobs",
    metadata,
    Column("request_id", Text, primary_key=True),
    *map(text_column, ("place", "job_id", "executor")),
    # Its id there, once that was answered.
    text_column("remote_id", server_default=""),
    # Whether nobody wants it any more: it is to end, and never taken on.
    integer("unwanted", server_default=text("0")),
)
