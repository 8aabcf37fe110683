"""Ask the machine of a file gateway for its activation key, as AWS's guide describes it."""

from __future__ import annotations

import http.client
import re
from typing import Final
from urllib.parse import parse_qs, urlencode, urlsplit

_KEY: Final = re.compile(r"[A-Z0-9]{5}(-[A-Z0-9]{5}){4}")
_MOST_BYTES: Final = 4096

# of the Lambda that asks from inside the VPC
ADDRESS: Final = "MRIRECON_GATEWAY_ADDRESS"
REGION: Final = "MRIRECON_GATEWAY_REGION"
ENDPOINT: Final = "MRIRECON_GATEWAY_ENDPOINT"
"""DNS name of the VPC's endpoint of Storage Gateway; empty: the gateway uses AWS's public endpoints."""


class NotReadyError(RuntimeError):
    """The machine does not give its key yet: it boots, or it has been activated already."""


def activation_key(address: str, region: str, *, endpoint: str = "", timeout: float = 5.0) -> str:
    """Return the key that the machine at ``address`` (``host`` or ``host:port``) gives for ``region``.

    The machine answers a plain GET on port 80, either with the bare key (``no_redirect``) or with a
    redirect whose query holds it; no redirect is followed. The key is valid for half an hour. With
    ``endpoint`` (DNS name of an interface endpoint) the gateway is activated to talk to AWS through it alone.

    Raises
    ------
    NotReadyError
        When nothing answers, or what answers is no key.
    """
    asked = {"gatewayType": "FILE_S3", "activationRegion": region}
    if endpoint:
        asked["vpcEndpoint"] = endpoint
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        connection.request("GET", f"/?{urlencode(asked)}&no_redirect")
        answer = connection.getresponse()
        location = answer.getheader("Location") or ""
        body = answer.read(_MOST_BYTES).decode("ascii", "replace").strip()
    except (OSError, http.client.HTTPException) as error:
        raise NotReadyError(f"The gateway's machine does not answer yet ({type(error).__name__}).") from None
    finally:
        connection.close()
    if 300 <= answer.status < 400:
        told = parse_qs(urlsplit(location).query)
        key = (told.get("activationKey") or told.get("activationkey") or [""])[0]
    else:
        key = body if answer.status == 200 else ""
    if not _KEY.fullmatch(key):
        raise NotReadyError(f"The gateway's machine answers {answer.status}, but with no activation key yet.")
    return key
