"""Service and region by a host: as botocore's own data name them, and nothing where a host does not say."""

from __future__ import annotations

import pytest
from botocore.loaders import Loader

from presign_proxy.core.aws_hosts import scope_of

UNTOLD = {
    "a2i-runtime.sagemaker", "account-access-runtime", "admin.wickr", "agent-registry-control",
    "api.iotdeviceadvisor", "api.iotmanagedintegrations", "api.tunneling.iot", "cassandra-streams",
    "cloudhsmv2", "cloudsearchdomain", "cloudwatch-omni", "data.qapps", "gateway-runtime.sagemaker",
    "iam-toolbox", "inferencerouter-runtime.sagemaker", "job-runtime.sagemaker", "partnercentral-prm",
    "training-session-runtime.sagemaker",
}  # fmt: skip
"""Endpoints that few people call by hand: a connection to them has to say its service."""


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("s3.eu-west-1.amazonaws.com", ("s3", "eu-west-1")),
        ("my-bucket.s3.eu-west-1.amazonaws.com", ("s3", "eu-west-1")),
        ("my.bucket.s3.eu-west-1.amazonaws.com", ("s3", "eu-west-1")),
        ("s3.dualstack.us-west-2.amazonaws.com", ("s3", "us-west-2")),
        ("b.s3.dualstack.us-west-2.amazonaws.com", ("s3", "us-west-2")),
        ("b.s3-fips.us-gov-west-1.amazonaws.com", ("s3", "us-gov-west-1")),
        ("s3.amazonaws.com", ("s3", "us-east-1")),
        ("my-bucket.s3.amazonaws.com", ("s3", "us-east-1")),
        ("s3-eu-west-1.amazonaws.com", ("s3", "eu-west-1")),
        ("bucket.s3-eu-west-1.amazonaws.com", ("s3", "eu-west-1")),
        ("s3.cn-north-1.amazonaws.com.cn", ("s3", "cn-north-1")),
        ("ap-123.s3-accesspoint.eu-west-1.amazonaws.com", ("s3", "eu-west-1")),
        ("bedrock-runtime.eu-central-1.amazonaws.com", ("bedrock", "eu-central-1")),
        ("bedrock-runtime-fips.us-east-1.amazonaws.com", ("bedrock", "us-east-1")),
        ("bedrock.us-east-1.amazonaws.com", ("bedrock", "us-east-1")),
        ("dynamodb.ap-southeast-2.amazonaws.com", ("dynamodb", "ap-southeast-2")),
        ("email.us-east-1.amazonaws.com", ("ses", "us-east-1")),
        ("abc123.execute-api.eu-west-1.amazonaws.com", ("execute-api", "eu-west-1")),
        ("abc123.lambda-url.eu-west-1.on.aws", ("lambda", "eu-west-1")),
        ("lambda.eu-west-1.api.aws", ("lambda", "eu-west-1")),
        ("runtime.sagemaker.eu-west-1.amazonaws.com", ("sagemaker", "eu-west-1")),
        ("search-x-abc.eu-west-1.es.amazonaws.com", ("es", "eu-west-1")),
        ("abc.us-east-1.aoss.amazonaws.com", ("aoss", "us-east-1")),
        ("iam.amazonaws.com", ("iam", "us-east-1")),
        ("sts.eu-west-1.amazonaws.com", ("sts", "eu-west-1")),
        ("localhost", None),
        ("127.0.0.1", None),
        ("api.example.com", None),
        ("s3.eu-west-1.amazonaws.com.evil.test", None),
        ("s3.evil-1.amazonaws.com", None),
        ("dynamodb.amazonaws.com", None),
        ("unknown.thing.eu-west-1.amazonaws.com", None),
        ("eu-west-1.amazonaws.com", None),
        ("minio.internal", None),
    ],
)
def test_a_host_says_its_service_and_its_region_or_nothing(host: str, found: tuple[str, str] | None) -> None:
    assert scope_of(host) == found


def test_the_names_in_hosts_are_signed_as_botocore_signs_them() -> None:
    loader, wrong = Loader(), {}
    for name in loader.list_available_services("service-2"):
        data = loader.load_service_model(name, "service-2")["metadata"]
        prefix, signed = data["endpointPrefix"], data.get("signingName", data["endpointPrefix"])
        found = scope_of(f"{prefix}.eu-west-1.amazonaws.com")
        if prefix not in UNTOLD and found is not None and found[0] != signed:
            wrong[prefix] = (found[0], signed)
    assert wrong == {}
