"""What CloudFormation would do from one version of the templates to another: replacements, exports in use.

Which change of a property replaces a resource is read from the registry schemas that cfn-lint ships
(``createOnlyProperties``; ``conditionalCreateOnlyProperties`` count too, since they may). A resource is also
replaced when such a property refers to one that is.
"""

import json

from cfnlint.schema import PROVIDER_SCHEMA_MANAGER

NEW_AT_EVERY_CHANGE = {
    # "Ref" and these attributes name a revision: any change of the resource makes another.
    ("AWS::Batch::JobDefinition", "Ref"),
    ("AWS::Batch::JobDefinition", "JobDefinitionArn"),
    ("AWS::ECS::TaskDefinition", "Ref"),
    ("AWS::ECS::TaskDefinition", "TaskDefinitionArn"),
    ("AWS::EC2::LaunchTemplate", "LatestVersionNumber"),
    ("AWS::EC2::LaunchTemplate", "DefaultVersionNumber"),
    ("AWS::Lambda::Version", "Ref"),
    ("AWS::Lambda::Version", "FunctionArn"),
}
ONLY_GROWS = {
    # https://docs.aws.amazon.com/fsx/latest/LustreGuide/managing-storage-capacity.html
    "AWS::FSx::FileSystem": "StorageCapacity",
}
STATEFUL = {
    "AWS::S3::Bucket",
    "AWS::DynamoDB::Table",
    "AWS::KMS::Key",
    "AWS::FSx::FileSystem",
    "AWS::EC2::Instance",
    "Custom::FileGateway",
    "AWS::StorageGateway::SMBFileShare",
    "AWS::StorageGateway::NFSFileShare",
    "AWS::SageMaker::Domain",
    "AWS::SageMaker::ModelPackageGroup",
    "AWS::ECR::Repository",
    "AWS::SQS::Queue",
    "AWS::SNS::Topic",
    "AWS::Logs::LogGroup",
    "AWS::EC2::VPC",
    "AWS::EC2::Subnet",
}
"""Types whose replacement loses data, messages, or what people and machines know by its name."""


