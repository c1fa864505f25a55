"""A drill as the user guide of AWS Elastic Disaster Recovery describes it, with boto3.

Nothing in it knows Lifeboat but the endpoint, which is read from AWS_ENDPOINT_URL
(newer versions of boto3 read it themselves). It expects one source server, leaves
nothing behind and prints what it saw as JSON.
"""

import datetime
import json
import os
import sys
import time

import boto3

PATIENCE = 180  # seconds for every wait

drs = boto3.client("drs", endpoint_url=os.environ["AWS_ENDPOINT_URL"])


def wait(what, look):
    """Looks again and again until there is something to see."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        seen = look()
        if seen:
            return seen
        time.sleep(0.2)
    sys.exit(f"gave up waiting for {what}")


def every(operation, **request):
    """All items of a listing, over all its pages."""
    pages = drs.get_paginator(operation).paginate(PaginationConfig={"PageSize": 1}, **request)
    return [item for page in pages for item in page["items"]]


def completed(job_id):
    """The job, once it has ended."""
    jobs = every("describe_jobs", filters={"jobIDs": [job_id]})
    return jobs[0] if jobs and jobs[0]["status"] == "COMPLETED" else None


# Set up: initialize the account, and a default replication template.
drs.initialize_service()
if not every("describe_replication_configuration_templates"):
    drs.create_replication_configuration_template(
        associateDefaultSecurityGroup=True,
        bandwidthThrottling=0,
        createPublicIP=False,
        dataPlaneRouting="PRIVATE_IP",
        defaultLargeStagingDiskType="GP3",
        ebsEncryption="DEFAULT",
        replicationServerInstanceType="t3.small",
        replicationServersSecurityGroupsIDs=[],
        stagingAreaSubnetId="subnet-0123456789abcdef0",
        stagingAreaTags={},
        useDedicatedReplicationServer=False,
        pitPolicy=[
            {"ruleID": 1, "units": "MINUTE", "interval": 10, "retentionDuration": 60, "enabled": True},
            {"ruleID": 2, "units": "HOUR", "interval": 1, "retentionDuration": 24, "enabled": True},
            {"ruleID": 3, "units": "DAY", "interval": 1, "retentionDuration": 7, "enabled": True},
        ],
    )

# Ready for recovery: the dashboard's "Healthy", and a point in time to go back to.
server = wait(
    "a healthy source server",
    lambda: next(
        (
            s
            for s in every("describe_source_servers")
            if s["dataReplicationInfo"]["dataReplicationState"] == "CONTINUOUS"
        ),
        None,
    ),
)
server_id = server["sourceServerID"]
points = wait(
    "a recovery snapshot",
    lambda: every("describe_recovery_snapshots", sourceServerID=server_id, order="DESC"),
)

# Launch settings.
before = drs.get_launch_configuration(sourceServerID=server_id)
settings = drs.update_launch_configuration(
    sourceServerID=server_id, copyTags=True, launchDisposition="STARTED", targetInstanceTypeRightSizingMethod="NONE"
)
assert settings["copyTags"] is True, settings
assert settings["name"] == before["name"], (before, settings)
drs.tag_resource(resourceArn=server["arn"], tags={"owner": "harbour office"})
assert drs.list_tags_for_resource(resourceArn=server["arn"])["tags"]["owner"] == "harbour office"

# Initiate the drill from a point in time.
job = drs.start_recovery(
    isDrill=True,
    sourceServers=[{"sourceServerID": server_id, "recoverySnapshotID": points[0]["snapshotID"]}],
    tags={"drill": "quarterly"},
)["job"]
assert job["type"] == "LAUNCH" and job["initiatedBy"] == "START_DRILL" and job["status"] == "PENDING", job

# One job at a time: what a second one is told.
try:
    drs.start_recovery(isDrill=True, sourceServers=[{"sourceServerID": server_id}])
    # The first was done already, which is no fault.
except drs.exceptions.ConflictException as refused:
    assert refused.response["ResponseMetadata"]["HTTPStatusCode"] == 409, refused.response

done = wait("the drill", lambda: completed(job["jobID"]))
assert done["participatingServers"][0]["launchStatus"] in ("LAUNCHED", "TERMINATED"), done
for other in wait("all jobs", lambda: (jobs := every("describe_jobs")) and all(j["status"] == "COMPLETED" for j in jobs) and jobs):
    assert other["endDateTime"] >= other["creationDateTime"], other
events = [line["event"] for line in every("describe_job_log_items", jobID=job["jobID"])]
assert events[0] == "JOB_START" and events[-1] == "JOB_END" and "LAUNCH_START" in events, events

# Verify the drill instance, and what the server says of its last launch.
instance = wait(
    "the drill instance",
    lambda: next((i for i in every("describe_recovery_instances", filters={"sourceServerIDs": [server_id]})), None),
)
assert instance["isDrill"] is True and instance["ec2InstanceState"] == "RUNNING", instance
assert instance["tags"]["owner"] == "harbour office", instance["tags"]
server = every("describe_source_servers", filters={"sourceServerIDs": [server_id]})[0]
launch = server["lifeCycle"]["lastLaunch"]
assert server["lastLaunchResult"] == "SUCCEEDED" and launch["initiated"]["type"] == "DRILL", server
age = datetime.datetime.now(datetime.timezone.utc) - datetime.datetime.fromisoformat(
    launch["initiated"]["apiCallDateTime"].replace("Z", "+00:00")
)
assert age < datetime.timedelta(minutes=30), age

# Clean up: a drill instance that is forgotten costs.
ended = drs.terminate_recovery_instances(recoveryInstanceIDs=[instance["recoveryInstanceID"]])["job"]
assert ended["type"] == "TERMINATE", ended
wait("the end of the drill instance", lambda: completed(ended["jobID"]))
assert every("describe_recovery_instances") == []
drs.delete_job(jobID=ended["jobID"])
assert every("describe_jobs", filters={"jobIDs": [ended["jobID"]]}) == []
drs.untag_resource(resourceArn=server["arn"], tagKeys=["owner"])

# What unknown names are told.
try:
    drs.get_launch_configuration(sourceServerID="s-00000000000000000")
    sys.exit("an unknown server has a launch configuration")
except drs.exceptions.ResourceNotFoundException as refused:
    assert refused.response["resourceId"] == "s-00000000000000000", refused.response

json.dump({"server": server_id, "events": events, "boto3": boto3.__version__}, sys.stdout)
