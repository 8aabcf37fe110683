"""Ask a simulator of IAM's policy evaluation: npm's ``@cloud-copilot/iam-simulate``, pinned in ``node/``.

It knows AWS's evaluation order (an explicit deny first; in one account an allow of the identity's or the
resource's policy; a key's policy must allow or leave it to IAM; an endpoint's policy must allow too), the
condition operators, and each action's resources and condition keys. It runs as a process of its own on the
node that the project pins; nothing of it is shipped.
"""

import fcntl
import json
import subprocess
from pathlib import Path

from infra import cdk

FOLDER = Path(__file__).resolve().parent / "node"
LOGS_KEY = "kms:EncryptionContext:aws:logs:arn"
_MARK = FOLDER / "node_modules" / ".package-lock.json"


def install():
    """Install the pinned simulator unless it is there; one process at a time."""
    with (FOLDER / ".install.lock").open("w") as busy:
        fcntl.flock(busy, fcntl.LOCK_EX)
        _install()


def _install():
    lock = FOLDER / "package-lock.json"
    if _MARK.exists() and _MARK.stat().st_mtime >= lock.stat().st_mtime:
        return
    quiet = ("--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error")
    done = subprocess.run(
        ["npm", "ci", "--prefix", str(FOLDER), *quiet],
        env=cdk.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"npm could not install the policy simulator:\n{done.stderr[-1500:].strip()}")
    _MARK.touch()


def simulation(
    principal, action, resource, account, *, identity=(), resource_policy=None, endpoint=None, context
):
    """Return a request and the policies that bear on it, in the simulator's form.

    ``identity`` is a sequence of statements; ``resource_policy`` and ``endpoint`` are documents or ``None``
    (an endpoint without a policy lets everything through).
    """
    return {
        "request": {
            "principal": principal,
            "action": action,
            "resource": {"resource": resource, "accountId": account},
            "contextVariables": context,
        },
        "identityPolicies": [{"name": "identity", "policy": _document(identity)}] if identity else [],
        "serviceControlPolicies": [],
        "resourceControlPolicies": [],
        **({"resourcePolicy": resource_policy} if resource_policy else {}),
        **({"vpcEndpointPolicies": [{"name": "endpoint", "policy": endpoint}]} if endpoint else {}),
    }


def allowed(simulations):
    """Return for each simulation whether the request is allowed.

    Raises
    ------
    ValueError
        When the simulator does not take a request: an unknown action, a wrong resource, a bad policy.
    """
    install()
    simulations = list(simulations)
    done = subprocess.run(
        ["node", str(FOLDER / "simulate.mjs")],
        env=cdk.environment(),
        # The simulator does not know this key: another whose value is an ARN stands for it.
        input=json.dumps(simulations).replace(LOGS_KEY, "aws:SourceArn"),
        capture_output=True,
        text=True,
        check=True,
    )
    results = json.loads(done.stdout)
    for asked, told in zip(simulations, results, strict=True):
        if told["result"] == "Error":
            raise ValueError(f"{asked['request']}: {json.dumps(told['why'])}")
    return [told["result"] == "Allowed" for told in results]


def _document(statements):
    return {"Version": "2012-10-17", "Statement": list(statements)}
