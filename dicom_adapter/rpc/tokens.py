"""Serves the tokens that callers are known by."""

from dicom_adapter.access import Access
from dicom_adapter.errors import InvalidArgumentError
from dicom_adapter.lifecycle import Role
from dicom_adapter.model import Token
from dicom_adapter.rpc.context import Call
from dicom_adapter.rpc.convert import to_timestamp
from dicom_adapter.v1 import tokens_pb2, tokens_pb2_grpc

_ROLES = {
    Role.VIEWER: tokens_pb2.ROLE_VIEWER,
    Role.OPERATOR: tokens_pb2.ROLE_OPERATOR,
    Role.MANAGER: tokens_pb2.ROLE_MANAGER,
    Role.ADMIN: tokens_pb2.ROLE_ADMIN,
}


class TokenServicer(tokens_pb2_grpc.TokenServiceServicer):
    """Serves TokenService."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def CreateToken(  # noqa: N802 - the API's name
        self, request: tokens_pb2.CreateTokenRequest, call: Call
    ) -> tokens_pb2.CreateTokenResponse:
        """Make a token."""
        token, secret = self._access.create(
            call.caller,
            name=request.name,
            role=from_role(request.role),
            project=request.project or None,
            lasts=request.lasts.ToTimedelta() if request.HasField("lasts") else None,
        )
        return tokens_pb2.CreateTokenResponse(token=_to_token(token), secret=secret)

    def ListTokens(  # noqa: N802 - the API's name
        self, request: tokens_pb2.ListTokensRequest, call: Call
    ) -> tokens_pb2.ListTokensResponse:
        """Return every token."""
        del request
        found = self._access.listed(call.caller)
        return tokens_pb2.ListTokensResponse(tokens=map(_to_token, found))

    def RevokeToken(  # noqa: N802 - the API's name
        self, request: tokens_pb2.RevokeTokenRequest, call: Call
    ) -> tokens_pb2.Token:
        """Let a caller in no more."""
        return _to_token(self._access.revoke(call.caller, request.name))


def to_role(role: Role) -> tokens_pb2.Role.ValueType:
    """Return a role as the API's."""
    return _ROLES[role]


def from_role(number: tokens_pb2.Role.ValueType) -> Role:
    """Return the API's role as a value; InvalidArgumentError names those there are."""
    for role, known in _ROLES.items():
        if known == number:
            return role
    raise InvalidArgumentError("role", f"must be one of {', '.join(Role)}")


def _to_token(token: Token) -> tokens_pb2.Token:
    return tokens_pb2.Token(
        name=token.name,
        role=to_role(token.role),
        project=token.project or "",
        created_at=to_timestamp(token.created_at),
        created_by=token.created_by,
        expires_at=to_timestamp(token.expires_at),
        revoked_at=to_timestamp(token.revoked_at),
    )
