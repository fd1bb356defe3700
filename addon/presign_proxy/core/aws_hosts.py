"""Service and region of a host of AWS: the names that a signature is made for."""

from __future__ import annotations

import re
from typing import Final

_DOMAINS: Final = (
    r"(?:amazonaws\.com(?:\.cn)?|amazonaws\.eu|api\.aws|api\.amazonwebservices\.com\.cn|on\.aws)"
)
_REGIONAL: Final = re.compile(
    rf"(?P<service>[a-z0-9.-]+?)(?:\.dualstack)?[.](?P<region>[a-z]{{2,4}}(?:-[a-z]+)+-[0-9]{{1,2}})\.{_DOMAINS}"
)
_REVERSED: Final = re.compile(
    rf"[a-z0-9-]+\.(?P<region>[a-z]{{2,4}}(?:-[a-z]+)+-[0-9]{{1,2}})\.(?P<service>es|aoss)\.{_DOMAINS}"
)
"""OpenSearch: the region stands before the service."""
_GLOBAL: Final = re.compile(
    r"(?P<service>(?:[a-z0-9.-]+\.)?s3|iam|sts|cloudfront|route53|organizations)\.amazonaws\.com"
)
_OLD_S3: Final = re.compile(r"(?P<front>.*\.)?s3-(?P<region>[a-z]{2,4}(?:-[a-z]+)+-[0-9]{1,2})")
_BEHIND_NAMES: Final = frozenset(
    b"s3 s3-outposts s3-object-lambda s3-accesspoint s3-control "
    b"execute-api lambda-url appsync-api".decode().split()
)
"""Services in front of whose name the host has that of a bucket or an API."""
_SIGNED_AS: Final = {
    signed: names.split()
    for signed, names in {
        "appconfig": "appconfigdata",
        "appstream": "appstream2",
        "appsync": "appsync-api",
        "aws-marketplace": "agreement-marketplace catalog.marketplace deployment-marketplace "
        "discovery-marketplace entitlement.marketplace metering.marketplace reporting-marketplace",
        "bedrock": "bedrock-agent bedrock-agent-runtime bedrock-data-automation "
        "bedrock-data-automation-runtime bedrock-runtime",
        "bedrock-agentcore": "bedrock-agentcore-control",
        "chime": "identity-chime media-pipelines-chime meetings-chime messaging-chime voice-chime",
        "connect": "contact-lens",
        "detective": "api.detective",
        "dynamodb": "streams.dynamodb",
        "ecr": "api.ecr",
        "ecr-public": "api.ecr-public",
        "events": "eventsv2",
        "execute-api": "participant.connect",
        "forecast": "forecastquery",
        "iot-jobs-data": "data.jobs.iot",
        "iotdata": "data-ats.iot",
        "iotwireless": "api.iotwireless",
        "ivs": "ivsrealtime",
        "lambda": "lambda-url",
        "lex": "models.lex models-v2-lex runtime.lex runtime-v2-lex",
        "mediastore": "data.mediastore",
        "mediatailor": "api.mediatailor",
        "memorydb": "memory-db",
        "mgh": "migrationhub-config",
        "mobiletargeting": "pinpoint",
        "payment-cryptography": "controlplane.payment-cryptography dataplane.payment-cryptography",
        "personalize": "personalize-events personalize-runtime",
        "pricing": "api.pricing",
        "s3": "s3-accesspoint s3-control",
        "sagemaker": "api.sagemaker edge.sagemaker featurestore-runtime.sagemaker metrics.sagemaker "
        "runtime.sagemaker",
        "servicecatalog": "servicecatalog-appregistry",
        "ses": "email mail-manager",
        "signer": "data-signer",
        "sms-voice": "sms-voice.pinpoint",
        "sso-oauth": "oidc",
        "awsssoportal": "portal.sso",
        "timestream": "ingest.timestream query.timestream",
    }.items()
}
_NAMES: Final = {name: signed for signed, names in _SIGNED_AS.items() for name in names}
"""Services whose signatures are made for another name than the one in their host."""


def scope_of(host: str) -> tuple[str, str] | None:
    """Return service and region, as they are signed; None for a host that does not say both."""
    found = _REVERSED.fullmatch(host) or _REGIONAL.fullmatch(host)
    if found is None:
        found = _GLOBAL.fullmatch(host)
        old = _OLD_S3.fullmatch(host.removesuffix(".amazonaws.com")) if found is None else None
        if old is not None and host.endswith(".amazonaws.com"):
            return "s3", old["region"]
        service, region = (found["service"], "us-east-1") if found is not None else ("", "")
    else:
        service, region = found["service"], found["region"]
    signed = _signed_as(service.removesuffix("-fips"))
    return (signed, region) if signed else None


def _signed_as(service: str) -> str:
    if service in _NAMES:
        return _NAMES[service]
    front, _, last = service.rpartition(".")
    last = last.removesuffix("-fips")
    if front and last not in _BEHIND_NAMES:
        return ""  # a name that is not known: the configuration has to say what it is
    return _NAMES.get(last, last)
