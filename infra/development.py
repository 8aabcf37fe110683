"""Where models are developed: repositories, a studio that sees the k-space cache, a place for models."""

from __future__ import annotations

from aws_cdk import Duration, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sagemaker as sagemaker
from constructs import Construct

from mrirecon.contract import keys

from . import grants
from .config import Environment
from .lustre import LustreCache
from .network import Network
from .resources import DataResources
from .retention import removal

MODELS = "models/"
KEPT_IMAGES = 20


class Repositories(Construct):
    """Container repositories for sites that pull and for training images: tags never move."""

    def __init__(self, scope: Construct, name: str, *, env: Environment, key: kms.IKey) -> None:
        super().__init__(scope, name)
        self.all = [self._repository(part, env, key) for part in ("Decompress", "Recon", "Training")]

    def _repository(self, part: str, env: Environment, key: kms.IKey) -> ecr.Repository:
        return ecr.Repository(
            self,
            part,
            image_tag_mutability=ecr.TagMutability.IMMUTABLE,
            image_scan_on_push=True,
            encryption=ecr.RepositoryEncryption.KMS,
            encryption_key=key,
            removal_policy=removal(env),
            empty_on_delete=not env.keep_data,
            lifecycle_rules=[
                ecr.LifecycleRule(
                    description="untagged layers go",
                    tag_status=ecr.TagStatus.UNTAGGED,
                    max_image_age=Duration.days(7),
                ),
                ecr.LifecycleRule(
                    description="the newest stay", tag_status=ecr.TagStatus.ANY, max_image_count=KEPT_IMAGES
                ),
            ],
        )


