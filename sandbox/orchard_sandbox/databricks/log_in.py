"""Who may call the Databricks stand-in: a personal access token, and service principals by OAuth (client credentials)."""

import base64
import secrets
import time
from typing import Any

from werkzeug.wrappers import Request

from orchard_sandbox.databricks.requests import ApiError

TOKEN_SECONDS = 3600.0


class LogIns:
    """The tokens that are accepted: a personal one, and those of service principals, given as secrets by id."""

    def __init__(self, address: str, token: str, principals: dict[str, str]) -> None:
        self._address = address
        self._tokens = {token: float("inf")}
        self._principals = principals

    def check(self, request: Request) -> None:
        """Raise ApiError for a request without a valid token."""
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if self._tokens.get(token, 0.0) < time.time():
            raise ApiError(401, "UNAUTHENTICATED", "Credential was not sent or was of an unsupported type for this API.")

    def answer(self, request: Request) -> tuple[dict[str, Any], int]:
        """Return the body and status of a discovery page or of a token request."""
        pages = {
            "/.well-known/databricks-config": {"oidc_endpoint": f"{self._address}/oidc", "workspace_id": "1"},
            "/oidc/.well-known/oauth-authorization-server": {
                "authorization_endpoint": f"{self._address}/oidc/v1/authorize",
                "token_endpoint": f"{self._address}/oidc/v1/token",
            },
        }
        if request.path in pages:
            return pages[request.path], 200
        if request.path != "/oidc/v1/token" or request.method != "POST":
            raise ApiError(404, "ENDPOINT_NOT_FOUND", f"{request.path} is not known here")
        scheme, _, packed = request.headers.get("Authorization", "").partition(" ")
        name, _, secret = base64.b64decode(packed).decode().partition(":") if scheme == "Basic" else ("", "", "")
        if not name or self._principals.get(name) != secret or request.form.get("grant_type") != "client_credentials":
            return {"error": "invalid_client", "error_description": "Client authentication failed"}, 401
        token = secrets.token_urlsafe(24)
        self._tokens[token] = time.time() + TOKEN_SECONDS
        return {"access_token": token, "token_type": "Bearer", "expires_in": int(TOKEN_SECONDS), "scope": "all-apis"}, 200
