"""A second script that a test works from outside: `POST http://puppet.test/{verb}`, arguments as JSON.

Edits are attributes of `flow.request`; `header:NAME` sets a header, `data:NAME` an attribute of its data.
"""

import asyncio
import functools
import gc
import json
from typing import Any

from mitmproxy import connection, ctx, exceptions, flow, http

HOST = "puppet.test"


class Puppet:
    def __init__(self) -> None:
        self.flows: list[http.HTTPFlow] = []
        self.edits: dict[str, dict[str, Any]] = {}
        self.hold = ""
        self.held: http.HTTPFlow | None = None

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        self._meet("requestheaders", flow)

    def request(self, flow: http.HTTPFlow) -> None:
        if flow.request.host == HOST:
            self._obey(flow)
        else:
            self.flows.append(flow)
            self._meet("request", flow)

    def response(self, flow: http.HTTPFlow) -> None:
        if flow.request.host != HOST and flow not in self.flows:
            self.flows.append(flow)  # refused before `request`

    def _meet(self, hook: str, flow: http.HTTPFlow) -> None:
        if flow.request.host == HOST:
            return
        edit(flow, self.edits.get(hook, {}))
        if self.hold == hook:
            self.hold, self.held = "", flow
            flow.intercept()

    def _obey(self, flow: http.HTTPFlow) -> None:
        verb = flow.request.path.strip("/")
        arguments = json.loads(flow.request.get_text() or "{}")
        try:
            answer = getattr(self, f"do_{verb}")(**arguments)
        except (exceptions.OptionsError, exceptions.CommandError) as error:
            answer = {"error": str(error)}
        flow.response = http.Response.make(200, json.dumps(answer or {}).encode())

    def do_options(self, **options: Any) -> None:
        ctx.options.update(**options)

    def do_option(self, name: str) -> dict[str, Any]:
        return {"value": getattr(ctx.options, name)}

    def do_lose_upstreams(self, seconds: float) -> None:
        """What a failing write does to a connection that is just being told to have ended: for some time no
        event is handled, then the tasks of all upstream connections are cancelled.
        """
        self.task = asyncio.get_running_loop().create_task(self._lose(seconds))

    async def _lose(self, seconds: float) -> None:
        for handler in list(ctx.master.addons.get("proxyserver").connections.values()):
            lost = [io.handler for conn, io in handler.transports.items() if conn is not handler.client]
            if lost:
                async with handler._server_event_lock:
                    await asyncio.sleep(seconds)
                    for task in lost:
                        task.cancel("Error sending data")
                    await asyncio.sleep(0.1)

    def do_execute(self, line: str) -> None:
        """A command as it is typed at mitmproxy's prompt."""
        ctx.master.commands.execute(line)

    def do_edit(self, hook: str, **changes: Any) -> None:
        """Make these changes in every flow from now on."""
        self.edits = {hook: changes} if changes else {}

    def do_forget(self) -> None:
        self.flows.clear()
        self.edits.clear()

    def do_clients(self) -> dict[str, Any]:
        """How many clients' connections are still kept by anybody, open or not."""
        gc.collect()
        return {"kept": sum(type(one) is connection.Client for one in gc.get_objects())}

    def do_hold(self, hook: str) -> None:
        """Intercept the next flow in this hook."""
        self.hold, self.held = hook, None

    def do_held(self) -> dict[str, Any]:
        return {"held": self.held is not None}

    def do_resume(self, **changes: Any) -> None:
        if self.held is not None:
            edit(self.held, changes)
            self.held.resume()

    def do_replay(self, copy: bool = False, **changes: Any) -> dict[str, Any]:
        """Replay the last flow, or a copy of it, edited."""
        last = self.flows[-1].copy() if copy else self.flows[-1]
        edit(last, changes)
        ctx.master.commands.call("replay.client", [last])
        return self.do_pending()

    def do_replay_file(self, path: str) -> dict[str, Any]:
        ctx.master.commands.call("replay.client.file", path)
        return self.do_pending()

    def do_pending(self) -> dict[str, Any]:
        return {"pending": ctx.master.commands.call("replay.client.count")}


def edit(target: flow.Flow, changes: dict[str, Any]) -> None:
    assert isinstance(target, http.HTTPFlow)
    for name, value in changes.items():
        kind, _, rest = name.partition(":")
        if kind == "header":
            target.request.headers[rest] = value
        elif kind == "add":
            target.request.headers.add(rest, value)
        elif kind == "data":
            setattr(target.request.data, rest, value.encode() if isinstance(value, str) else value)
        elif kind == "content":
            target.request.content = value.encode()
        elif kind == "trailers":
            target.request.trailers = http.Headers(x_trailer=value)
        elif kind == "stream":
            target.request.stream = functools.partial(_replace_chunk, value.encode())
        elif kind == "metadata":
            target.metadata[rest] = value
        else:
            setattr(target.request, name, value)


def _replace_chunk(value: bytes, chunk: bytes) -> bytes:
    return value if chunk else b""


addons = [Puppet()]
