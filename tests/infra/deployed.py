"""Templates as a deployment would make them: each reference resolved to a name or ARN of the made account.

Names that CloudFormation would choose are the stack's last name and the logical id. Only what the templates
use is known; anything else raises, so that no check looks at a policy whose resource it could not read.
"""

import re

ARNS = {
    "AWS::S3::Bucket": "arn:aws:s3:::{name}",
    "AWS::SQS::Queue": "arn:aws:sqs:{region}:{account}:{name}",
    "AWS::SNS::Topic": "arn:aws:sns:{region}:{account}:{name}",
    "AWS::DynamoDB::Table": "arn:aws:dynamodb:{region}:{account}:table/{name}",
    "AWS::KMS::Key": "arn:aws:kms:{region}:{account}:key/{name}",
    "AWS::Lambda::Function": "arn:aws:lambda:{region}:{account}:function:{name}",
    "AWS::IAM::Role": "arn:aws:iam::{account}:role/{name}",
    "AWS::IAM::ManagedPolicy": "arn:aws:iam::{account}:policy/{name}",
    "AWS::Logs::LogGroup": "arn:aws:logs:{region}:{account}:log-group:{name}:*",
    "AWS::Events::Rule": "arn:aws:events:{region}:{account}:rule/{name}",
    "AWS::CloudWatch::Alarm": "arn:aws:cloudwatch:{region}:{account}:alarm:{name}",
    "AWS::ECS::Cluster": "arn:aws:ecs:{region}:{account}:cluster/{name}",
    "AWS::ECS::Service": "arn:aws:ecs:{region}:{account}:service/{cluster}/{name}",
    "AWS::ECS::TaskDefinition": "arn:aws:ecs:{region}:{account}:task-definition/{name}:1",
    "AWS::Batch::JobQueue": "arn:aws:batch:{region}:{account}:job-queue/{name}",
    "AWS::Batch::JobDefinition": "arn:aws:batch:{region}:{account}:job-definition/{name}:1",
    "AWS::Batch::ComputeEnvironment": "arn:aws:batch:{region}:{account}:compute-environment/{name}",
    "AWS::ECR::Repository": "arn:aws:ecr:{region}:{account}:repository/{name}",
    "AWS::StorageGateway::SMBFileShare": "arn:aws:storagegateway:{region}:{account}:share/{name}",
    "AWS::StorageGateway::NFSFileShare": "arn:aws:storagegateway:{region}:{account}:share/{name}",
    "AWS::EC2::VPC": "arn:aws:ec2:{region}:{account}:vpc/{name}",
    "AWS::SageMaker::Domain": "arn:aws:sagemaker:{region}:{account}:domain/{name}",
    "AWS::SageMaker::UserProfile": "arn:aws:sagemaker:{region}:{account}:user-profile/{name}",
    "AWS::SecretsManager::Secret": "arn:aws:secretsmanager:{region}:{account}:secret:{name}",
    "AWS::StepFunctions::StateMachine": "arn:aws:states:{region}:{account}:stateMachine:{name}",
}
REF_IS_ARN = {
    "AWS::SNS::Topic",
    "AWS::ECS::Service",
    "AWS::ECS::TaskDefinition",
    "AWS::Batch::JobQueue",
    "AWS::Batch::JobDefinition",
    "AWS::Batch::ComputeEnvironment",
    "AWS::IAM::ManagedPolicy",
    "AWS::SecretsManager::Secret",
    "AWS::StepFunctions::StateMachine",
}
ARN_ATTRIBUTES = {
    "Arn",
    "FileShareArn",
    "FileShareARN",
    "JobQueueArn",
    "JobDefinitionArn",
    "TopicArn",
    "ServiceArn",
    "ComputeEnvironmentArn",
    "DomainArn",
}


class UnresolvedError(LookupError):
    """A reference that this module cannot resolve."""


