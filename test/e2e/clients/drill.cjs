// The main flows with the AWS SDK for JavaScript, which finds the endpoint in
// AWS_ENDPOINT_URL. It expects one source server that is ready, leaves nothing
// behind, and prints what it saw as JSON.
//
// The SDK is not part of the repository: CLIENT_MODULES names the folder that
// scripts/setup.sh installed it into.
"use strict";
const assert = require("node:assert/strict");
const { createRequire } = require("node:module");
const path = require("node:path");

const sdk = createRequire(path.join(process.env.CLIENT_MODULES, "package.json"))("@aws-sdk/client-drs");
const drs = new sdk.DrsClient({ endpoint: process.env.AWS_ENDPOINT_URL, maxAttempts: 1 });
const call = (name, input = {}) => drs.send(new sdk[name + "Command"](input));

async function every(name, input = {}) {
  const items = [];
  for await (const page of sdk["paginate" + name]({ client: drs, pageSize: 1 }, input)) items.push(...page.items);
  return items;
}

async function wait(what, look) {
  const deadline = Date.now() + 180_000;
  while (Date.now() < deadline) {
    const seen = await look();
    if (seen) return seen;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  throw new Error("gave up waiting for " + what);
}

const completed = (jobID) =>
  wait("job " + jobID, async () => (await every("DescribeJobs", { filters: { jobIDs: [jobID] } })).find((j) => j.status === "COMPLETED"));

async function main() {
  await call("InitializeService");
  const [server] = await every("DescribeSourceServers");
  const sourceServerID = server.sourceServerID;
  assert.ok((await every("DescribeRecoverySnapshots", { sourceServerID })).length > 0);

  // A source network of the server's own, and the drill goes there.
  const vpcID = "vpc-0123456789abcdef0";
  const { sourceNetworkID } = await call("CreateSourceNetwork", { vpcID, originAccountID: "111122223333", originRegion: "eu-west-1" });
  await assert.rejects(call("CreateSourceNetwork", { vpcID, originAccountID: "111122223333", originRegion: "eu-west-1" }), sdk.ConflictException);
  await call("TagResource", { resourceArn: server.arn, tags: { "lifeboat:source-network": sourceNetworkID } });
  await call("StartSourceNetworkReplication", { sourceNetworkID });
  const network = await call("StartSourceNetworkRecovery", { sourceNetworks: [{ sourceNetworkID, cfnStackName: "drill" }] });
  assert.equal(network.job.initiatedBy, "CREATE_NETWORK_RECOVERY");
  await completed(network.job.jobID);
  const [recovered] = await every("DescribeSourceNetworks", { filters: { sourceNetworkIDs: [sourceNetworkID] } });
  assert.equal(recovered.replicationStatus, "PROTECTED");
  assert.equal(recovered.cfnStackName, "drill");
  assert.equal(recovered.lastRecovery.lastRecoveryResult, "SUCCESS");
  assert.ok(recovered.lastRecovery.apiCallDateTime instanceof Date);
  const { s3DestinationUrl } = await call("ExportSourceNetworkCfnTemplate", { sourceNetworkID });

  // The drill.
  const { job } = await call("StartRecovery", { isDrill: true, sourceServers: [{ sourceServerID }], tags: { drill: "js" } });
  assert.equal(job.initiatedBy, "START_DRILL");
  const done = await completed(job.jobID);
  assert.equal(done.participatingServers[0].launchStatus, "LAUNCHED");
  const events = (await every("DescribeJobLogItems", { jobID: job.jobID })).map((line) => line.event);
  assert.equal(events.at(-1), "JOB_END");
  const [instance] = await every("DescribeRecoveryInstances", { filters: { sourceServerIDs: [sourceServerID] } });
  assert.equal(instance.ec2InstanceState, "RUNNING");
  const end = await call("TerminateRecoveryInstances", { recoveryInstanceIDs: [instance.recoveryInstanceID] });
  await completed(end.job.jobID);
  assert.deepEqual(await every("DescribeRecoveryInstances"), []);

  // Configurations, templates and refusals.
  const launch = await call("UpdateLaunchConfiguration", { sourceServerID, launchDisposition: "STOPPED" });
  assert.equal(launch.launchDisposition, "STOPPED");
  await call("UpdateLaunchConfiguration", { sourceServerID, launchDisposition: "STARTED" });
  await assert.rejects(call("GetLaunchConfiguration", { sourceServerID: "s-00000000000000000" }), sdk.ResourceNotFoundException);
  await assert.rejects(call("DescribeJobs", { maxResults: 0 }), (refused) => {
    assert.ok(refused instanceof sdk.ValidationException);
    assert.equal(refused.fieldList[0].name, "maxResults");
    return true;
  });

  await call("StopSourceNetworkReplication", { sourceNetworkID });
  await call("DeleteSourceNetwork", { sourceNetworkID });
  await call("UntagResource", { resourceArn: server.arn, tagKeys: ["lifeboat:source-network"] });
  console.log(JSON.stringify({ server: sourceServerID, events, network: instance.recoveryInstanceProperties, template: s3DestinationUrl }));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
