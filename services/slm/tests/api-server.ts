/**
 * A real API server for the tests of workload identity: prints one line of JSON with its address, its authority and
 * tokens of ServiceAccounts, and ends with its standard input.
 */
import { CoreV1Api } from '@kubernetes/client-node';
import { startApiServer } from '../../bootstrap/testing/api-server.ts';

const namespace = 'local-services';
const server = await startApiServer();
const core = server.admin.makeApiClient(CoreV1Api);
await core.createNamespace({ body: { metadata: { name: namespace } } });

async function tokenOf(name: string, audiences: string[]): Promise<string> {
  const spec = { audiences, expirationSeconds: 600 };
  const { status } = await core.createNamespacedServiceAccountToken({ name, namespace, body: { spec } });
  return status?.token ?? '';
}

for (const name of ['orchestrator', 'stranger', 'slm']) {
  await core.createNamespacedServiceAccount({ namespace, body: { metadata: { name } } });
}
const cluster = server.admin.getCurrentCluster();
const described = {
  url: cluster?.server,
  authority: Buffer.from(cluster?.caData ?? '', 'base64').toString(),
  own: await tokenOf('slm', []),
  good: await tokenOf('orchestrator', ['somagent-slm']),
  foreign: await tokenOf('orchestrator', ['somagent-identity']),
  stranger: await tokenOf('stranger', ['somagent-slm']),
};
process.stdout.write(`${JSON.stringify(described)}\n`);
process.stdin.on('end', () => void server.stop()).resume();
