"""The stacks, and who is given what: the only place that knows more than one construct."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aws_cdk as cdk
from aws_cdk import aws_logs as logs
from constructs import Construct

from .acknowledge import acknowledge, controls
from .alarms import Alarms, AlarmTopic
from .buckets import Buckets
from .budget import MonthlyBudget
from .config import Environment
from .config_parts import Appliance
from .control import REFRESH_TIMEOUT, Control, Workers, operators_policy
from .dashboard import PipelineDashboard
from .decompress import DecompressService
from .development import Repositories, Studio
from .file_share import Shares
from .gateway import GatewayAppliance
from .keys import DataKey, LogKey, MessageKey
from .ledger import Ledger
from .lustre import LustreCache
from .network import Network
from .queries import SavedQueries
from .queues import RefreshQueue, StageQueues
from .recon import ReconBatch
from .resources import DataResources
from .retention import removal
from .routing import Publication, Routing
from .signals import Gateway

CDK_JSON = Path(__file__).resolve().parent.parent / "cdk.json"


class _Stack(cdk.Stack):
    """A stack of one environment, protected where its data are kept."""

    def __init__(self, scope: Construct, part: str, *, env: Environment, what: str) -> None:
        super().__init__(
            scope,
            f"{env.prefix}-{part}",
            description=f"mrirecon {env.name}: {what}",
            env=cdk.Environment(account=env.account, region=env.region),
            termination_protection=env.keep_data,
            analytics_reporting=False,
            tags=dict(env.tags),
        )

    def tell(self, name: str, value: str, description: str) -> None:
        """Add an output that a person or a test looks for."""
        cdk.CfnOutput(self, name, value=value, description=description)


class FoundationStack(_Stack):
    """Network and the key of the logs."""

    def __init__(self, scope: Construct, *, env: Environment) -> None:
        super().__init__(scope, "Foundation", env=env, what="network and the key of the logs")
        self.log_key = LogKey(self, "LogKey", removal=removal(env)).key
        self.network = Network(self, "Network", env=env, log_key=self.log_key)


class DataStack(_Stack):
    """Buckets, ledger, queues, and who announces what to whom."""

    def __init__(self, scope: Construct, *, env: Environment) -> None:
        super().__init__(scope, "Data", env=env, what="buckets, ledger, queues and the events between them")
        data_key = DataKey(self, "DataKey", removal=removal(env))
        data_key.allow_machines()
        if env.lustre:
            data_key.allow_lustre()
        message_key = MessageKey(self, "MessageKey", removal=removal(env)).key
        buckets = Buckets(self, "Buckets", env=env, key=data_key.key)
        ledger = Ledger(self, "Ledger", env=env, key=data_key.key)
        decompress = StageQueues(self, "DecompressQueues", key=message_key, times=env.decompress.times)
        recon = StageQueues(self, "ReconQueues", key=message_key, times=env.recon.times)
        refresh = RefreshQueue(
            self,
            "RefreshQueue",
            key=message_key,
            visibility=cdk.Duration.seconds(6 * REFRESH_TIMEOUT.to_seconds()),
        )
        Routing(
            self,
            "Routing",
            raw=buckets.raw,
            queues=decompress,
            sites=env.sites,
            gateway=env.file_share is not None,
        )
        Publication(
            self, "Publication", images=buckets.images, queue=refresh.queue, dead=refresh.dead_letters
        )
        self.resources = DataResources(
            raw=buckets.raw,
            kspace=buckets.kspace,
            images=buckets.images,
            quarantine=buckets.quarantine,
            models=buckets.models,
            ledger=ledger.table,
            decompress=decompress,
            recon=recon,
            refresh=refresh.queue,
            refresh_dead_letters=refresh.dead_letters,
            data_key=data_key.key,
            message_key=message_key,
        )
        self.tell("RawBucket", buckets.raw.bucket_name, "archives go to incoming/<site>/<stat|routine>/")
        self.tell("KspaceBucket", buckets.kspace.bucket_name, "k-space between the stages")
        self.tell("ImagesBucket", buckets.images.bucket_name, "images and records")
        self.tell("QuarantineBucket", buckets.quarantine.bucket_name, "rejected archives and why")
        self.tell("LedgerTable", ledger.table.table_name, "where every scan is")
        for stage, queues in (("Decompress", decompress), ("Recon", recon)):
            self.tell(f"{stage}StatQueue", queues.stat.queue_url, "urgent scans")
            self.tell(f"{stage}RoutineQueue", queues.routine.queue_url, "all other scans")
            self.tell(f"{stage}DeadLetters", queues.dead_letters.queue_url, "scans whose retries are spent")
        self.tell("RefreshQueueUrl", refresh.queue.queue_url, "published results the share must see")


class LustreStack(_Stack):
    """The k-space cache."""

    def __init__(self, scope: Construct, *, env: Environment, network: Network, data: DataResources) -> None:
        super().__init__(scope, "Lustre", env=env, what="FSx for Lustre in front of the k-space bucket")
        if env.lustre is None:
            raise ValueError("this environment has no lustre")
        self.cache = LustreCache(
            self, "Cache", lustre=env.lustre, network=network, kspace=data.kspace, key=data.data_key
        )


class GatewayStack(_Stack):
    """A gateway machine in the VPC. It depends on nothing that a release changes."""

    def __init__(
        self, scope: Construct, *, env: Environment, network: Network, data: DataResources, log_key: Any
    ) -> None:
        super().__init__(scope, "Gateway", env=env, what="machine of the file gateway")
        share = env.file_share
        if share is None or not isinstance(share.gateway, Appliance):
            raise ValueError("this environment has no appliance")
        self.appliance = GatewayAppliance(
            self,
            "Appliance",
            env=env,
            share=share,
            appliance=share.gateway,
            network=network,
            key=data.data_key,
            log_key=log_key,
        )
        address = self.appliance.instance.instance_private_ip
        self.tell("GatewayAddress", address, "where the shares are mounted")
        function = self.appliance.key_function.function.function_name
        self.tell("GatewayActivation", function, "for mrirecon gateway activate --function")


class FileShareStack(_Stack):
    """The shares of a gateway that has been activated, wherever it stands."""

    def __init__(
        self, scope: Construct, *, env: Environment, gateway_arn: str, data: DataResources, log_key: Any
    ) -> None:
        super().__init__(scope, "FileShare", env=env, what="shares of the file gateway")
        share = env.file_share
        if share is None:
            raise ValueError("this environment has no file_share")
        self.shares = Shares(
            self, "Shares", env=env, share=share, gateway_arn=gateway_arn, data=data, log_key=log_key
        )
        for number, arn in enumerate(self.shares.image_share_arns):
            self.tell(f"ImagesShare{number}", arn, "a share of the images")


class DecompressStack(_Stack):
    """The first stage."""

    def __init__(
        self, scope: Construct, *, env: Environment, network: Network, data: DataResources, log_key: Any
    ) -> None:
        super().__init__(scope, "Decompress", env=env, what="archives to k-space, on Fargate")
        self.stage = DecompressService(self, "Stage", env=env, network=network, data=data, log_key=log_key)
        self.tell("Cluster", self.stage.cluster.cluster_name, "cluster of the decompress service")
        self.tell("Service", self.stage.service.service_name, "service whose size the scaler sets")


class ReconStack(_Stack):
    """The second stage."""

    def __init__(
        self,
        scope: Construct,
        *,
        env: Environment,
        network: Network,
        data: DataResources,
        log_key: Any,
        lustre: LustreCache | None,
    ) -> None:
        super().__init__(scope, "Recon", env=env, what="k-space to images, on Batch with GPUs")
        self.stage = ReconBatch(
            self, "Stage", env=env, network=network, data=data, log_key=log_key, lustre=lustre
        )
        self.tell("JobQueue", self.stage.queue.job_queue_name, "queue of reconstruction workers")
        self.tell("JobDefinition", self.stage.definition_name, "definition of such a worker")


class ControlStack(_Stack):
    """The Lambdas."""

    def __init__(
        self,
        scope: Construct,
        *,
        env: Environment,
        network: Network,
        data: DataResources,
        log_key: Any,
        workers: Workers,
        image_shares: list[str],
    ) -> None:
        super().__init__(scope, "Control", env=env, what="scaler, share refresh, redrive")
        self.control = Control(
            self,
            "Control",
            env=env,
            network=network,
            data=data,
            log_key=log_key,
            workers=workers,
            image_shares=image_shares,
        )
        operators_policy(self, "Operators", redrive=self.control.redrive.function, data=data)
        for name, function in self.control.functions.items():
            self.tell(f"{name}Function", function.function_name, f"the {name.lower()} Lambda")


class DevelopmentStack(_Stack):
    """Where models are made."""

    def __init__(
        self,
        scope: Construct,
        *,
        env: Environment,
        network: Network,
        data: DataResources,
        lustre: LustreCache | None,
    ) -> None:
        super().__init__(scope, "Development", env=env, what="repositories and model development")
        repositories = Repositories(self, "Repositories", env=env, key=data.data_key)
        Studio(self, "Studio", env=env, network=network, data=data, lustre=lustre, repositories=repositories)


class OperationsStack(_Stack):
    """What is watched."""

    def __init__(
        self,
        scope: Construct,
        *,
        env: Environment,
        data: DataResources,
        control: Control,
        log_groups: list[logs.ILogGroup],
        gateway: Gateway | None,
        lustre: LustreCache | None,
    ) -> None:
        super().__init__(scope, "Operations", env=env, what="dashboard, alarms, budget, saved queries")
        topic = AlarmTopic(self, "Alarms", key=data.message_key, emails=env.operations.alarm_emails).topic
        alarms = Alarms(
            self,
            "Watch",
            topic=topic,
            env=env,
            data=data,
            functions=control.functions,
            function_dead_letters=control.dead_letters,
        )
        if gateway:
            alarms.watch_gateway(gateway)
        if lustre and env.lustre:
            alarms.watch_lustre(lustre.file_system.file_system_id, env.lustre.capacity_gib)
        PipelineDashboard(
            self,
            "Dashboard",
            title=env.prefix,
            data=data,
            alarms=alarms.all,
            gateways=[gateway] if gateway else [],
            lustre_id=lustre.file_system.file_system_id if lustre else None,
        )
        if not env.lacks("log_queries"):
            SavedQueries(self, "Queries", folder=env.prefix, groups=[*log_groups, *control.log_groups])
        if env.operations.monthly_budget_usd and not env.lacks("budget"):
            MonthlyBudget(self, "Budget", env=env, topic=topic)
        self.tell("AlarmTopic", topic.topic_arn, "where alarms go")
        self.tell("DashboardName", env.prefix, "the dashboard in CloudWatch")


def compose(scope: Construct, env: Environment) -> list[cdk.Stack]:
    """Compose the stacks of ``env`` and return them, the first to deploy first."""
    foundation = FoundationStack(scope, env=env)
    network, log_key = foundation.network, foundation.log_key
    data_stack = DataStack(scope, env=env)
    data = data_stack.resources
    stacks: list[cdk.Stack] = [foundation, data_stack]

    lustre: LustreCache | None = None
    if env.lustre and not env.lacks("lustre"):
        lustre_stack = LustreStack(scope, env=env, network=network, data=data)
        lustre = lustre_stack.cache
        stacks.append(lustre_stack)

    gateway, image_shares = None, _emulated_shares(env)
    if env.file_share and not env.lacks("storage_gateway"):
        if isinstance(env.file_share.gateway, Appliance):
            stacks.append(GatewayStack(scope, env=env, network=network, data=data, log_key=log_key))
        arn = env.file_share.gateway.gateway_arn
        if arn is not None:
            share_stack = FileShareStack(scope, env=env, gateway_arn=arn, data=data, log_key=log_key)
            stacks.append(share_stack)
            image_shares = share_stack.shares.image_share_arns
            gateway = Gateway(arn.rsplit("/", 1)[-1], env.gateway_name)

    decompress = DecompressStack(scope, env=env, network=network, data=data, log_key=log_key)
    stacks.append(decompress)
    log_groups: list[logs.ILogGroup] = [decompress.stage.log_group]
    recon: ReconStack | None = None
    if not env.lacks("batch"):
        recon = ReconStack(scope, env=env, network=network, data=data, log_key=log_key, lustre=lustre)
        log_groups.append(recon.stage.log_group)
        stacks.append(recon)

    control = ControlStack(
        scope,
        env=env,
        network=network,
        data=data,
        log_key=log_key,
        workers=_workers(env, decompress.stage, recon.stage if recon else None),
        image_shares=image_shares,
    )
    stacks.append(control)
    if env.development:
        stacks.append(DevelopmentStack(scope, env=env, network=network, data=data, lustre=lustre))
    stacks.append(
        OperationsStack(
            scope,
            env=env,
            data=data,
            control=control.control,
            log_groups=log_groups,
            gateway=gateway,
            lustre=lustre,
        )
    )
    for stack in stacks:
        for key, value in sorted(env.tags.items()):
            cdk.Tags.of(stack).add(key, value)
    return stacks


def _emulated_shares(env: Environment) -> list[str]:
    return list(env.emulator.image_share_arns) if env.emulator else []


def _workers(env: Environment, decompress: DecompressService, recon: ReconBatch | None) -> Workers:
    service = {
        "cluster_name": decompress.cluster.cluster_name,
        "service_name": decompress.service.service_name,
        "service_arn": decompress.service.service_arn,
    }
    if recon is not None:
        # By name, not by reference: each release makes a new revision, and an export that changes while
        # another stack imports it stops the deployment. Batch takes the newest active revision of a name.
        arn = f"arn:aws:batch:{env.region}:{env.account}:job-definition/{recon.definition_name}"
        return Workers(
            **service,
            job_queue=recon.queue.job_queue_name,
            job_queue_arn=recon.queue.job_queue_arn,
            job_definition=recon.definition_name,
            job_definition_arns=(arn, f"{arn}:*"),
        )
    if env.emulator is None:
        raise ValueError("only an emulator may lack Batch")
    batch = f"arn:aws:batch:{env.region}:{env.account}"
    queue, definition = env.emulator.batch_job_queue, env.emulator.batch_job_definition
    return Workers(
        **service,
        job_queue=queue,
        job_queue_arn=f"{batch}:job-queue/{queue}",
        job_definition=definition,
        job_definition_arns=(f"{batch}:job-definition/{definition}",),
    )


def build_app(env: Environment, *, outdir: str | None = None) -> cdk.App:
    """Return the app of ``env``, ready to be synthesised. It asks nobody anything."""
    # The feature flags too, so that a test sees the templates that the command line makes.
    flags = json.loads(CDK_JSON.read_text(encoding="utf-8"))["context"]
    app = cdk.App(outdir=outdir, analytics_reporting=False, context=flags)
    # What CDK would ask the account for.
    app.node.set_context(
        f"availability-zones:account={env.account}:region={env.region}", list(env.availability_zones)
    )
    compose(app, env)
    acknowledge(
        app,
        "CDK's grants are inline policies: each role has the one it was given here, and "
        "no policy is shared. There is no other way to take a grant (cdk-nag issue 792).",
        *controls("IAMNoInlinePolicy"),
    )
    return app
