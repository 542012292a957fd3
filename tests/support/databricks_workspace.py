"""A Databricks workspace as launchers and deployments may meet it: the stand-in with service principals and workspace files."""

from orchard_sandbox.databricks.requests import given_of
from orchard_sandbox.databricks.stand_in import Databricks, as_json
from orchard_sandbox.databricks.task_compute import Workspace
from werkzeug.wrappers import Request, Response

from support.databricks_log_in import Principals
from support.databricks_workspace_files import WorkspaceFiles

PRINCIPAL, SECRET = "the-principal", "the-secret"


class FullWorkspace(Databricks):
    """The stand-in with all that a workspace has beside its runs and volumes."""

    def __init__(self, workspace: Workspace, token: str) -> None:
        super().__init__(workspace, token)
        self._principals = Principals(workspace.address, {PRINCIPAL: SECRET})
        self._files = WorkspaceFiles(workspace.folder / "workspace").calls()

    def accepts(self, token: str) -> bool:
        """Take a service principal's token, too."""
        return super().accepts(token) or self._principals.accept(token)

    def route(self, request: Request) -> Response:
        """Answer what the stand-in does not know."""
        if request.path.startswith(("/oidc/", "/.well-known/")):
            return as_json(*self._principals.answer(request))
        call = self._files.get((request.method, request.path))
        if call is None or not self.accepts(request.headers.get("Authorization", "").removeprefix("Bearer ")):
            return super().route(request)
        uploaded = request.files.get("content")
        found = call({**request.form.to_dict(), "content": uploaded.read()} if uploaded else given_of(request))
        return Response(found, mimetype="application/octet-stream") if isinstance(found, bytes) else as_json(found)
