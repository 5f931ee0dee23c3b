"""Who calls, and what they may."""

from dataclasses import dataclass
from datetime import datetime

from dicom_adapter.errors import PermissionDeniedError
from dicom_adapter.lifecycle import Role


@dataclass(frozen=True)
class Caller:
    """Whoever wants something done: by name, with a role, in one project or in all (None)."""

    name: str
    role: Role
    project: str | None = None

    def sees(self, project: str) -> bool:
        """Tell whether what is in a project is there for it."""
        return self.project in (None, project)

    def check_project(self, project: str) -> None:
        """Make sure that a project is not another than its own.

        Raises:
            PermissionDeniedError: it is.
        """
        if not self.sees(project):
            raise PermissionDeniedError(
                f"{self.name} is let into the project {self.project} alone, not into '{project}': "
                "use another token"
            )

    def check(self, needed: Role) -> None:
        """Make sure that the role suffices.

        Raises:
            PermissionDeniedError: it does not.
        """
        if not self.role.covers(needed):
            raise PermissionDeniedError(
                f"{self.name} has the role {self.role}, and this takes the role {needed}: use "
                "another token"
            )

    def check_everywhere(self, needed: Role) -> None:
        """Make sure that the role suffices for what concerns every project.

        Raises:
            PermissionDeniedError: it does not, or is one for a single project.
        """
        self.check(needed)
        if self.project is not None:
            raise PermissionDeniedError(
                f"{self.name} has the role {self.role} in the project {self.project} alone, and "
                "this concerns all of them: use another token"
            )


#: Who owns the service's Unix socket, and so everything that it has.
LOCAL = Caller("local", Role.ADMIN)


@dataclass(frozen=True)
class Token:
    """What lets a caller in, without its secret; `project` None is every one."""

    name: str
    role: Role
    project: str | None
    created_at: datetime
    created_by: str
    #: None: it does not end by itself.
    expires_at: datetime | None
    revoked_at: datetime | None

    def is_valid(self, at: datetime) -> bool:
        """Tell whether it lets its caller in at a time."""
        return self.revoked_at is None and (self.expires_at is None or at < self.expires_at)