class Versions:
    """Two versions of an environment's templates: ``{part: template}`` each."""

    def __init__(self, old, new):
        self._old, self._new = old, new
        self._before, self._after = _resources(old), _resources(new)
        self._exports = {
            output["Export"]["Name"]: (part, output["Value"])
            for part, template in old.items()
            for output in template.get("Outputs", {}).values()
            if "Export" in output
        }
        self.replaced = self._find_replaced()

    def stateful_losses(self):
        """Return a sentence for each resource of :data:`STATEFUL` that is replaced or goes."""
        told = []
        for key, resource in self._before.items():
            if resource["Type"] not in STATEFUL:
                continue
            if key not in self._after:
                told.append(f"{'.'.join(key)} ({resource['Type']}) goes")
            elif key in self.replaced:
                told.append(f"{'.'.join(key)} ({resource['Type']}) is replaced: {self.replaced[key]}")
        return told

    def refused(self):
        """Return a sentence for each change that the service refuses: what can only grow would shrink."""
        told = []
        for key, resource in self._before.items():
            name = ONLY_GROWS.get(resource["Type"])
            if name and key in self._after and key not in self.replaced:
                old, new = (_at(one[key]["Properties"], (name,)) for one in (self._before, self._after))
                if old > new:
                    told.append(f"{'.'.join(key)}: {name} shrinks from {old} to {new}")
        return told

    def broken_exports(self):
        """Return a sentence for each export that another stack imports and whose value changes or goes.

        CloudFormation refuses such an update: "you can't delete or modify an export that is in use".
        """
        told = []
        new = {
            output["Export"]["Name"]: output["Value"]
            for template in self._new.values()
            for output in template.get("Outputs", {}).values()
            if "Export" in output
        }
        for name in sorted(imported(self._old)):
            part, value = self._exports[name]
            if name not in new:
                told.append(f"{name} goes")
            elif new[name] != value:
                told.append(f"{name} changes from {json.dumps(value)} to {json.dumps(new[name])}")
            elif why := self._new_value(value, part):
                told.append(f"{name} changes: {why}")
        return told

    def _find_replaced(self):
        found = {}
        while True:
            more = {
                key: why
                for key in self._before.keys() & self._after.keys()
                if key not in found and (why := self._why_replaced(key, found))
            }
            if not more:
                return found
            found |= more

    def _why_replaced(self, key, replaced):
        before, after = self._before[key], self._after[key]
        if before["Type"] != after["Type"]:
            return f"its type becomes {after['Type']}"
        for path in create_only(before["Type"]):
            old, new = (_at(resource.get("Properties", {}), path) for resource in (before, after))
            if old != new:
                return f"{'.'.join(path)} changes"
            for part, logical, attribute in self._references(old, key[0]):
                if (part, logical) in replaced:
                    return f"{'.'.join(path)} refers to {part}.{logical}, which is replaced"
                if why := self._moves(part, logical, attribute):
                    return f"{'.'.join(path)} refers to {part}.{logical}: {why}"
        return None

    def _new_value(self, value, part):
        for there, logical, attribute in self._references(value, part):
            if (there, logical) in self.replaced:
                return f"{there}.{logical} is replaced"
            if why := self._moves(there, logical, attribute):
                return f"{there}.{logical}: {why}"
        return None

    def _moves(self, part, logical, attribute):
        """Return why a reference has another value although the resource stays, ``None`` if it has not."""
        parameter = self._old[part].get("Parameters", {}).get(logical)
        if parameter is not None:
            # Such a parameter is looked up at every deployment.
            latest = parameter["Type"].startswith("AWS::SSM::Parameter::Value<AWS::EC2::Image")
            return f"its value is looked up anew ({parameter.get('Default')})" if latest else None
        kind = self._before[part, logical]["Type"]
        changed = self._before[part, logical] != self._after.get((part, logical))
        if (kind, attribute) in NEW_AT_EVERY_CHANGE and changed:
            return f"{attribute} of a {kind} names its revision"
        return None

    def _references(self, value, part):
        """Yield (part, logical id, attribute) of each reference in a value, through imports too."""
        if isinstance(value, list):
            for item in value:
                yield from self._references(item, part)
        elif isinstance(value, dict):
            for name, item in value.items():
                if name == "Ref" and not str(item).startswith("AWS::"):
                    yield part, item, "Ref"
                elif name == "Fn::GetAtt":
                    yield part, item[0], item[1]
                elif name == "Fn::ImportValue" and item in self._exports:
                    there, exported = self._exports[item]
                    yield from self._references(exported, there)
                else:
                    yield from self._references(item, part)


def create_only(kind):
    """Return the paths of the properties of a type whose change replaces (or may replace) the resource."""
    if kind.startswith("Custom::"):
        # Its own function decides by the physical id: an activated gateway is known by its machine's address.
        return [("ServiceToken",), ("Address",)]
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema("eu-central-1", kind).schema
    pointers = [
        *schema.get("createOnlyProperties", []),
        *schema.get("conditionalCreateOnlyProperties", []),
    ]
    return [tuple(pointer.split("/")[2:]) for pointer in pointers]


def imported(templates):
    """Return the names of all exports that templates import."""
    found = set()

    def look(value):
        if isinstance(value, list):
            for item in value:
                look(item)
        elif isinstance(value, dict):
            if isinstance(value.get("Fn::ImportValue"), str):
                found.add(value["Fn::ImportValue"])
            for item in value.values():
                look(item)

    look(list(templates.values()))
    return found


def _resources(templates):
    return {
        (part, name): resource
        for part, template in templates.items()
        for name, resource in template.get("Resources", {}).items()
    }


def _at(properties, path):
    for name in path:
        if not isinstance(properties, dict):
            return None
        properties = properties.get(name)
    return properties
