"""Findings about wildcards in IAM resources that are meant, each with where and why.

A finding's id holds names that differ between environments, so these are matched here by pattern; every other
rule is acknowledged at its construct. An entry that matches nothing is an error too: it would hide the next.
"""

OBJECTS = (
    "Objects have no names of their own to list: the role is held to the contract's prefix of one bucket."
)

MEANT = (
    # (construct path, finding, reason)
    (
        r"/(Stage/(TaskRole|JobRole)|Studio/Role|Control/Redrive/Role)/",
        r"IAM5\[Resource::.*/(incoming|kspace|images|quarantine|models)/\*\]$",
        OBJECTS,
    ),
    (
        r"/(Stage/(TaskRole|JobRole)|Control/\w+/Role)/",
        r"IAM5\[Resource::.*LedgerTable.*/index/\*\]$",
        "The indexes of one table.",
    ),
    (
        r"/Shares/(Raw|Images)Role/",
        r"IAM5\[Resource::.*Buckets(Raw|Images).*/\*\]$",
        "A file share shows a whole bucket; what it may do there is written action by action.",
    ),
    (
        r"/Stage/TaskRole/",
        r"IAM5\[Resource::arn:aws:ecs:.*:task/<\w+>/\*\]$",
        "A task protects itself; its id is not known before it runs. The cluster is named.",
    ),
    (
        r"/Control/Scaler/Role/",
        r"IAM5\[Resource::\*\]$",
        "batch:ListJobs, batch:DescribeJobs and cloudwatch:GetMetricData know no resources.",
    ),
    (
        r"/Appliance/Activation/Role/",
        r"IAM5\[Resource::\*\]$",
        "The gateway has no ARN before it is activated; held to the region.",
    ),
    (r"/Studio/Role/", r"IAM5\[Resource::\*\]$", "ecr:GetAuthorizationToken knows no resources."),
    (
        r"/Studio/Role/",
        r"IAM5\[Resource::arn:aws:(logs|sagemaker):.*\*\]$",
        "Jobs, models and logs that do not exist yet, held to this environment's name or SageMaker's.",
    ),
    (
        r"/Stage/(Task/ExecutionRole|Worker/ExecutionRole)/",
        r"IAM5\[Resource::\*\]$",
        "CDK's role for pulling images: ecr:GetAuthorizationToken knows no resources.",
    ),
    (
        r"/Appliance/Provider/framework-onEvent/",
        r"IAM5\[Resource::<ApplianceActivationFunction\w+\.Arn>:\*\]$",
        "CDK's provider calls one function, whichever its version.",
    ),
)
