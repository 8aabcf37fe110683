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


def boot_script(lustre: LustreCache | None) -> list[str]:
    """Return what a machine runs before it takes jobs.

    A machine that cannot mount the file system ends here and so never joins the cluster: a job would find
    an empty folder.
    """
    lines = [
        "set -eu",
        "mkdir -p /etc/ecs",
        "echo ECS_ENABLE_SPOT_INSTANCE_DRAINING=true >> /etc/ecs/ecs.config",
        f"echo ECS_CONTAINER_STOP_TIMEOUT={STOP_SECONDS}s >> /etc/ecs/ecs.config",
        f"install -d -m 0700 -o {USER_ID} -g {USER_ID} {SCRATCH_ON_HOST}",
    ]
    if lustre is not None:
        source = f"{lustre.dns_name}@tcp:/{lustre.mount_name}"
        lines += [
            "dnf install -y lustre-client",
            f"mkdir -p {LUSTRE_ON_HOST}",
            f"mount -t lustre -o ro,relatime,flock {source} {LUSTRE_ON_HOST} || shutdown -h now",
            f"mountpoint -q {LUSTRE_ON_HOST} || shutdown -h now",
        ]
    return lines


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
                        delete_on_termination=True,
                    ),
                )
            ],
            security_group=groups[0],
        )
        for group in groups[1:]:
            self.template.add_security_group(group)
        Tags.of(self.template).add("mrirecon:stage", "recon")
