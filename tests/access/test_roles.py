"""What each role may call, over TCP, of every method that there is."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass

from dicom_adapter.addresses import socket_address
from dicom_adapter.errors import PermissionDeniedError, UnauthenticatedError
from dicom_adapter.lifecycle import Role
from dicom_adapter.rpc.client import Client
from dicom_adapter.rpc.credentials import Credentials
from dicom_adapter.rpc.tokens import to_role
from dicom_adapter.v1 import (
    adapter_pb2,
    audit_pb2,
    composition_pb2,
    jobs_pb2,
    pipelines_pb2,
    platform_pb2,
    tokens_pb2,
    webhooks_pb2,
)
from tests.support import CONFIG, running

FILES = (
    adapter_pb2,
    audit_pb2,
    composition_pb2,
    jobs_pb2,
    pipelines_pb2,
    platform_pb2,
    tokens_pb2,
    webhooks_pb2,
)
METHODS = {
    method.full_name.removeprefix("dicom_adapter.v1."): method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
VIEWER, OPERATOR, MANAGER, ADMIN = Role
#: The least role, and whether a token of one project suffices.
NEEDED = {
    "AdapterService.GetStatus": (VIEWER, False),
    "AdapterService.Reload": (ADMIN, False),
    "AdapterService.CheckStorage": (ADMIN, False),
    "AdapterService.ListGroups": (VIEWER, False),
    "AdapterService.CompleteGroups": (OPERATOR, False),
    "AdapterService.DiscardGroups": (OPERATOR, False),
    "AdapterService.ListSubmissions": (VIEWER, False),
    "AdapterService.RetrySubmissions": (OPERATOR, False),
    "AdapterService.DiscardSubmissions": (OPERATOR, False),
    "AdapterService.ListQuarantine": (VIEWER, False),
    "AdapterService.RetryQuarantine": (OPERATOR, False),
    "AdapterService.DiscardQuarantine": (OPERATOR, False),
    "AuditService.ExportEvents": (ADMIN, False),
    "CompositionService.SearchStudies": (VIEWER, False),
    "CompositionService.SearchSeries": (VIEWER, False),
    "CompositionService.GetSeries": (VIEWER, False),
    "CompositionService.ListInstances": (VIEWER, False),
    "CompositionService.PreviewSelection": (VIEWER, False),
    "CompositionService.RenderInstance": (VIEWER, False),
    "CompositionService.RenderSelection": (VIEWER, False),
    "CompositionService.ComposeJob": (OPERATOR, False),
    "CompositionService.ReleaseStudies": (OPERATOR, False),
    "CompositionService.FindStudies": (OPERATOR, False),
    "CompositionService.FetchStudy": (OPERATOR, False),
    "JobService.FindMissingInstances": (OPERATOR, True),
    "JobService.UploadInstance": (OPERATOR, True),
    "JobService.SubmitJob": (OPERATOR, True),
    "JobService.GetJob": (VIEWER, True),
    "JobService.GetJobHistory": (VIEWER, True),
    "JobService.StreamProvenance": (VIEWER, True),
    "JobService.ListJobs": (VIEWER, True),
    "JobService.WatchJobs": (VIEWER, True),
    "JobService.CancelJob": (OPERATOR, True),
    "JobService.RetryJob": (OPERATOR, True),
    "JobService.RerunJob": (OPERATOR, True),
    "JobService.InvalidateJob": (MANAGER, True),
    "JobService.DeleteJob": (OPERATOR, True),
    "JobService.StreamLogs": (VIEWER, True),
    "JobService.StreamOutput": (VIEWER, True),
    "PipelineService.ListPipelines": (VIEWER, True),
    "PipelineService.GetPipeline": (VIEWER, True),
    "PlatformService.GetPlatform": (VIEWER, True),
    "PlatformService.PausePlatform": (MANAGER, False),
    "PlatformService.ResumePlatform": (MANAGER, False),
    "WebhookService.ListDeliveries": (VIEWER, False),
    "WebhookService.RetryDeliveries": (OPERATOR, False),
    "WebhookService.DiscardDeliveries": (OPERATOR, False),
    "TokenService.CreateToken": (ADMIN, False),
    "TokenService.ListTokens": (ADMIN, False),
    "TokenService.RevokeToken": (ADMIN, False),
}
#: What a call must say to get as far as the role is looked at.
REQUESTS: dict[str, Any] = {
    "TokenService.CreateToken": tokens_pb2.CreateTokenRequest(role=tokens_pb2.ROLE_VIEWER),
    **{
        f"AdapterService.{verb}{what}": adapter_pb2.ChosenRequest(ids=["x"])
        for verb in ("Complete", "Retry", "Discard")
        for what in ("Groups", "Submissions", "Quarantine")
    },
    **{
        f"WebhookService.{verb}Deliveries": adapter_pb2.ChosenRequest(ids=["x"])
        for verb in ("Retry", "Discard")
    },
    "CompositionService.ReleaseStudies": composition_pb2.ReleaseStudiesRequest(
        study_instance_uids=["1.2"]
    ),
    "JobService.SubmitJob": jobs_pb2.SubmitJobRequest(
        priority=jobs_pb2.PRIORITY_NORMAL, items=[jobs_pb2.JobItemRequest()]
    ),
}


@dataclass
class Served:
    """A service, the address of its TCP port, and how tokens are known there."""

    address: str
    clients: dict[tuple[Role, bool], Client]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service with a caller of each role, everywhere and in one project."""
    folder: Path = tmp_path_factory.mktemp("roles")
    config = CONFIG.replace("listen: null", 'listen: "127.0.0.1:0"') + "projects: {trial: {}}\n"
    with running(folder, config) as made:
        (address,) = made.ready.grpc
        clients = {}
        with Client(socket_address(made.service.settings)) as owner:
            for role in Role:
                for project in ("", "trial"):
                    request = tokens_pb2.CreateTokenRequest(role=to_role(role), project=project)
                    secret = owner.tokens.CreateToken(request).secret
                    clients[role, bool(project)] = Client(address, Credentials(secret))
        yield Served(address, clients)
        for client in clients.values():
            client.close()


