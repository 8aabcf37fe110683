"""An emulated AWS on loopback into which the stacks are deployed by the real command line."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from emulator.runner import Runner
from emulator.stand_ins import Job, StandIns
from infra import cdk
from infra.config import load
from mrirecon.contract import environment as env

ROOT = Path(__file__).resolve().parents[1]
EMULATOR = ROOT / ".venv-emulator"
PINS = ("ministack==1.5.33", "boto3==1.43.106", "cryptography==50.0.2")
"""Its own environment: it pins a botocore of its own."""
NAME = "emulated"
LAST_LINES = 25
"""Of the command line's output, told when it fails."""


def install_emulator() -> None:
    """Make the emulator's environment unless it is there with these pins."""
    mark = EMULATOR / "pins.txt"
    text = "\n".join(PINS)
    if mark.is_file() and mark.read_text() == text:
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(EMULATOR)], check=True)
    pip = [str(EMULATOR / "bin" / "python"), "-m", "pip", "install", "--quiet", *PINS]
    subprocess.run(pip, check=True, stdout=sys.stderr)
    mark.write_text(text)


def free_port() -> int:
    """Return a port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ends_on_sigterm() -> None:
    """Let SIGTERM end this process as Ctrl-C does: whatever was started is stopped."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


class DeployError(RuntimeError):
    """The command line failed: its reason, and the last lines it printed."""

    def __init__(self, sentence: str, lines: Sequence[str]) -> None:
        super().__init__("\n".join([sentence, *(f"    {line}" for line in lines)]))


def reason(lines: Sequence[str]) -> str:
    """Return the line of the command line's output that says why it failed."""
    telling = [line.strip() for line in lines if re.search(r"❌|\berror\b|\bfailed\b", line, re.IGNORECASE)]
    return telling[-1] if telling else "it printed no reason"


