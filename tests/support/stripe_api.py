"""Answers of the recording upstream in the shape that Stripe's SDK insists on."""

import json
from collections.abc import Callable
from typing import Any

from support.answers import Answer
from support.seen import Seen

CUSTOMERS = ("cus_1", "cus_2")


def _customers(request: Seen) -> Answer:
    """GET and POST /v1/customers. A page of the list holds one customer."""
    if request.method == "POST":
        return _json({"id": "cus_new", "object": "customer", "name": "Ada"})
    second = "starting_after=cus_1" in request.target
    data = [{"id": CUSTOMERS[second], "object": "customer"}]
    return _json({"object": "list", "data": data, "has_more": not second, "url": "/v1/customers"})


def _files(_: Seen) -> Answer:
    """POST /v1/files at files.stripe.com"""
    return _json({"id": "file_1", "object": "file", "purpose": "dispute_evidence"})


def _json(data: dict[str, Any]) -> Answer:
    return Answer(body=json.dumps(data).encode())


STRIPE: dict[str, Callable[[Seen], Answer]] = {"customers": _customers, "files": _files}
"""By the last segment of the path, as `support.answers.BEHAVIOURS`."""