class Studio(Construct):
    """A SageMaker domain inside the VPC, its role, the models' bucket and their registry.

    There is no training job: what a job reads (k-space, by S3 or the Lustre cache) and where its models go is
    ready.
    """

    def __init__(
        self,
        scope: Construct,
        name: str,
        *,
        env: Environment,
        network: Network,
        data: DataResources,
        lustre: LustreCache | None,
        repositories: Repositories,
    ) -> None:
        super().__init__(scope, name)
        if data.models is None:
            raise ValueError("a studio wants a bucket of models")
        self.models = data.models
        self._data_key = data.data_key
        self.role = iam.Role(
            self,
            "Role",
            assumed_by=iam.ServicePrincipal("sagemaker.amazonaws.com"),
            description="what model development may do",
        )
        self._grant(env, data, repositories)
        if env.lacks("sagemaker"):
            return
        self._domain(env, network, data, lustre)
        self.registry = sagemaker.CfnModelPackageGroup(
            self,
            "Registry",
            model_package_group_name=f"mrirecon-{env.name}",
            model_package_group_description="Models of scan reconstruction, each with where it came from",
        )

    def _domain(
        self, env: Environment, network: Network, data: DataResources, lustre: LustreCache | None
    ) -> None:
        inside = ec2.SecurityGroup(
            self,
            "Studio",
            vpc=network.vpc,
            allow_all_outbound=False,
            description="studio apps: among themselves",
        )
        # A studio app mounts its home directory (2049) and talks to its kernels over ephemeral ports.
        for port in (ec2.Port.tcp(2049), ec2.Port.tcp_range(8192, 65535)):
            inside.add_ingress_rule(inside, port, "studio apps among themselves")
            inside.add_egress_rule(inside, port, "studio apps among themselves")
        groups = [inside, network.workers, *([lustre.clients] if lustre else [])]
        mounts = None
        if lustre is not None:
            mounts = [
                sagemaker.CfnDomain.CustomFileSystemConfigProperty(
                    f_sx_lustre_file_system_config=sagemaker.CfnDomain.FSxLustreFileSystemConfigProperty(
                        file_system_id=lustre.file_system.file_system_id,
                        file_system_path="/" + keys.KSPACE.rstrip("/"),
                    )
                )
            ]
        self.domain = sagemaker.CfnDomain(
            self,
            "Domain",
            domain_name=f"mrirecon-{env.name}",
            auth_mode="IAM",
            app_network_access_type="VpcOnly",
            vpc_id=network.vpc.vpc_id,
            subnet_ids=network.subnet_ids,
            kms_key_id=data.data_key.key_id,
            default_user_settings=sagemaker.CfnDomain.UserSettingsProperty(
                execution_role=self.role.role_arn,
                security_groups=[group.security_group_id for group in groups],
                custom_file_system_configs=mounts,
                jupyter_lab_app_settings=sagemaker.CfnDomain.JupyterLabAppSettingsProperty(
                    default_resource_spec=sagemaker.CfnDomain.ResourceSpecProperty(
                        instance_type=env.development.instance_type if env.development else None
                    )
                ),
            ),
        )
        kept = removal(env)
        self.domain.apply_removal_policy(kept)
        self.profile = sagemaker.CfnUserProfile(
            self, "Profile", domain_id=self.domain.attr_domain_id, user_profile_name=f"mrirecon-{env.name}"
        )
        self.profile.apply_removal_policy(kept)
        self._use_studio(stack=Stack.of(self))

    def _use_studio(self, stack: Stack) -> None:
        """Let the profile's user open its spaces and apps: their ARNs begin with the domain's id."""
        domain = self.domain.attr_domain_id

        def within(kind: str, rest: str) -> str:
            return stack.format_arn(service="sagemaker", resource=kind, resource_name=f"{domain}/{rest}")

        grants.allow(
            self.role,
            "LookAtDomain",
            ["sagemaker:DescribeDomain", "sagemaker:DescribeUserProfile"],
            [
                stack.format_arn(service="sagemaker", resource="domain", resource_name=domain),
                within("user-profile", "*"),
            ],
        )
        grants.allow(self.role, "ListStudio", ["sagemaker:ListApps", "sagemaker:ListSpaces"], ["*"])
        grants.allow(
            self.role,
            "OpenSpaces",
            [
                "sagemaker:CreateSpace",
                "sagemaker:UpdateSpace",
                "sagemaker:DeleteSpace",
                "sagemaker:DescribeSpace",
                "sagemaker:CreateApp",
                "sagemaker:DeleteApp",
                "sagemaker:DescribeApp",
                "sagemaker:AddTags",
                "sagemaker:CreatePresignedDomainUrl",
            ],
            [within("space", "*"), within("app", "*"), within("user-profile", "*")],
        )
        # A space's volume is encrypted with the data key: SageMaker attaches it by a grant.
        self.role.add_to_principal_policy(
            iam.PolicyStatement(
                sid="AttachVolumes",
                actions=["kms:CreateGrant"],
                resources=[self._data_key.key_arn],
                conditions={"Bool": {"kms:GrantIsForAWSResource": "true"}},
            )
        )

    def _grant(self, env: Environment, data: DataResources, repositories: Repositories) -> None:
        role, stack = self.role, Stack.of(self)
        grants.objects(role, "ReadKspace", data.kspace, keys.KSPACE, grants.READ)
        grants.objects(role, "ReadImages", data.images, keys.IMAGES, grants.READ)
        grants.objects(role, "KeepModels", self.models, MODELS, (*grants.READ, *grants.WRITE))
        for sid, bucket in (
            ("ListKspace", data.kspace),
            ("ListImages", data.images),
            ("ListModels", self.models),
        ):
            grants.list_bucket(role, sid, bucket)
        grants.use_keys(role, [data.data_key], actions=(*grants.USE_KEY, "kms:DescribeKey"))
        grants.allow(
            role,
            "PullContainers",
            ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability"],
            [repository.repository_arn for repository in repositories.all],
        )
        grants.allow(role, "LogInToRegistry", ["ecr:GetAuthorizationToken"], ["*"])
        logs = stack.format_arn(service="logs", resource="log-group", resource_name="/aws/sagemaker/*")
        logs = logs.replace("log-group/", "log-group:")
        grants.allow(
            role, "Log", ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"], [logs]
        )
        jobs = [
            stack.format_arn(service="sagemaker", resource=kind, resource_name=f"mrirecon-{env.name}*")
            for kind in ("training-job", "model-package", "model-package-group")
        ]
        grants.allow(
            role,
            "TrainAndRegister",
            [
                "sagemaker:CreateTrainingJob",
                "sagemaker:DescribeTrainingJob",
                "sagemaker:StopTrainingJob",
                "sagemaker:CreateModelPackage",
                "sagemaker:DescribeModelPackage",
                "sagemaker:AddTags",
                "sagemaker:DescribeModelPackageGroup",
            ],
            jobs,
        )
        grants.allow(role, "HandOverRole", ["iam:PassRole"], [role.role_arn])
