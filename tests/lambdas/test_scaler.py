"""The scaler: what it reads, decides and sets, and what it leaves alone when a call fails."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.hooks import HierarchicalEmitter
from botocore.stub import Stubber

from mrirecon.aws.table import Table
from mrirecon.contract import environment as names
from mrirecon.contract import metrics
from mrirecon.contract.environment import SettingError
from mrirecon.contract.scaling import Policy
from tests.lambdas.lambda_kit import emitted, fail, load, recorder, session, values, watch

DECOMPRESS = Policy(
    max_workers=8, target_seconds=120, scan_seconds=30, boot_seconds=60, scale_in_cooldown_seconds=300
)
RECON = Policy(max_workers=5, target_seconds=600, scan_seconds=90, boot_seconds=300, coming_weight=1.0)
NOW = 1_800_000_000.0


class Batch:
    """A Batch of as many jobs as are put into it; pages of two, so that paging is walked."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, str]] = []
        self.submitted: list[dict[str, Any]] = []
        self.refuse_after: int | None = None
        self.meta = SimpleNamespace(events=HierarchicalEmitter())
        self._service = session().client("batch").meta.service_model

    def _emit(self, operation: str, told: dict[str, Any]) -> None:
        model = self._service.operation_model(operation)
        self.meta.events.emit(f"provide-client-params.batch.{operation}", params=told, model=model)
        self.meta.events.emit(f"before-call.batch.{operation}")

    def list_jobs(self, **told: Any) -> dict[str, Any]:
        self._emit("ListJobs", told)
        assert set(told) <= {"jobQueue", "jobStatus", "nextToken"}
        found = [name for name, status in self.jobs if status == told["jobStatus"]]
        begin = int(told.get("nextToken", 0))
        more = {"nextToken": str(begin + 2)} if begin + 2 < len(found) else {}
        return {"jobSummaryList": [{"jobName": name} for name in found[begin : begin + 2]], **more}

    def submit_job(self, **told: Any) -> dict[str, Any]:
        self._emit("SubmitJob", told)
        self.submitted.append(told)
        self.jobs.append((told["jobName"], "SUBMITTED"))
        return {"jobId": str(len(self.jobs))}


@dataclass
class Stand:
    """Both stages' queues, a service, jobs, and the function with its adapters around them."""

    module: Any
    settings: Any
    adapters: Any
    clients: dict[str, Any]
    batch: Batch
    now: float = NOW
    said: Any = None
    lines: list[dict[str, Any]] = field(default_factory=list)

    def send(self, name: str, n: int) -> None:
        for _ in range(n):
            self.clients["sqs"].send_message(QueueUrl=os.environ[name], MessageBody="{}")

    def take(self, name: str, n: int) -> None:
        for _ in range(n):
            told = self.clients["sqs"].receive_message(QueueUrl=os.environ[name], VisibilityTimeout=600)
            assert told["Messages"]

    def desired(self, count: int | None = None) -> int:
        ecs = self.clients["ecs"]
        if count is not None:
            ecs.update_service(cluster="cluster", service="decompress", desiredCount=count)
        told = ecs.describe_services(cluster="cluster", services=["decompress"])
        return int(told["services"][0]["desiredCount"])

    def tick(self, seconds: float = 60.0) -> dict[str, Any]:
        self.now += seconds
        with recorder("scaler").during(*self.clients.values()):
            answer: dict[str, Any] = self.module.run(self.settings, self.adapters, self.now)
        self.lines = emitted(self.said.readouterr().out)
        return answer

    def metrics(self, stage: str) -> dict[str, float]:
        (line,) = [line for line in self.lines if line[metrics.STAGE] == stage]
        assert line["_aws"]["CloudWatchMetrics"][0]["Dimensions"] == [[metrics.STAGE]]
        assert line["_aws"]["CloudWatchMetrics"][0]["Namespace"] == metrics.NAMESPACE
        return values(line)