class Deployed:
    """All stacks of one environment; ``resources`` are ``{(part, logical id): resource}``."""

    def __init__(self, synth, account, region):
        self.account, self.region = account, region
        self.templates = synth.templates
        self.resources = {
            (part, name): resource
            for part, template in synth.templates.items()
            for name, resource in template.get("Resources", {}).items()
        }
        self._exports = {
            self._plain_export(output["Export"]["Name"]): (part, output["Value"])
            for part, template in synth.templates.items()
            for output in template.get("Outputs", {}).values()
            if "Export" in output
        }

    def of(self, kind):
        """Return the resources of a type as ``{(part, logical id): resolved properties}``."""
        return {
            key: self.resolve(resource.get("Properties", {}), key[0])
            for key, resource in self.resources.items()
            if resource["Type"] == kind
        }

    def outputs(self):
        """Return the outputs of all stacks, resolved."""
        return {
            name: self.resolve(output["Value"], part)
            for part, template in self.templates.items()
            for name, output in template.get("Outputs", {}).items()
        }

    def name(self, part, logical):
        """Return the made name of a resource, or the one that the template gives it."""
        resource = self.resources[part, logical]
        last = resource["Type"].rpartition("::")[2]
        for given in (f"{last}Name", "Name", f"{last[:1].lower()}{last[1:]}Name"):
            value = resource.get("Properties", {}).get(given)
            if isinstance(value, str):
                return value
        made = f"{part}-{logical}"
        return made.lower() if resource["Type"] == "AWS::S3::Bucket" else made

    def arn(self, part, logical):
        """Return the ARN of a resource."""
        resource = self.resources[part, logical]
        pattern = ARNS.get(resource["Type"])
        if pattern is None:
            raise UnresolvedError(f"{part}.{logical}: the ARN of a {resource['Type']}")
        cluster = ""
        if "{cluster}" in pattern:
            cluster = self.resolve(resource["Properties"]["Cluster"], part).rpartition("/")[2]
        return pattern.format(
            name=self.name(part, logical), account=self.account, region=self.region, cluster=cluster
        )

    def resolve(self, value, part):
        """Return a value of a template of stack ``part`` with all references resolved."""
        if isinstance(value, list):
            return [self.resolve(item, part) for item in value if item != {"Ref": "AWS::NoValue"}]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((function, argument),) = value.items()
            if function == "Ref":
                return self._ref(argument, part)
            if function.startswith("Fn::"):
                return self._function(function, argument, part)
        return {name: self.resolve(item, part) for name, item in value.items()}

    def _ref(self, name, part):
        pseudo = {
            "AWS::AccountId": self.account,
            "AWS::Region": self.region,
            "AWS::Partition": "aws",
            "AWS::URLSuffix": "amazonaws.com",
            "AWS::StackName": part,
            "AWS::StackId": f"arn:aws:cloudformation:{self.region}:{self.account}:stack/{part}/1",
        }
        if name in pseudo:
            return pseudo[name]
        if (part, name) not in self.resources:  # a parameter: an AMI, the version of a bootstrap
            return f"parameter-{name}"
        kind = self.resources[part, name]["Type"]
        if kind in REF_IS_ARN:
            return self.arn(part, name)
        if kind == "AWS::SQS::Queue":
            return f"https://sqs.{self.region}.amazonaws.com/{self.account}/{self.name(part, name)}"
        return self.name(part, name)

    def _function(self, function, argument, part):
        if function == "Fn::GetAtt":
            logical, attribute = argument if isinstance(argument, list) else argument.split(".", 1)
            return self._attribute(part, logical, attribute)
        if function == "Fn::Join":
            return argument[0].join(str(item) for item in self.resolve(argument[1], part))
        if function == "Fn::ImportValue":
            there, value = self._exports[self._plain_export(argument)]
            return self.resolve(value, there)
        if function == "Fn::Sub":
            text, values = argument if isinstance(argument, list) else (argument, {})
            return re.sub(
                r"\$\{([^}!]+)\}",
                lambda found: str(
                    self.resolve(values[found[1]], part)
                    if found[1] in values
                    else self._function("Fn::GetAtt", found[1], part)
                    if "." in found[1]
                    else self._ref(found[1], part)
                ),
                text,
            )
        if function == "Fn::Select":
            return self.resolve(argument[1], part)[int(argument[0])]
        if function == "Fn::Split":
            return str(self.resolve(argument[1], part)).split(argument[0])
        if function == "Fn::Base64":
            return self.resolve(argument, part)
        if function == "Fn::GetAZs":
            return [f"{self.region}a", f"{self.region}b"]
        raise UnresolvedError(f"{part}: {function}")

    def _attribute(self, part, logical, attribute):
        kind = self.resources[part, logical]["Type"]
        if attribute in ARN_ATTRIBUTES and kind in ARNS:
            return self.arn(part, logical)
        if kind == "Custom::FileGateway" and attribute == "GatewayARN":
            return f"arn:aws:storagegateway:{self.region}:{self.account}:gateway/sgw-{logical}"
        if attribute.endswith("Name") and kind in ARNS:
            return self.name(part, logical)
        return f"{part}-{logical}-{attribute}"

    @staticmethod
    def _plain_export(name):
        return name if isinstance(name, str) else str(name)
