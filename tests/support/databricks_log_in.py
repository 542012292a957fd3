"""Service principals at the Databricks stand-in, which log in by OAuth (client credentials)."""

import base64
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from orchard_sandbox.databricks.requests import ApiError
from werkzeug.wrappers import Request

TOKEN_SECONDS = 3600.0


@dataclass(frozen=True)
class Principals:
    """Service principals, whose secrets are given by their ids, and the tokens that they were given."""

    address: str
    secrets_by_id: dict[str, str]
    _tokens: dict[str, float] = field(default_factory=dict)

    def accept(self, token: str) -> bool:
        """Say whether a token is good."""
        return self._tokens.get(token, 0.0) >= time.time()

    def answer(self, request: Request) -> tuple[dict[str, Any], int]:
        """Return the body and status of a discovery page or of a token request."""
        pages = {
            "/.well-known/databricks-config": {"oidc_endpoint": f"{self.address}/oidc", "workspace_id": "1"},
            "/oidc/.well-known/oauth-authorization-server": {
                "authorization_endpoint": f"{self.address}/oidc/v1/authorize",
                "token_endpoint": f"{self.address}/oidc/v1/token",
            },
        }
        if request.path in pages:
            return pages[request.path], 200
        if request.path != "/oidc/v1/token" or request.method != "POST":
            raise ApiError(404, "ENDPOINT_NOT_FOUND", f"{request.path} is not known here")
        scheme, _, packed = request.headers.get("Authorization", "").partition(" ")
        name, _, secret = base64.b64decode(packed).decode().partition(":") if scheme == "Basic" else ("", "", "")
        if not name or self.secrets_by_id.get(name) != secret or request.form.get("grant_type") != "client_credentials":
            return {"error": "invalid_client", "error_description": "Client authentication failed"}, 401
        token = secrets.token_urlsafe(24)
        self._tokens[token] = time.time() + TOKEN_SECONDS
        return {"access_token": token, "token_type": "Bearer", "expires_in": int(TOKEN_SECONDS), "scope": "all-apis"}, 200
