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
        r"/(Stage/(TaskRole|JobRole)|Studio/Role|Control/Redrive/Role|Operators)/",
        r"IAM5\[Resource::.*/(incoming|kspace|images|quarantine|models)/\*\]$",
        OBJECTS,
    ),
    (
        r"/(Stage/(TaskRole|JobRole)|Control/\w+/Role|Operators)/",
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
        "batch:ListJobs and cloudwatch:GetMetricData know no resources.",
    ),
    (
        r"/Studio/Role/",
        r"IAM5\[Resource::\*\]$",
        "ecr:GetAuthorizationToken, sagemaker:ListApps and ListSpaces know none.",
    ),
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
        r"/Control/Scaler/Role/",
        r"IAM5\[Resource::arn:aws:batch:.*:job-definition/mrirecon-[a-z0-9-]+-recon:\*\]$",
        "The revisions of one job definition: each release makes the next.",
    ),
    (
        r"/Cache/ReleaseRole/",
        r"IAM5\[Resource::arn:aws:fsx:.*:task/\*\]$",
        "A task of the file system has no id before it is made; the file system is named.",
    ),
)
