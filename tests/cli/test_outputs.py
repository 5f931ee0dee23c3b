"""`jobs outputs`: lists what a job has put out, and brings it into a folder."""

from pathlib import Path

from tests.cli.conftest import Command, Work


def finished(work: Work) -> str:
    """Return the name of the job that has finished."""
    (job,) = (job for job in work.running.jobs() if job.state == "finished")
    return job.name


def test_outputs_are_listed(cli: Command, work: Work) -> None:
    """As a table, as JSON, and where there are none in words."""
    name = finished(work)
    answer = cli("jobs", "outputs", name, folder=work.folder)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines()[0].split() == ["path", "size", "sha256"]
    rows = cli("jobs", "outputs", name, "--json", folder=work.folder).rows
    assert [set(row) for row in rows] == [{"path", "size", "sha256"}] * 2
    (failed,) = (job for job in work.running.jobs() if job.state == "failed")
    answer = cli("jobs", "outputs", failed.name, folder=work.folder)
    assert (answer.code, answer.out) == (0, f"{failed.name} has no outputs.\n")


def test_outputs_are_fetched_and_replace_nothing(cli: Command, work: Work, tmp_path: Path) -> None:
    """They lie in the folder as they lay in the job's; what is there already is not touched."""
    name, to = finished(work), tmp_path / "here"
    answer = cli("jobs", "outputs", name, "--to", str(to), "--json", folder=work.folder)
    assert (answer.code, answer.err) == (0, f"2 outputs fetched to {to}\n")
    for row in answer.rows:
        assert (to / row["path"]).stat().st_size == row["size"]
    first = to / answer.rows[0]["path"]
    first.write_text("mine")
    answer = cli("jobs", "outputs", name, "--to", str(to), folder=work.folder)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.endswith("File exists: name an empty folder\n")
    assert first.read_text() == "mine"