def call(client: Client, name: str) -> None:
    """Call a method with as little as it takes; raise what it answers."""
    method: MethodDescriptor = METHODS[name]
    stub = {
        "AdapterService": client.adapter,
        "AuditService": client.audit,
        "CompositionService": client.composition,
        "JobService": client.jobs,
        "PipelineService": client.pipelines,
        "PlatformService": client.platform,
        "TokenService": client.tokens,
        "WebhookService": client.webhooks,
    }[name.partition(".")[0]]
    request = REQUESTS.get(name) or GetMessageClass(method.input_type)()
    if method.client_streaming:
        header = jobs_pb2.UploadInstanceRequest(header=jobs_pb2.UploadInstanceRequest.Header())
        request = iter([header])
    with client.errors():
        answer = getattr(stub, method.name)(request, timeout=10)
        if method.server_streaming:
            list(answer)


def is_denied(client: Client, name: str) -> bool:
    """Tell whether the caller may not call a method; any other answer says that he may."""
    try:
        call(client, name)
    except PermissionDeniedError:
        return True
    except UnauthenticatedError:
        raise
    except Exception:  # noqa: BLE001 - it was let in, and what it asked for is not there
        return False
    return False


def test_every_method_is_looked_at() -> None:
    """What is added later must say who may call it."""
    assert set(NEEDED) == set(METHODS)


# Watching goes on for ever.
@pytest.mark.parametrize("name", [name for name in NEEDED if name != "JobService.WatchJobs"])
def test_a_role_may_call_what_it_may(served: Served, name: str) -> None:
    """Those below the least role may not, those from it on may; so with a project's tokens."""
    least, within = NEEDED[name]
    denied = {role: is_denied(served.clients[role, False], name) for role in Role}
    assert denied == {role: not role.covers(least) for role in Role}
    inside = {role: is_denied(served.clients[role, True], name) for role in Role}
    assert inside == {role: not (within and role.covers(least)) for role in Role}


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("token", ["", "dat_wrong", "x y"])
def test_r13_nobody_unknown_calls_anything(served: Served, name: str, token: str) -> None:
    """Over TCP, also from this machine: the answer says what is missing, and does nothing."""
    with (
        Client(served.address, Credentials(token)) as client,
        pytest.raises(UnauthenticatedError, match="token"),
    ):
        call(client, name)


def test_health_asks_nobody(served: Served) -> None:
    """A load balancer has no token."""
    with grpc.insecure_channel(served.address) as channel:
        check: Any = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"", timeout=10) == b"\x08\x01"
