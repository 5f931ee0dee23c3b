"""`fsck`: compares the spool with the ledger, beside a running service or without one."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from dicom_adapter.cli.common import (
    ConfigOption,
    DataOption,
    JsonOption,
    ServerOption,
    connect,
    read_settings,
)
from dicom_adapter.cli.output import counted, plain, print_rows
from dicom_adapter.config import Settings
from dicom_adapter.datafolder import DataFolder
from dicom_adapter.errors import StartError, UnavailableError
from dicom_adapter.files import flush_of
from dicom_adapter.ledger import Ledger
from dicom_adapter.ledger.database import set_aside
from dicom_adapter.receive.spool import Spool
from dicom_adapter.rpc import convert_adapter
from dicom_adapter.upkeep import Upkeep
from dicom_adapter.v1 import adapter_pb2

FOUND_SOMETHING = 1
WELL = "Every file of the spool has its row in the ledger, and every row its file."
COLUMNS = ("instance", "kind", "cure")

ScrubOption = Annotated[
    bool, typer.Option("--scrub", help="Also read every file, and compare its sha256.")
]
RebuildOption = Annotated[
    bool,
    typer.Option("--rebuild", help="Make a new ledger of the files alone; the service must stop."),
]

Rows = Iterator[dict[str, Any]]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(fsck)


def fsck(
    scrub: ScrubOption = False,
    rebuild: RebuildOption = False,
    as_json: JsonOption = False,
    config: ConfigOption = None,
    server: ServerOption = None,
    data: DataOption = None,
) -> None:
    """Compare the spool with the ledger and mend it.

    A file that the ledger does not know is recorded, and handled as if it had just come. Exit code
    1 says that something needs a person.
    """
    if rebuild:
        with _opened(read_settings(config, data), rebuild=True) as upkeep:
            rows = list(_told(upkeep, scrub=scrub))
    else:
        rows = list(_checked(config, server, data, scrub=scrub))
    print_rows(rows, COLUMNS, as_json=as_json, empty=WELL)
    unmended = sum(row["needs_person"] for row in rows)
    if rows and not as_json:
        mended = len(rows) - unmended
        typer.echo(f"{counted(mended, 'disorder')} mended, {unmended} left for a person.")
    if unmended:
        raise typer.Exit(FOUND_SOMETHING)


def _checked(config: Any, server: Any, data: Any, *, scrub: bool) -> Rows:  # noqa: ANN401 - options
    """Have the service check, or check in its place where none runs."""
    try:
        client = connect(config, server, data)
    except UnavailableError:
        if server is not None:
            raise
        with _opened(read_settings(config, data)) as upkeep:
            yield from _told(upkeep, scrub=scrub)
        return
    with client, client.errors():
        request = adapter_pb2.CheckStorageRequest(scrub=scrub)
        yield from map(plain, client.adapter.CheckStorage(request))


@contextmanager
def _opened(settings: Settings, *, rebuild: bool = False) -> Iterator[Upkeep]:
    """Open folder and ledger as the service would; StartError when one runs after all.

    To rebuild is to begin with another ledger, which knows nothing.
    """
    path = settings.storage.path
    if not (path / "spool").exists():
        raise StartError(f"{path} is no data folder: name one with --data or --config")
    durability = settings.storage.durability
    with DataFolder(path).held():
        if rebuild:
            suffix = f"{datetime.now(UTC):%Y%m%d%H%M%S}.old"
            for old in set_aside(settings.ledger.url, suffix):
                typer.echo(f"kept as {old}", err=True)
        ledger = Ledger(settings.ledger.url, durability)
        ledger.open()
        try:
            spool = Spool(path / "spool", flush_of(durability))
            spool.open()
            yield Upkeep(spool, ledger, adopted=lambda _: None)
        finally:
            ledger.close()


def _told(upkeep: Upkeep, *, scrub: bool) -> Rows:
    for disorder in upkeep.check(scrub=scrub, is_receiving=False):
        yield plain(convert_adapter.to_disorder(disorder))
