"""The strip list: headers that are removed from a request before it is forwarded, and the look-up in it."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from ..errors import Malformed
from ..http.field_names import CACHED, header_key
from ..http.message import Fields

CREDENTIALS: Final = frozenset(
    b"authorization proxy-authorization x-api-key api-key apikey x-goog-api-key private-token job-token "
    b"deploy-token x-auth-token x-access-token x-amz-date x-amz-security-token x-amz-content-sha256 "
    b"x-amz-signature x-amz-credential x-amz-algorithm x-amz-signedheaders x-amz-expires x-amz-region-set "
    b"x-amz-s3session-token "
    b"x-goog-iam-authorization-token ocp-apim-subscription-key x-functions-key "
    b"access-token auth-token auth-key auth-password x-authentication x-authentication-key xauthorization "
    b"auth authentication token password passkey accesskey secretkey rest-key rest-sign proxy-user proxy-pwd "
    b"x-pswd x-client-key x-gdata-key x-server-token x-firebase-token zotero-write-token app-key "
    b"x-vault-token x-consul-token x-nomad-token x-registry-auth x-registry-config x-honeycomb-team "
    b"fastly-key circle-token x-postmark-server-token x-postmark-account-token x-figma-token "
    b"x-subscription-token".split()
)
"""Headers in which a client sends a credential of its own; see also `is_credential`."""
_CREDENTIAL_PREFIXES: Final = (b"x-auth-", b"php-auth-", b"cf-access-")
_CREDENTIAL_SUFFIXES: Final = (
    b"-authorization",
    b"-api-key",
    b"-apikey",
    b"-api-token",
    b"-apitoken",
    b"-access-token",
    b"-auth-token",
    b"-auth-key",
    b"-account-key",
    b"-application-key",
    b"-consumer-key",
    b"-id-token",
    b"-password",
    b"-secret",
)
IDENTITY: Final = frozenset(
    b"forwarded x-real-ip true-client-ip client-ip x-client-ip x-cluster-client-ip x-originating-ip "
    b"x-remote-ip x-remote-addr x-remote-user remote-user remote-addr x-remote-host x-host x-host-override "
    b"x-http-host-override x-backend-host x-server-name x-proxyuser-ip wl-proxy-client-ip proxy-client-ip "
    b"front-end-https x-url-scheme cf-connecting-ipv6 fastly-client-ip fly-client-ip x-azure-clientip "
    b"x-azure-socketip client-cert client-cert-chain "
    b"clientip x-clientip client-address clientaddress rlnclientipaddr real-ip realip x-ip x-ip-trail "
    b"coming-from x-coming-from x-client-host x-sina-proxyuser x-geoip-country cf-ipcountry cf-visitor "
    b"user user-id user-email user-mail user-name x-known-username x-rest-username "
    b"auth-user auth-type x-user x-username x-webauth-user iv-user iv-groups iv-creds sm-user "
    b"x-goog-iap-jwt-assertion x-token-subject "
    b"msisdn phone-number http-phone-number x-vodafone-3gpdpcontext x-up-calling-line-id x-up-subno x-uidh "
    b"x-dcmguid x-jphone-uid x-em-uid x-huawei-userid x-orange-id on-behalf-of x-ad-manager-impersonation "
    b"host-name server-name server-port server-port-secure proxy-host proxy-port proxy-url x-proxy-url "
    b"remote-host-wp local-addr server-protocol server-software gateway-interface http-host http-url "
    b"x-server-port x-amzn-remapped-host x-compass-routing-destination x-subdomain l5d-dst-override "
    b"https x-https x-ssl ssl port protocol ssl-https ssl-offloaded https-from-lb x-nfsn-https x-scheme "
    b"x-remote-protocol".split()
)
"""Headers that tell an upstream who the client is, or which host the client meant."""
OVERRIDES: Final = frozenset(
    b"x-http-method x-http-method-override x-http-methodoverride x-method-override x-http-path-override "
    b"x-http-destinationurl x-sendfile-type "
    b"method scheme path authority uri url real-method request-method requestverb requesturi request-uri "
    b"unencoded-url x-cf-url x-teamsite-preremap path-info orig-path-info path-translated "
    b"script-name x-script-name context-path path-base base-url query-string querystring "
    b"x-now-route-matches x-matched-path x-environment-override "
    b"proxy destination".split()
)
"""Headers that set another method, path, second path (WebDAV) or proxy, which the gateway does not check."""
HOP_BY_HOP: Final = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate te trailer transfer-encoding upgrade "
    b"http2-settings".split()
)
"""Headers for this connection only (RFC 9110, 7.6.1). The adapter frames the outgoing body itself."""
_ORIGINAL: Final = (b"x-original", b"x-orig-")
"""Prefixes with two uses: front ends send the request before their rewriting, clients the name of a file."""
_OF_DATA: Final = frozenset(
    b"file filename title type content mime media format encoding language charset length size width height "
    b"duration date time timestamp created modified checksum hash digest md5 sha1 sha256 message image photo "
    b"video audio document name id".split()
)
"""Words that never name an address, an identity or a method, in any combination; but see `_WHOSE`."""
_WHOSE: Final = frozenset((b"name", b"id"))
"""The words of `_OF_DATA` that may mean a person if they are alone."""
_PREFIXES: Final = (
    b"forwarded-",
    b"x-forward",
    *_ORIGINAL,
    b"x-rewrite-",
    b"x-presign",
    b"x-ssl-client",
    b"ssl-client",
    b"x-client-cert",
    b"cert-",  # IIS: the client's certificate
    b"x-arr-",  # the same, behind IIS' proxy
    b"x-authenticated-",
    b"x-authentik-",
    b"x-goog-authenticated-",
    b"x-ms-client-principal",
    b"x-ms-token-",
    b"x-amzn-oidc-",
    b"x-amzn-mtls-",
    b"x-pomerium-",
    b"x-vouch-",
    b"tailscale-",
    b"remote-",
    b"http-sm-",  # SiteMinder
    b"https-",
    b"shib-",
    b"impersonate-",
    b"x-appengine-",
    b"cloudfront-",
    b"x-envoy-",
    b"x-accel-",
    b"x-middleware-",  # Next.js: which parts of it are skipped
    b"x-invoke-",
    b"x-myqee-system-",
)
"""Prefixes of whole families of such headers, which front ends set and upstreams trust."""
_SUFFIXES: Final = (
    b"-connecting-ip",
    b"-client-ip",
    b"-clientip",
    b"-real-ip",
    b"-user-ip",
    b"-ipaddress",
    b"-remote-addr",
    b"-forwarded-for",
    b"-forwarded-proto",
    b"-forwarded-host",
    b"-msisdn",
    b"-request-uri",
    b"-real-method",
)
_FRAMING: Final = frozenset((b"content-length", b"host", b"content-type", b"content-encoding"))
EXPECT: Final = b"expect"
_CODINGS: Final = frozenset((b"accept-encoding", b"grpc-accept-encoding"))
"""Headers that ask for encoded answers: the mask could miss the credential in one."""
_NEVER_PASSED: Final = (
    CREDENTIALS | IDENTITY | OVERRIDES | HOP_BY_HOP | _CODINGS | {b"", b"host", b"cookie2", EXPECT}
)


def nominated(fields: Fields) -> frozenset[bytes]:
    """Return the names that `Connection` declares as hop-by-hop. Raises Malformed.

    To name a header that frames or identifies the message is an attack on the next hop (RFC 9110, 7.6.1).
    """
    names = frozenset(
        header_key(token.strip())
        for name, value in fields
        if header_key(name) in (b"connection", b"proxy-connection")
        for token in value.split(b",")
    )
    if names & _FRAMING:
        raise Malformed("Connection names a header that frames the message")
    return names


def passing(name: bytes) -> bytes:
    """Return the folded name of a header that may pass; empty for one that no connection lets pass."""
    return _short_passing(name) if len(name) <= CACHED else _judged(name)


def is_credential(key: bytes) -> bool:
    """Return whether a header, by its folded name, is one in which clients send credentials."""
    return key in CREDENTIALS or key.startswith(_CREDENTIAL_PREFIXES) or key.endswith(_CREDENTIAL_SUFFIXES)


def _judged(name: bytes) -> bytes:
    key = header_key(name)
    if key in _NEVER_PASSED or is_credential(key) or key.endswith(_SUFFIXES):
        return b""
    if key.startswith(_PREFIXES) and not _tells_of_data(key):
        return b""
    # An upstream that folds names would read `Content_Length` as a second Content-Length.
    return b"" if key in _FRAMING and name.lower() != key else key


def _tells_of_data(key: bytes) -> bool:
    """Return whether a name describes original data, as `X-Original-Filename` does.

    It must not be able to mean where the request goes, or who sends it.
    """
    start, *words = key.removeprefix(b"x-").split(b"-")
    return start in (b"original", b"orig") and not _WHOSE.issuperset(words) and _OF_DATA.issuperset(words)


_short_passing = lru_cache(maxsize=4096)(_judged)