@pytest.fixture
def stand(ledger: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Stand:
    module, adapters = load("scaler"), load("scaler", "scaler_aws")
    clients = {name: session().client(name) for name in ("sqs", "ecs", "cloudwatch")}
    for name in (
        names.DECOMPRESS_STAT_QUEUE_URL,
        names.DECOMPRESS_ROUTINE_QUEUE_URL,
        names.DECOMPRESS_DEAD_LETTER_QUEUE_URL,
        names.RECON_STAT_QUEUE_URL,
        names.RECON_ROUTINE_QUEUE_URL,
        names.RECON_DEAD_LETTER_QUEUE_URL,
    ):
        monkeypatch.setenv(name, clients["sqs"].create_queue(QueueName=name)["QueueUrl"])
    for name, value in {
        names.ECS_CLUSTER: "cluster",
        names.ECS_SERVICE: "decompress",
        names.BATCH_JOB_QUEUE: "gpu",
        names.BATCH_JOB_DEFINITION: "recon:3",
        names.LEDGER_TABLE: "ledger",
        names.DECOMPRESS_SCALING: DECOMPRESS.to_json(),
        names.RECON_SCALING: RECON.to_json(),
    }.items():
        monkeypatch.setenv(name, value)
    ecs = clients["ecs"]
    ecs.create_cluster(clusterName="cluster")
    ecs.register_task_definition(family="d", containerDefinitions=[{"name": "d", "image": "d", "memory": 1}])
    ecs.create_service(cluster="cluster", serviceName="decompress", taskDefinition="d", desiredCount=0)
    batch = Batch()
    clients |= {"dynamodb": ledger, "batch": batch}
    settings = load("scaler", "scaler_settings").Settings.from_environ(os.environ)
    made = module.Adapters(
        adapters.Queues(clients["sqs"]),
        adapters.ScalerState(Table(ledger, "ledger")),
        adapters.CloudWatchReader(clients["cloudwatch"]),
        adapters.FargateService(ecs, "cluster", "decompress"),
        adapters.BatchWorkers(batch, "gpu", "recon:3"),
    )
    return Stand(module, settings, made, clients, batch, said=capsys)


def test_nothing_waits_nothing_is_asked_for(stand: Stand) -> None:
    answer = stand.tick()
    assert (answer["decompress"]["wanted"], answer["recon"]["wanted"]) == (0, 0)
    assert stand.desired() == 0
    assert stand.batch.submitted == []
    assert stand.metrics("recon") == {
        metrics.VISIBLE: 0,
        metrics.IN_FLIGHT: 0,
        metrics.DELAYED: 0,
        metrics.OLDEST_SECONDS: 0,
        metrics.WORKERS_RUNNING: 0,
        metrics.WORKERS_STARTING: 0,
        metrics.WORKERS_WANTED: 0,
        metrics.DEAD_LETTERS: 0,
        metrics.SCALER_ERRORS: 0,
    }


def test_both_lanes_count_and_the_service_is_set(stand: Stand) -> None:
    stand.send(names.DECOMPRESS_STAT_QUEUE_URL, 3)
    stand.send(names.DECOMPRESS_ROUTINE_QUEUE_URL, 5)
    stand.take(names.DECOMPRESS_ROUTINE_QUEUE_URL, 2)
    answer = stand.tick()
    # 8 scans of 30 s, workers that have 60 of the 120 s left when they have booted
    assert answer["decompress"]["wanted"] == 4
    assert stand.desired() == 4
    seen = stand.metrics("decompress")
    assert (seen[metrics.VISIBLE], seen[metrics.IN_FLIGHT], seen[metrics.WORKERS_WANTED]) == (6, 2, 4)
    assert "6 waiting" in answer["decompress"]["reason"]


def test_gpu_workers_are_asked_for_while_their_scans_are_still_being_decompressed(stand: Stand) -> None:
    stand.send(names.DECOMPRESS_ROUTINE_QUEUE_URL, 4)
    answer = stand.tick()
    assert answer["recon"]["wanted"] == 2  # 4 x 90 s of work, 300 s of each new worker
    assert [job["jobQueue"] for job in stand.batch.submitted] == ["gpu", "gpu"]
    assert {job["jobDefinition"] for job in stand.batch.submitted} == {"recon:3"}


def test_only_missing_jobs_are_submitted_those_still_starting_counted(stand: Stand) -> None:
    stand.send(names.RECON_ROUTINE_QUEUE_URL, 40)
    worker = load("scaler", "scaler_aws").JOB_NAME
    stand.batch.jobs = [
        (worker, "RUNNABLE"),
        (worker, "STARTING"),
        (worker, "RUNNING"),
        ("training", "RUNNING"),
    ]
    answer = stand.tick()
    assert answer["recon"]["wanted"] == 5  # the clamp
    assert len(stand.batch.submitted) == 2
    seen = stand.metrics("recon")
    assert (seen[metrics.WORKERS_RUNNING], seen[metrics.WORKERS_STARTING]) == (1, 2)
    stand.tick()
    stand.tick()
    assert len(stand.batch.submitted) == 2  # asked for once


def test_jobs_are_counted_over_all_pages(stand: Stand) -> None:
    stand.send(names.RECON_ROUTINE_QUEUE_URL, 40)
    stand.batch.jobs = [(load("scaler", "scaler_aws").JOB_NAME, "RUNNING")] * 5
    stand.tick()
    assert stand.metrics("recon")[metrics.WORKERS_RUNNING] == 5
    assert stand.batch.submitted == []


def test_batch_workers_are_never_called_back(stand: Stand) -> None:
    stand.batch.jobs = [(load("scaler", "scaler_aws").JOB_NAME, "RUNNING")] * 3
    answer = stand.tick()
    assert answer["recon"]["wanted"] == 0
    assert "error" not in answer["recon"]
    assert len(stand.batch.jobs) == 3


def test_scale_in_waits_for_the_cool_down_over_separate_runs(stand: Stand) -> None:
    stand.send(names.DECOMPRESS_ROUTINE_QUEUE_URL, 8)
    stand.tick()
    assert stand.desired() == 4
    stand.clients["sqs"].purge_queue(QueueUrl=os.environ[names.DECOMPRESS_ROUTINE_QUEUE_URL])
    for _ in range(4):
        stand.tick()
        assert stand.desired() == 4
    stand.tick()
    assert stand.desired() == 0


def test_a_beat_that_comes_twice_acts_once(stand: Stand) -> None:
    stand.send(names.RECON_ROUTINE_QUEUE_URL, 4)
    stand.tick()
    before = len(stand.batch.submitted)
    stand.batch.jobs.clear()  # as if Batch did not show the new jobs yet
    answer = stand.tick(seconds=2)
    assert answer["recon"] == {"skipped": "looked at a moment ago"}
    assert len(stand.batch.submitted) == before > 0
    assert "error" not in stand.tick()["recon"]


@pytest.mark.parametrize(
    ("service", "operation"),
    [
        ("sqs", "GetQueueAttributes"),
        ("dynamodb", "UpdateItem"),
        ("ecs", "DescribeServices"),
        ("ecs", "UpdateService"),
    ],
)
def test_a_failed_call_leaves_the_service_as_it_is_and_is_seen(
    stand: Stand, service: str, operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    stand.send(names.DECOMPRESS_ROUTINE_QUEUE_URL, 8)
    client = stand.clients[service]
    updates = watch(stand.clients["ecs"], "UpdateService")
    fail(client, operation)
    answer = stand.tick()
    assert answer["decompress"] == {"error": "ThrottlingException"}
    assert stand.metrics("decompress")[metrics.SCALER_ERRORS] == 1
    assert updates == [] or operation == "UpdateService"


@pytest.mark.parametrize("operation", ["ListJobs", "SubmitJob"])
def test_a_failed_batch_call_leaves_the_other_stage_served(stand: Stand, operation: str) -> None:
    stand.send(names.DECOMPRESS_ROUTINE_QUEUE_URL, 8)
    stand.send(names.RECON_ROUTINE_QUEUE_URL, 8)
    fail(stand.batch, operation)
    answer = stand.tick()
    assert answer["recon"] == {"error": "ThrottlingException"}
    assert stand.batch.submitted == []
    assert stand.metrics("recon")[metrics.SCALER_ERRORS] == 1
    assert stand.desired() == answer["decompress"]["wanted"] == 4


def test_a_failed_decompress_stage_leaves_the_reconstruction_served(stand: Stand) -> None:
    stand.send(names.RECON_ROUTINE_QUEUE_URL, 6)
    fail(stand.clients["ecs"], "DescribeServices", "ServerException")
    answer = stand.tick()
    assert answer["decompress"] == {"error": "ServerException"}
    assert len(stand.batch.submitted) == answer["recon"]["wanted"] == 2


def test_submission_throttled_halfway_goes_on_the_next_minute(stand: Stand) -> None:
    stand.send(names.RECON_ROUTINE_QUEUE_URL, 40)
    calls: list[int] = []

    def refuse_second(**_: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            from botocore.exceptions import ClientError

            raise ClientError({"Error": {"Code": "TooManyRequestsException", "Message": ""}}, "SubmitJob")

    stand.batch.meta.events.register("before-call.batch.SubmitJob", refuse_second)
    assert stand.tick()["recon"] == {"error": "TooManyRequestsException"}
    assert len(stand.batch.submitted) == 2
    stand.tick()
    assert len(stand.batch.submitted) == 5


@pytest.mark.parametrize("gone", ["cloudwatch", "dead letters"])
def test_what_is_only_good_to_know_may_be_missing(stand: Stand, gone: str) -> None:
    stand.send(names.DECOMPRESS_ROUTINE_QUEUE_URL, 8)
    if gone == "cloudwatch":
        fail(stand.clients["cloudwatch"], "GetMetricData")
    else:
        stand.clients["sqs"].delete_queue(QueueUrl=os.environ[names.DECOMPRESS_DEAD_LETTER_QUEUE_URL])
    answer = stand.tick()
    assert answer["decompress"]["wanted"] == stand.desired() == 4
    assert stand.metrics("decompress")[metrics.SCALER_ERRORS] == 1


def test_the_measured_time_of_a_scan_is_used_and_remembered(stand: Stand) -> None:
    stand.now = datetime.now(UTC).timestamp() - 60
    stand.send(names.DECOMPRESS_ROUTINE_QUEUE_URL, 8)
    stand.clients["cloudwatch"].put_metric_data(
        Namespace=metrics.NAMESPACE,
        MetricData=[
            {
                "MetricName": metrics.STAGE_SECONDS,
                "Dimensions": [{"Name": metrics.STAGE, "Value": "decompress"}],
                "Value": 15.0,
                "Timestamp": datetime.fromtimestamp(stand.now - 600, UTC),
            }
            for _ in range(12)
        ],
    )
    assert stand.tick()["decompress"]["wanted"] == 2  # half the time, half the workers
    fail(stand.clients["cloudwatch"], "GetMetricData")
    assert "15 s a scan" in stand.tick()["decompress"]["reason"]


def test_batch_is_called_as_its_api_wants_it() -> None:
    client = session().client("batch")
    workers = load("scaler", "scaler_aws").BatchWorkers(client, "gpu", "recon:3")
    name = load("scaler", "scaler_aws").JOB_NAME
    with Stubber(client) as stub:
        for status in ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING"):
            summary = {"jobId": "1", "jobName": name}
            asked = {"jobQueue": "gpu", "jobStatus": status}
            stub.add_response("list_jobs", {"jobSummaryList": [summary], "nextToken": "t"}, asked)
            stub.add_response("list_jobs", {"jobSummaryList": [summary]}, {**asked, "nextToken": "t"})
        stub.add_response(
            "submit_job",
            {"jobName": name, "jobId": "2"},
            {"jobName": name, "jobQueue": "gpu", "jobDefinition": "recon:3"},
        )
        crew = workers.look()
        assert (crew.running, crew.starting) == (2, 8)
        assert workers.add(crew, 11) == 1
        stub.assert_no_pending_responses()


def test_a_service_that_is_not_there_is_an_error_not_a_zero(stand: Stand) -> None:
    stand.clients["ecs"].delete_service(cluster="cluster", service="decompress", force=True)
    stand.send(names.DECOMPRESS_ROUTINE_QUEUE_URL, 8)
    assert "error" in stand.tick()["decompress"]


def test_no_text_of_a_service_is_logged(stand: Stand, capsys: pytest.CaptureFixture[str]) -> None:
    fail(stand.clients["ecs"], "DescribeServices")
    stand.module.run(stand.settings, stand.adapters, NOW)
    said = capsys.readouterr()
    assert "ThrottlingException" in said.out + said.err
    assert "Jane Doe" not in said.out + said.err


def test_the_handler_takes_the_beat(stand: Stand, context: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stand.module.settings.cache_clear()
    stand.module.adapters.cache_clear()
    stand.send(names.DECOMPRESS_ROUTINE_QUEUE_URL, 8)
    answer = stand.module.handler({"source": "aws.events"}, context)
    assert answer["decompress"]["wanted"] == stand.desired() == 4
    stand.module.settings.cache_clear()
    stand.module.adapters.cache_clear()


@pytest.mark.parametrize("name", [names.ECS_CLUSTER, names.RECON_SCALING, names.LEDGER_TABLE])
def test_a_missing_variable_is_named(stand: Stand, name: str) -> None:
    told = {key: value for key, value in os.environ.items() if key != name}
    with pytest.raises(SettingError, match=name):
        type(stand.settings).from_environ(told)


def test_a_bad_policy_is_named(stand: Stand) -> None:
    told = {**os.environ, names.RECON_SCALING: '{"max_workers": 0}'}
    with pytest.raises(SettingError, match=f"{names.RECON_SCALING}.*max_workers"):
        type(stand.settings).from_environ(told)
