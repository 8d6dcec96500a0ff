"""Kind `forward_http`: calls a web service with the message."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from nodes import (
    FAILURE,
    SUCCESS,
    BadInput,
    Build,
    CallContext,
    CallNode,
    Example,
    Finding,
    Message,
    NodeSpec,
    Relation,
    Retry,
)
from nodes.codecs.values import decode_json
from nodes.outward.addresses import Guard
from nodes.outward.http import RETRIED_STATUSES, Answer, Client, retry_after_s
from nodes.templates import Template, in_json, in_url

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "idempotency-key"})


class Config(msgspec.Struct, forbid_unknown_fields=True):
    """Which call is made."""

    url: Annotated[
        str, Meta(description="Address, a template; what is put in is percent-encoded. Secrets allowed.", min_length=1)
    ]
    method: Annotated[Literal["GET", "POST", "PUT", "PATCH", "DELETE"], Meta(description="HTTP method.")] = "POST"
    headers: Annotated[dict[str, str], Meta(description="Header name to value, a template. Secrets allowed.")] = {}
    body: Annotated[
        str | None,
        Meta(
            description="Body, a template with secrets, in which values are escaped for JSON; null: the message's data."
        ),
    ] = None
    timeout_s: Annotated[float, Meta(description="Seconds for the whole call.", gt=0, le=300)] = 10.0
    concurrency: Annotated[int, Meta(description="Calls at the same time per partition.", ge=1, le=1000)] = 64
    order: Annotated[
        Literal["originator", "none"],
        Meta(description="`originator`: one call at a time per device, in order; `none`: as fast as possible."),
    ] = "originator"
    keep_data: Annotated[bool, Meta(description="The message keeps its data instead of taking the answer's body.")] = (
        False
    )
    max_response_bytes: Annotated[int, Meta(description="A longer answer is an error.", ge=0, le=16 * 1024 * 1024)] = (
        256 * 1024
    )
    allow_private: Annotated[
        bool, Meta(description="Private addresses too, those that the server's settings permit.")
    ] = False


class ForwardHttp(CallNode):
    """Makes one HTTP call per message."""

    spec: ClassVar[NodeSpec] = NodeSpec(
        kind="forward_http",
        category="external",
        summary="Calls an HTTP service with each message and goes on with the answer.",
        description=(
            "A 2xx answer becomes the message's data, JSON if the answer says so, else text; its status goes to the "
            "metadata `statusCode`. Answers 408, 425, 429 and 5xx and connection errors are tried again, after the "
            "time in `Retry-After` if there is one; every other answer is a failure, redirects too. A call that is "
            "made again after a crash carries the same `Idempotency-Key`. Addresses that are not public are refused."
        ),
        config=Config,
        relations=(
            Relation(SUCCESS, "The service answered with 2xx."),
            Relation(FAILURE, "The service refused, or could not be reached in all attempts."),
        ),
        parks=True,
        examples=(
            Example("Post the data as JSON", {"url": "https://example.com/ingest/${deviceName}"}),
            Example(
                "A body and a token of your own",
                {
                    "url": "https://example.com/alerts",
                    "headers": {"Authorization": "Bearer ${secret:ALERTS_TOKEN}"},
                    "body": '{"text": "${deviceName} is at $[temperature]"}',
                    "keep_data": True,
                },
            ),
        ),
    )
    config: Config

    def __init__(self, config: Config, build: Build) -> None:
        super().__init__(config, build)
        self.timeout_s = config.timeout_s
        self.concurrency = config.concurrency
        self.ordered = config.order == "originator"
        self._url, self._headers, self._body = _templates(config)
        self._client = Client(Guard.from_environment(config.allow_private), connections=config.concurrency)

    @classmethod
    def check(cls, config: Config, build: Build) -> list[Finding]:
        """Templates that do not compile, secrets that are missing, headers that are not the configuration's to set."""
        findings = [
            Finding(f"/headers/{name}", f"header {name!r} cannot be set here")
            for name in config.headers
            if not _HEADER_NAME.fullmatch(name) or name.lower() in _OURS
        ]
        texts = {"/url": config.url, "/body": config.body or ""}
        texts |= {f"/headers/{name}": text for name, text in config.headers.items()}
        for pointer, text in texts.items():
            try:
                for name in Template(text, secrets=True).secret_names:
                    build.secret(name)
            except BadInput as error:
                findings.append(Finding(pointer, error.reason))
        return findings

    async def call(self, message: Message, ctx: CallContext) -> list[tuple[str, Message]]:
        """Make the call."""
        url = self._url.render(message, ctx.secret)
        headers = {name: text.render(message, ctx.secret) for name, text in self._headers.items()}
        body, content_type = self._content(message, ctx)
        if body is not None and "content-type" not in {name.lower() for name in headers}:
            headers["Content-Type"] = content_type
        headers["Idempotency-Key"] = ctx.idempotency_key
        headers.setdefault("User-Agent", "rulemill")
        headers["Accept-Encoding"] = "identity"
        try:
            async with asyncio.timeout(self.config.timeout_s):
                answer = await self._client.request(
                    self.config.method,
                    url,
                    headers,
                    body,
                    timeout_s=self.config.timeout_s,
                    max_bytes=self.config.max_response_bytes,
                )
        except TimeoutError as error:
            raise Retry(f"no answer within {self.config.timeout_s:g} s") from error
        return [(SUCCESS, self._answered(message, answer))]

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.close()

    def _content(self, message: Message, ctx: CallContext) -> tuple[bytes | None, str]:
        if self._body is not None:
            return self._body.render(message, ctx.secret).encode(), "application/json"
        if self.config.method in ("GET", "DELETE"):
            return None, ""
        if isinstance(message.data, bytes):
            return message.data, "application/octet-stream"
        try:
            return msgspec.json.encode(message.data), "application/json"
        except (TypeError, ValueError, RecursionError) as error:
            raise BadInput(f"the data is not JSON: {error}") from error

    def _answered(self, message: Message, answer: Answer) -> Message:
        status = answer.status
        if not 200 <= status < 300:
            reason = f"the service answered {status}: {answer.body[:200].decode('utf-8', 'replace')}"
            if status in RETRIED_STATUSES or status >= 500:
                raise Retry(reason, retry_after_s(answer.headers))
            raise BadInput(f"{reason} (redirects are not followed)" if 300 <= status < 400 else reason)
        metadata = {**message.metadata, "statusCode": str(status)}
        data = message.data if self.config.keep_data else _body_of(answer)
        return replace(message, data=data, metadata=metadata)


def _templates(config: Config) -> tuple[Template, dict[str, Template], Template | None]:
    return (
        Template(config.url, secrets=True, escape=in_url),
        {name: Template(text, secrets=True) for name, text in config.headers.items()},
        None if config.body is None else Template(config.body, secrets=True, escape=in_json),
    )


def _body_of(answer: Answer) -> Any:
    media_type = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not answer.body:
        return None
    if media_type == "application/json" or media_type.endswith("+json"):
        try:
            return decode_json(answer.body)
        except BadInput as error:
            raise BadInput(f"the service answered with broken JSON: {error}") from error
    try:
        return answer.body.decode()
    except UnicodeDecodeError:
        return answer.body
