"""The launch template of the GPU machines: disks, metadata service, Lustre mount, Spot draining."""

from __future__ import annotations

from aws_cdk import Tags
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_kms as kms
from constructs import Construct

from .lustre import LustreCache
from .worker_environment import USER_ID

SCRATCH_ON_HOST = "/var/lib/mrirecon/scratch"
LUSTRE_ON_HOST = "/fsx"
STOP_SECONDS = 118


DISK_MIB_PER_SECOND = 250
"""Twice a gp3 volume's baseline: a new machine first unpacks a container of several gigabytes."""
MOUNT_WAITS = (0, 10, 20, 40, 60)
"""Seconds before each try of what the file system needs: a new machine's network may not be ready."""


def boot_script(lustre: LustreCache | None) -> list[str]:
    """Return what a machine runs before it takes jobs.

    A machine on which any of it fails shuts down, and so never joins the cluster: the agent that joins starts
    after this script. A job would find an empty folder there, or none.
    """
    lines = [
        "set -eu",
        'leave() { code=$?; [ "$code" -eq 0 ] && return',
        '  echo "mrirecon: set-up failed (exit code $code), shutting down" >&2; shutdown -h now; }',
        "trap leave EXIT",
        "mkdir -p /etc/ecs",
        "echo ECS_ENABLE_SPOT_INSTANCE_DRAINING=true >> /etc/ecs/ecs.config",
        f"echo ECS_CONTAINER_STOP_TIMEOUT={STOP_SECONDS}s >> /etc/ecs/ecs.config",
        f"install -d -m 0700 -o {USER_ID} -g {USER_ID} {SCRATCH_ON_HOST}",
    ]
    if lustre is not None:
        lines += lustre_script(f"{lustre.dns_name}@tcp:/{lustre.mount_name}")
    return lines


def lustre_script(source: str) -> list[str]:
    """Return the lines that mount ``source`` (``DNS name@tcp:/mount name``) read-only, or fail."""
    waits = " ".join(map(str, MOUNT_WAITS))
    return [
        f'repeatedly() {{ for wait in {waits}; do sleep "$wait"; "$@" && return; done; return 1; }}',
        "repeatedly dnf install -y lustre-client",
        f"mkdir -p {LUSTRE_ON_HOST}",
        f"repeatedly mount -t lustre -o ro,relatime,flock {source} {LUSTRE_ON_HOST}",
        f"mountpoint -q {LUSTRE_ON_HOST}",
    ]


class GpuMachine(Construct):
    """The launch template. Batch re-reads it only when its version in the template changes."""

    def __init__(
        self,
        scope: Construct,
        name: str,
        *,
        disk_gib: int,
        key: kms.IKey,
        lustre: LustreCache | None,
        groups: list[ec2.ISecurityGroup],
    ) -> None:
        super().__init__(scope, name)
        script = ec2.UserData.for_linux()
        script.add_commands(*boot_script(lustre))
        mime = ec2.MultipartUserData()
        mime.add_part(ec2.MultipartBody.from_user_data(script))
        self.template = ec2.LaunchTemplate(
            self,
            "Template",
            user_data=mime,
            # A machine that shuts itself down is gone, and its disk with it.
            instance_initiated_shutdown_behavior=ec2.InstanceInitiatedShutdownBehavior.TERMINATE,
            require_imdsv2=True,
            http_put_response_hop_limit=2,
            instance_metadata_tags=False,
            block_devices=[
                ec2.BlockDevice(
                    device_name="/dev/xvda",
                    volume=ec2.BlockDeviceVolume.ebs(
                        disk_gib,
                        encrypted=True,
                        kms_key=key,
                        volume_type=ec2.EbsDeviceVolumeType.GP3,
                        throughput=DISK_MIB_PER_SECOND,
                        delete_on_termination=True,
                    ),
                )
            ],
            security_group=groups[0],
        )
        for group in groups[1:]:
            self.template.add_security_group(group)
        Tags.of(self.template).add("mrirecon:stage", "recon")
