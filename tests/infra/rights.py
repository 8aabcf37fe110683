"""Who may do what, by the synthesised templates: roles, their rights, and the decision on a recorded call."""

from dataclasses import dataclass

from infra.outputs import VARIABLES
from tests.infra import simulator
from tests.infra.deployed import Deployed
from tests.infra.needs import ON_QUEUE, needs
from tests.support.aws_calls import with_twins

LAMBDA_NAME = "POWERTOOLS_SERVICE_NAME"


@dataclass(frozen=True)
class Role:
    """Somebody who calls AWS: a role, or the people to whom the operators' policy is attached."""

    label: str
    arn: str
    statements: tuple
    variables: dict
    in_vpc: bool


@dataclass(frozen=True)
class Asked:
    """A request of a role: the recorded call it comes from, action, ARN, and what else the request says."""

    role: str
    action: str
    resource: str
    context: tuple
    call: str

    def __str__(self):
        return f"{self.role}: {self.action} on {self.resource}"


@dataclass(frozen=True)
class Right:
    """One action on one resource, as one statement of a role grants it."""

    role: str
    sid: str
    action: str
    resource: str

    def __str__(self):
        return f"{self.role}: {self.action} on {self.resource} ({self.sid})"


class Rights:
    """The policies of one environment."""

    def __init__(self, synth, account, region):
        self.deployed = Deployed(synth, account, region)
        self._resource_policies = self._read_resource_policies()
        self._keys = self._read_keys()
        self.endpoints = self._read_endpoints()
        outputs = self.deployed.outputs()
        self._named = {name: outputs[out] for name, out in VARIABLES.items() if out in outputs}
        self.roles = {role.label: role for role in self._callers()}

    # who

    def statements_of(self, part, logical):
        """Return the statements of all policies of a role, in the order of the templates."""
        deployed = self.deployed
        role = deployed.resources[part, logical]["Properties"]
        name, arn = deployed.name(part, logical), deployed.arn(part, logical)
        documents = [policy["PolicyDocument"] for policy in deployed.resolve(role.get("Policies", []), part)]
        for policy in deployed.of("AWS::IAM::Policy").values():
            if name in policy.get("Roles", []):
                documents.append(policy["PolicyDocument"])
        managed = {
            deployed.arn(*key): policy["PolicyDocument"]
            for key, policy in deployed.of("AWS::IAM::ManagedPolicy").items()
        }
        for attached in deployed.resolve(role.get("ManagedPolicyArns", []), part):
            if attached in managed:
                documents.append(managed[attached])
        assert arn
        return tuple(statement for document in documents for statement in document["Statement"])

    def role_of(self, arn):
        """Return ``(part, logical id)`` of a role by its ARN."""
        deployed = self.deployed
        return next(
            key
            for key, resource in deployed.resources.items()
            if resource["Type"] == "AWS::IAM::Role" and deployed.arn(*key) == arn
        )

    def _callers(self):
        deployed = self.deployed
        for task in deployed.of("AWS::ECS::TaskDefinition").values():
            container = task["ContainerDefinitions"][0]
            yield self._caller("decompress", task["TaskRoleArn"], _variables(container), in_vpc=True)
        for job in deployed.of("AWS::Batch::JobDefinition").values():
            container = job["ContainerProperties"]
            yield self._caller("recon", container["JobRoleArn"], _variables(container), in_vpc=True)
        for function in deployed.of("AWS::Lambda::Function").values():
            variables = function.get("Environment", {}).get("Variables", {})
            if LAMBDA_NAME in variables:
                label = variables[LAMBDA_NAME]
                yield self._caller(label, function["Role"], variables, in_vpc="VpcConfig" in function)
        for (_, logical), policy in deployed.of("AWS::IAM::ManagedPolicy").items():
            if logical.startswith("Operators"):
                arn = f"arn:aws:iam::{deployed.account}:role/operator"
                yield Role("operator", arn, tuple(policy["PolicyDocument"]["Statement"]), {}, False)

    def _caller(self, label, arn, variables, *, in_vpc):
        return Role(label, arn, self.statements_of(*self.role_of(arn)), variables, in_vpc)

    # on what

    def _read_resource_policies(self):
        deployed, found = self.deployed, {}

        def add(arn, document):
            merged = found.setdefault(arn, {"Version": "2012-10-17", "Statement": []})
            merged["Statement"] += document["Statement"]

        for policy in deployed.of("AWS::S3::BucketPolicy").values():
            add(f"arn:aws:s3:::{policy['Bucket']}", policy["PolicyDocument"])
        for policy in deployed.of("AWS::SQS::QueuePolicy").values():
            for url in policy["Queues"]:
                add(self._queue_arn(url), policy["PolicyDocument"])
        for policy in deployed.of("AWS::SNS::TopicPolicy").values():
            for topic in policy["Topics"]:
                add(topic, policy["PolicyDocument"])
        for key, properties in deployed.of("AWS::KMS::Key").items():
            add(deployed.arn(*key), properties["KeyPolicy"])
        return found

    def _read_keys(self):
        """Return the key's ARN of each encrypted bucket, queue, topic and table, by its ARN."""
        deployed, found = self.deployed, {}
        for key, bucket in deployed.of("AWS::S3::Bucket").items():
            for rule in bucket.get("BucketEncryption", {}).get("ServerSideEncryptionConfiguration", []):
                found[deployed.arn(*key)] = rule["ServerSideEncryptionByDefault"].get("KMSMasterKeyID")
        for kind, name in (("AWS::SQS::Queue", "KmsMasterKeyId"), ("AWS::SNS::Topic", "KmsMasterKeyId")):
            for key, properties in deployed.of(kind).items():
                found[deployed.arn(*key)] = properties.get(name)
        for key, table in deployed.of("AWS::DynamoDB::Table").items():
            found[deployed.arn(*key)] = table.get("SSESpecification", {}).get("KMSMasterKeyId")
        return {arn: self._key_arn(key) for arn, key in found.items() if key}

    def _key_arn(self, key):
        if key.startswith("arn:"):
            return key
        return f"arn:aws:kms:{self.deployed.region}:{self.deployed.account}:key/{key}"

    def _read_endpoints(self):
        """Return the policy of each endpoint of the network by its service: ``None`` lets all through."""
        return {
            endpoint["ServiceName"].removeprefix(f"com.amazonaws.{self.deployed.region}."): endpoint.get(
                "PolicyDocument"
            )
            for endpoint in self.deployed.of("AWS::EC2::VPCEndpoint").values()
        }

    @property
    def isolated(self):
        """Whether the network reaches AWS by its endpoints alone."""
        return any(
            endpoint.get("VpcEndpointType") == "Interface"
            for endpoint in self.deployed.of("AWS::EC2::VPCEndpoint").values()
        )

    def key_of(self, arn):
        """Return the ARN of the key that encrypts a thing, ``None`` when there is none."""
        return self._keys.get(arn)

    def _queue_arn(self, url):
        return f"arn:aws:sqs:{self.deployed.region}:{self.deployed.account}:{url.rpartition('/')[2]}"

    def arns(self, role, need):
        """Return the ARNs that a need names, as the role's own variables say."""
        if need.kind == "*":
            return ["*"]
        region, account = self.deployed.region, self.deployed.account
        variables = {**self._named, **role.variables}
        values = variables[need.name].split(",")
        if need.kind == "object":
            return [f"arn:aws:s3:::{values[0]}/{need.within.replace('*', 'x/y')}"]
        if need.kind == "bucket":
            return [f"arn:aws:s3:::{values[0]}"]
        if need.kind == "queue":
            return [self._queue_arn(values[0])]
        if need.kind in {"table", "index"}:
            index = f"/index/{need.within}" if need.kind == "index" else ""
            return [f"arn:aws:dynamodb:{region}:{account}:table/{values[0]}{index}"]
        if need.kind == "service":
            cluster = variables[need.within].rpartition("/")[2]
            return [f"arn:aws:ecs:{region}:{account}:service/{cluster}/{values[0].rpartition('/')[2]}"]
        if need.kind in {"job-queue", "job-definition"}:
            name = values[0].rpartition("/")[2]
            arn = f"arn:aws:batch:{region}:{account}:{need.kind}/{name}"
            # A definition that is given by name means its newest revision: AWS names either in its refusals.
            return [arn, f"{arn}:7"] if need.kind == "job-definition" and ":" not in name else [arn]
        if need.kind == "share":
            return [value for value in values if value]
        if need.kind == "function":
            return [f"arn:aws:lambda:{region}:{account}:function:{values[0]}"]
        raise ValueError(need.kind)

    # may it

    def all_asked(self, calls):
        """Return every distinct request: of the recorded calls, and of services for our roles."""
        mine = {request for call in with_twins(calls) for request in self.asked(call)}
        # Which call a request comes from does not matter to the decision: one stands for all.
        one = {(it.role, it.action, it.resource, it.context): it for it in {*mine, *self.of_services()}}
        return sorted(one.values(), key=str)

    def asked(self, call):
        """Return the requests that a recorded call makes in this environment.

        None when the environment lacks the role or, like a share, the thing.
        """
        role = self.roles.get(call["role"])
        if role is None:
            return []
        name = ", ".join(f"{key}={value}" for key, value in sorted(call.items()) if key != "role")
        return [
            request
            for need in needs(call)
            for arn in self.arns(role, need)
            for request in self._requests(role, need, arn, name)
        ]

    def _requests(self, role, need, arn, name):
        yield Asked(role.label, need.action, arn, (), name)
        thing = arn.partition("/")[0] if need.kind in {"object", "bucket"} else arn.partition("/index/")[0]
        key = self.key_of(thing)
        service = need.action.partition(":")[0]
        for action in need.on_key if key else ():
            context = (("kms:ViaService", f"{service}.{self.deployed.region}.amazonaws.com"),)
            yield Asked(role.label, action, key, context, name)

    def of_services(self):
        """Return the requests that AWS's services make in the name of our roles, as the templates say.

        Lambda: https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html (event sources),
        https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-retain-records.html (dead letters),
        https://docs.aws.amazon.com/lambda/latest/dg/monitoring-cloudwatchlogs.html (logs).
        ECS: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-scale-in-protection-endpoint.html
        (the agent asks with the task's role; the worker asks the agent).
        """
        deployed = self.deployed
        labels = {role.arn: role.label for role in self.roles.values()}
        functions = {deployed.name(*key): one for key, one in deployed.of("AWS::Lambda::Function").items()}
        for function in functions.values():
            label = labels.get(function["Role"])
            if label is None:
                continue
            group = function["LoggingConfig"]["LogGroup"]
            stream = f"arn:aws:logs:{deployed.region}:{deployed.account}:log-group:{group}:log-stream:x"
            for action in ("logs:CreateLogStream", "logs:PutLogEvents"):
                yield Asked(label, action, stream, (), "Lambda writes the function's log")
            dead = function.get("DeadLetterConfig", {}).get("TargetArn")
            if dead:
                yield from self._on_queue(label, "sqs:SendMessage", dead, "Lambda keeps failed events")
        for source in deployed.of("AWS::Lambda::EventSourceMapping").values():
            label = labels[functions[source["FunctionName"]]["Role"]]
            for action in ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"):
                yield from self._on_queue(label, action, source["EventSourceArn"], "Lambda reads the queue")
        for service in deployed.of("AWS::ECS::Service").values():
            cluster = service["Cluster"].rpartition("/")[2]
            task = f"arn:aws:ecs:{deployed.region}:{deployed.account}:task/{cluster}/0123456789abcdef"
            yield Asked("decompress", "ecs:UpdateTaskProtection", task, (), "the agent protects the task")

    def _on_queue(self, label, action, arn, what):
        yield Asked(label, action, arn, (), what)
        key = self.key_of(arn)
        context = (("kms:ViaService", f"sqs.{self.deployed.region}.amazonaws.com"),)
        for on_key in ON_QUEUE[action.partition(":")[2]] if key else ():
            yield Asked(label, on_key, key, context, what)

    def simulation(self, asked, statements=None):
        """Return the simulation of a request, with the role's statements or others in their place."""
        role, account = self.roles[asked.role], self.deployed.account
        service = asked.action.partition(":")[0]
        # A service that uses a key for its caller does not come through the caller's network.
        policy = self.endpoints.get(service) if role.in_vpc and service != "kms" else None
        return simulator.simulation(
            role.arn,
            asked.action,
            asked.resource,
            account,
            identity=role.statements if statements is None else statements,
            resource_policy=self.policy_on(asked.resource),
            endpoint=policy,
            context={**self.context(service), "aws:PrincipalArn": role.arn, **dict(asked.context)},
        )

    def policy_on(self, arn):
        """Return the policy of the bucket, queue, topic or key that an ARN names or lies in."""
        return self._resource_policies.get(arn) or self._resource_policies.get(arn.partition("/")[0])

    def context(self, service):
        """Return what every request of ours says: the account, the region, a secure channel."""
        account = self.deployed.account
        told = {
            "aws:SecureTransport": "true",
            "aws:PrincipalAccount": account,
            "aws:ResourceAccount": account,
            "aws:RequestedRegion": self.deployed.region,
        }
        if service == "s3":
            told["s3:TlsVersion"] = "1.3"
        if service == "kms":
            told["kms:CallerAccount"] = account
        return told

    def rights(self, label):
        """Return every right of a role, one action on one resource each, with its place in the statements."""
        for number, statement in enumerate(self.roles[label].statements):
            for action in _list(statement["Action"]):
                for resource in _list(statement["Resource"]):
                    yield number, Right(label, statement.get("Sid", str(number)), action, resource)

    def without(self, number, right):
        """Return the statements of a role without one of its rights."""
        kept = []
        for position, statement in enumerate(self.roles[right.role].statements):
            if position != number:
                kept.append(statement)
                continue
            actions, resources = _list(statement["Action"]), _list(statement["Resource"])
            others = [action for action in actions if action != right.action]
            elsewhere = [resource for resource in resources if resource != right.resource]
            if others:
                kept.append({**statement, "Action": others, "Resource": resources})
            if elsewhere:
                kept.append({**statement, "Action": [right.action], "Resource": elsewhere})
        return tuple(kept)


def _variables(container):
    return {item["Name"]: item["Value"] for item in container["Environment"]}


def _list(value):
    return [value] if isinstance(value, str) else list(value)