class EmulatedCloud:
    """The emulator, the stand-ins, the deployed stacks, and the runner of the workers.

    ``with EmulatedCloud(folder) as cloud: cloud.deploy(); cloud.work()``. Whatever was started is
    stopped at the end, also after a failure.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] = lambda _text: None) -> None:
        self.folder = folder
        self.say = say
        self.config = load(NAME)
        self.outputs: dict[str, str] = {}
        self.runner: Runner | None = None
        self._emulator: subprocess.Popen[bytes] | None = None
        self._running: StandIns | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.runner:
            self.runner.stop()
        if self._emulator:
            _end(self._emulator)
        if self._running:
            self._running.stop()

    @property
    def _stand_ins(self) -> StandIns:
        if self._running is None:
            raise RuntimeError("the emulated cloud has not been entered")
        return self._running

    @property
    def jobs(self) -> list[Job]:
        """Batch jobs that were submitted."""
        return self._stand_ins.jobs

    @property
    def refreshes(self) -> list[dict[str, Any]]:
        """Cache refreshes that were asked for."""
        return self._stand_ins.refreshes

    @property
    def environment(self) -> dict[str, str]:
        """What boto3 and the command line need to come here."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ENDPOINT_URL_BATCH": self._stand_ins.url,
            "AWS_ENDPOINT_URL_STORAGE_GATEWAY": self._stand_ins.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": self.config.region,
            "AWS_DEFAULT_REGION": self.config.region,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service: str) -> Any:
        """Return boto3's client of a service, which talks to the emulator."""
        import boto3

        make: Any = boto3.client  # its types want a literal name
        return make(
            service,
            endpoint_url=self.url,
            region_name=self.config.region,
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106 - the emulator takes any
        )

    def deploy(self) -> None:
        """Bootstrap, synthesise and deploy all stacks with the command line; keep their outputs."""
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        base = {**_plain(os.environ), **self.environment, "HOME": str(home)}
        target = f"aws://{self.config.account}/{self.config.region}"
        outputs = self.folder / "outputs.json"
        common = ["--output", str(self.folder / "cdk.out"), "-c", f"env={NAME}", "--no-color"]
        self._cdk(["bootstrap", target, *common], base)
        self.say("the emulated account is bootstrapped; deploying the stacks")
        started = time.monotonic()
        deploy = ["deploy", "--all", "--require-approval", "never", "--outputs-file", str(outputs)]
        self._cdk([*deploy, *common], base)
        told = json.loads(outputs.read_text())
        self.outputs = {name: value for stack in told.values() for name, value in stack.items()}
        stacks = self._complete(len(told))
        self.say(f"{len(stacks)} stacks deployed in {time.monotonic() - started:.0f} s: {', '.join(stacks)}")

    def _cdk(self, arguments: Sequence[str], base: Mapping[str, str]) -> None:
        """Run the command line with its output in a file; raise with the end of it when it fails."""
        path = self.folder / f"cdk-{arguments[0]}.log"
        with path.open("wb") as log:
            code = cdk.run(arguments, base=base, log=log)
        if code:
            lines = path.read_text(errors="replace").splitlines()
            raise DeployError(f"cdk {arguments[0]} ended with {code}: {reason(lines)}", lines[-LAST_LINES:])

    def work(self) -> Runner:
        """Start the runner: from here on, workers come and go as the deployed scaler decides."""
        ecs = self.client("ecs")
        cluster, service = self.outputs["Cluster"], self.outputs["Service"]
        deployed = ecs.describe_services(cluster=cluster, services=[service])["services"][0]
        task = ecs.describe_task_definition(taskDefinition=deployed["taskDefinition"])["taskDefinition"]
        container = {item["name"]: item["value"] for item in task["containerDefinitions"][0]["environment"]}
        times = self.config.recon.times
        recon = {
            **container,
            env.IDLE_SECONDS: str(times.idle_seconds),
            env.LIFETIME_SECONDS: str(times.lifetime_seconds),
            env.SCAN_SECONDS: str(times.scan_seconds),
        }

        def wanted() -> int:
            count: int = ecs.describe_services(cluster=cluster, services=[service])["services"][0][
                "desiredCount"
            ]
            return count

        self.runner = Runner(
            folder=self.folder / "workers",
            wanted=wanted,
            jobs=lambda: list(self.jobs),
            decompress_environment={**container, **self.environment},
            recon_environment={**recon, **self.environment},
        ).start()
        return self.runner

    def _start(self) -> None:
        install_emulator()
        cdk.install()
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._running = StandIns(after_refresh=self._tell_refreshed)
        log = (self.folder / "emulator.log").open("wb")
        # The Lambdas run inside the emulator and inherit where the stand-ins are.
        self._emulator = subprocess.Popen(
            [str(EMULATOR / "bin" / "ministack")],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
            start_new_session=True,
            env={
                **_plain(os.environ),
                **self.environment,
                "GATEWAY_PORT": str(port),
                "BIND_HOST": "127.0.0.1",
                "MINISTACK_ACCOUNT_ID": self.config.account,
                "HOME": str(self.folder),
            },
        )
        deadline = time.monotonic() + 60
        while True:
            if self._emulator.poll() is not None:
                raise RuntimeError(f"the emulator ended with {self._emulator.returncode}: see {log.name}")
            try:
                urllib.request.urlopen(f"{self.url}/_ministack/health", timeout=2).close()  # noqa: S310 - http
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise RuntimeError(
                        f"the emulator did not answer within a minute: see {log.name}"
                    ) from None
                time.sleep(0.3)

    def _complete(self, stacks: int) -> list[str]:
        """Return the names of the stacks, oldest first; raise unless all are complete."""
        found = self.client("cloudformation").describe_stacks()["Stacks"]
        ours = [stack for stack in found if stack["StackName"].startswith(self.config.prefix)]
        wrong = [stack["StackName"] for stack in ours if stack["StackStatus"] != "CREATE_COMPLETE"]
        if wrong or len(ours) < stacks:
            raise RuntimeError(f"{len(ours)} stacks, not complete: {wrong}")
        ours.sort(key=lambda stack: stack["CreationTime"])
        return [stack["StackName"].removeprefix(f"{self.config.prefix}-") for stack in ours]

    def _tell_refreshed(self, share: str, notification: str) -> None:
        """Say what a gateway says when a refresh has ended."""
        self.client("events").put_events(
            Entries=[
                {
                    "Source": "aws.storagegateway",
                    "DetailType": "Storage Gateway Refresh Cache Event",
                    "Resources": [share],
                    "Detail": json.dumps({"event-type": "refresh-complete", "notification-id": notification}),
                }
            ]
        )


def _plain(values: Mapping[str, str]) -> dict[str, str]:
    """Leave out what points at a real account."""
    return {name: value for name, value in values.items() if not name.startswith("AWS_")}


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)
