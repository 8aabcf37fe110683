"""Record which AWS calls code makes: each distinct call once, as a line of JSON, without names or contents.

A recorder is a handler of botocore's event ``provide-client-params``: it sees every call of a client with the
parameters that the code gave. A value that a variable of the environment holds (a bucket, a queue's URL, the
table) is written as that variable's name, an object's key as its first folder. So the same call of two
deployments is the same line, and no line holds anything of a patient.

``attach`` records one client; ``install`` records all clients of this process, and is what ``hook/`` does in
worker processes and Lambdas (see ``environment``). Only the standard library and botocore are needed.

What the suites record must be in ``tests/infra/tables/calls.json``, to which the policies are held. To make
the table anew: set ``RECORD_AWS_CALLS_TO`` to a file, run the suites, then
``python -m tests.support.aws_calls FILE``.
"""

import contextlib
import functools
import json
import os
import sys
import tempfile
import threading
from pathlib import Path

EVENT = "provide-client-params"
FILE, ROLE = "RECORD_AWS_CALLS_TO", "RECORD_AWS_CALLS_OF"
HERE = Path(__file__).resolve().parent
HOOK = HERE / "hook"
TABLE = HERE.parent / "infra" / "tables" / "calls.json"
_GIVEN = os.environ.get(FILE)
MAKING = bool(_GIVEN)
"""Whether the table is being made anew: then a call that it lacks is no fault."""

NAMED = ("Bucket", "QueueUrl", "TableName", "cluster", "service", "jobQueue", "jobDefinition", "FileShareARN")
"""Parameters whose value must be known by a variable's name."""
KEPT = ("IndexName",)
"""Parameters whose value is written as it is: they name something of the contract."""
FLAGS = ("VersionId", "IfMatch", "Tagging", "ChecksumMode")
"""Parameters of which only the presence is written: they need a right of their own."""


def names_of(environ):
    """Return by which variable each value of an environment is known.

    Of a queue's URL, an ARN or a list of them, the last part counts: an emulator may change the rest.
    """
    found = {}
    for name, value in sorted(environ.items()):
        if name.startswith("MRIRECON_"):
            for part in value.split(","):
                found.setdefault(_last(part), name)
    return found


def described(service, operation, params, names):
    """Return a call as it is recorded: a flat dictionary."""
    told = {"call": f"{service}:{operation}"}
    given = dict(params)
    if isinstance(given.get("services"), list) and len(given["services"]) == 1:
        given["service"] = given["services"][0]
    source = given.get("CopySource")
    if isinstance(source, dict):
        given["SourceBucket"], given["SourceKey"] = source["Bucket"], source["Key"]
        given["SourceVersionId"] = source.get("VersionId")
    for name in (*NAMED, "SourceBucket"):
        if isinstance(given.get(name), str):
            told[name] = names.get(_last(given[name]), "unknown")
    for name in KEPT:
        if name in given:
            told[name] = given[name]
    for name in ("Key", "SourceKey"):
        if isinstance(given.get(name), str):  # DynamoDB's keys are dictionaries
            told[name] = given[name].partition("/")[0] + "/*"
    for name in (*FLAGS, "SourceVersionId"):
        if given.get(name):
            told[name] = True
    return told


class Recorder:
    """Append each distinct call of ``role`` to ``file``; several threads and processes may do so."""

    def __init__(self, file, role, environ=None):
        self._file, self._role = Path(file), role
        self._names = names_of(os.environ if environ is None else environ)
        self._seen, self._lock = set(), threading.Lock()

    def __call__(self, params, model, **_kwargs):
        told = described(model.service_model.service_name, model.name, params, self._names)
        line = json.dumps({"role": self._role, **told}, sort_keys=True) + "\n"
        with self._lock:
            if line in self._seen:
                return
            self._seen.add(line)
            with self._file.open("a") as out:
                out.write(line)

    def attach(self, *clients):
        """Record the calls of these clients."""
        for client in clients:
            client.meta.events.register_first(EVENT, self)

    @contextlib.contextmanager
    def during(self, *clients):
        """Record the calls of these clients until the block ends."""
        self.attach(*clients)
        try:
            yield
        finally:
            for client in clients:
                client.meta.events.unregister(EVENT, self)


def install(file, role, environ=None):
    """Record the calls of every client that this process makes from now on."""
    from botocore import handlers

    # Each new session registers what this list holds.
    handlers.BUILTIN_HANDLERS.append((EVENT, Recorder(file, role, environ)))


def environment(file, role="", base=None):
    """Return the variables with which a child process of Python records its calls.

    Without a role a Lambda's process takes the name of its folder under ``lambda/``.
    """
    path = os.pathsep.join(filter(None, [str(HOOK), (base or {}).get("PYTHONPATH", "")]))
    return {"PYTHONPATH": path, FILE: str(file), **({ROLE: role} if role else {})}


def read(file):
    """Return the distinct calls of a file of lines, sorted."""
    lines = set(Path(file).read_text().splitlines()) if Path(file).is_file() else set()
    return sorted((json.loads(line) for line in lines), key=lambda call: json.dumps(call, sort_keys=True))


@functools.cache
def recorded_to():
    """Return the file of this session: the one that the environment names, or a temporary one."""
    return Path(_GIVEN or tempfile.mkstemp(prefix="aws-calls-")[1])


def with_twins(calls):
    """Return the calls, and those that differ only in what a message says.

    Both lanes of a stage are used by the same lines, whichever the priority; an archive's version is given
    where it is known, by the same lines too.
    """
    found = []
    for call in calls:
        found.append(call)
        queue = call.get("QueueUrl", "")
        for one, other in (("_STAT_", "_ROUTINE_"), ("_ROUTINE_", "_STAT_")):
            if one in queue:
                found.append({**call, "QueueUrl": queue.replace(one, other)})
        if call.get("Bucket") == "MRIRECON_RAW_BUCKET" and call.get("VersionId"):
            found.append({name: value for name, value in call.items() if name != "VersionId"})
        if call.get("SourceVersionId"):
            found.append({name: value for name, value in call.items() if name != "SourceVersionId"})
    return found


def unknown(calls):
    """Return those of ``calls`` that the table lacks."""
    known = with_twins(json.loads(TABLE.read_text()))
    return [call for call in calls if call not in known]


def main(files):
    """Write the table from files of lines."""
    calls = {json.dumps(call, sort_keys=True): call for file in files for call in read(file)}
    lines = ",\n".join(sorted(calls, key=lambda line: (calls[line]["role"], calls[line]["call"], line)))
    TABLE.write_text(f"[\n{lines}\n]\n")


def _last(value):
    return value.rstrip("/").rpartition("/")[2]


if __name__ == "__main__":
    main(sys.argv[1:])
