"""Checks the signature of each call to AWS (SigV4) with botocore's own signer. It knows no operation of any service."""

import hmac
import io
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, urlencode
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from werkzeug.wrappers import Request, Response

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/,]+)/\d{8}/(?P<region>[^/,]+)/(?P<service>[^/,]+)/aws4_request,\s*"
    r"SignedHeaders=(?P<headers>[^,]+),\s*Signature=(?P<signature>[0-9a-f]{64})"
)
_ADVICE = "sign the call with the keys of this stack; `make status` says where they are"


@dataclass(frozen=True)
class SignatureCheck:
    """Lets a call through that is signed with the one key, in its headers: neither a presigned URL nor SigV2 is taken."""

    key: str
    secret: str

    def wrap(self, application: WSGIApplication) -> WSGIApplication:
        """Return the WSGI application with the check before it."""

        def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            request = Request(environ)
            signed = _AUTHORIZATION.fullmatch(request.headers.get("Authorization", ""))
            if signed is None:
                respond: WSGIApplication = refusal("AccessDenied", _ADVICE, "s3")
            elif signed["key"] != self.key:
                respond = refusal("InvalidAccessKeyId", _ADVICE, signed["service"])
            elif not hmac.compare_digest(self._signature(request, signed), signed["signature"]):
                respond = refusal("SignatureDoesNotMatch", _ADVICE, signed["service"])
            else:
                respond = application
            return respond(environ, start_response)

        return answer

    def _signature(self, request: Request, signed: re.Match[str]) -> str:
        kind = S3SigV4Auth if signed["service"] == "s3" else SigV4Auth
        signer = kind(Credentials(self.key, self.secret), signed["service"], signed["region"])
        path, _, query = request.environ["RAW_URI"].partition("?")
        headers = {name: request.headers.get(name, "") for name in signed["headers"].split(";")}
        asked = AWSRequest(
            method=request.method,
            # Clients differ in what they escape.
            url=f"http://{request.host}{path}?{urlencode(parse_qsl(query, keep_blank_values=True), quote_via=quote)}",
            headers=headers,
            data=None if "x-amz-content-sha256" in headers else _body(request),
        )
        asked.context["timestamp"] = request.headers.get("X-Amz-Date", "")
        signature: str = signer.signature(signer.string_to_sign(asked, signer.canonical_request(asked)), asked)
        return signature


def _body(request: Request) -> bytes:
    """Return the body, and leave it there for the application."""
    content = request.get_data()
    request.environ["wsgi.input"] = io.BytesIO(content)
    return content


def refusal(code: str, message: str, service: str) -> Response:
    """Return a 403 in the form of a service: XML for S3, else JSON."""
    if service == "s3":
        body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
        return Response(body, 403, mimetype="application/xml")
    return Response(json.dumps({"__type": code, "message": message}), 403, mimetype="application/json")
