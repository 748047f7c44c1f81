/** A renewed certificate is served without a restart: the pods stay, their sessions go on. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { get, kubectl, kubectlWith } from './support/kubectl.ts';
import { eventually } from './support/wait.ts';

const namespace = 'local-data';
const pod = 'postgres-0';

interface Pod {
  readonly metadata: { readonly uid: string };
  readonly status: { readonly containerStatuses: readonly { readonly restartCount: number }[] };
}

interface CronJob {
  readonly spec: { readonly jobTemplate: { readonly metadata: { readonly labels: object }; readonly spec: object } };
}

/** SHA-256 of the certificate that Postgres shows to a client. */
async function served(): Promise<string> {
  const client = 'openssl s_client -starttls postgres -connect 127.0.0.1:5432 </dev/null 2>/dev/null';
  const fingerprint = `${client} | openssl x509 -noout -fingerprint -sha256`;
  return kubectl('exec', '-n', namespace, pod, '--', 'sh', '-c', fingerprint);
}

async function instance(): Promise<readonly [string, number | undefined]> {
  const { metadata, status } = await get<Pod>('pod', pod, '-n', namespace);
  return [metadata.uid, status.containerStatuses[0]?.restartCount];
}

/**
 * What the nightly Job does with a certificate past two thirds of its life, it does with one that is gone as well. Pods
 * keep the files of a Secret that is gone.
 */
async function renew(secret: string): Promise<void> {
  const job = `renewal-probe-${Date.now()}`;
  await kubectl('delete', 'secret', secret, '-n', namespace);
  const { spec } = await get<CronJob>('cronjob', 'bootstrap-renewal', '-n', 'local-system');
  // Without an owner: the CronJob would clear it away before it was seen to be complete.
  const metadata = { name: job, namespace: 'local-system', labels: spec.jobTemplate.metadata.labels };
  await kubectlWith(
    { apiVersion: 'batch/v1', kind: 'Job', metadata, spec: spec.jobTemplate.spec },
    'create',
    '-f',
    '-',
  );
  await kubectl('wait', '-n', 'local-system', '--for=condition=Complete', `job/${job}`, '--timeout=120s');
  await kubectl('delete', 'job', job, '-n', 'local-system');
}

test('Postgres serves a renewed certificate, and no pod restarts for it', { timeout: 360_000 }, async (t) => {
  const [before, pods] = [await served(), await instance()];
  assert.match(before, /^sha256 Fingerprint=[0-9A-F:]{95}$/i);
  await renew('postgres-tls');
  const started = performance.now();
  const after = await eventually('the new certificate', 180, async () => {
    const now = await served();
    return now === before ? undefined : now;
  });
  t.diagnostic(`served ${((performance.now() - started) / 1000).toFixed(0)} s after its renewal`);
  assert.notEqual(after, before);
  assert.deepEqual(await instance(), pods);
});
