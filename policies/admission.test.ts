import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { cpSync, existsSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { AdmissionregistrationV1Api, CoreV1Api, type V1Pod } from '@kubernetes/client-node';
import { freePort } from '@somagent/bootstrap/testing/processes.ts';
import { fetchTrusting } from '@somagent/kit';
import { createAuthority, issueCertificate } from '../services/bootstrap/secrets/certificates.ts';
import { apiServerProgram, startApiServer, type TestApiServer } from '../services/bootstrap/testing/api-server.ts';
import { waitFor } from '../services/bootstrap/wait.ts';
import { opaPath, stageCorpus } from './bundle/corpus.ts';

const review = '/v0/data/soma/deploy/admission/review';
const missing = [opaPath(), apiServerProgram()].find((program) => !existsSync(program));
const skip = missing === undefined ? false : `${missing} is not built: run make toolchain`;

const good: V1Pod = {
  metadata: { name: 'probe' },
  spec: {
    automountServiceAccountToken: false,
    securityContext: { runAsNonRoot: true, runAsUser: 10001, seccompProfile: { type: 'RuntimeDefault' } },
    containers: [
      {
        name: 'probe',
        image: 'localhost:5000/somagent/node:0123456789',
        resources: { requests: { cpu: '10m', memory: '16Mi' }, limits: { memory: '32Mi' } },
        securityContext: {
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ['ALL'] },
        },
      },
    ],
  },
};

const changed = (change: (container: NonNullable<V1Pod['spec']>['containers'][0]) => void): V1Pod => {
  const pod = structuredClone(good);
  for (const container of pod.spec?.containers ?? []) change(container);
  return pod;
};

/** As constructs/opa runs them: the image's folder, TLS, authorization, the registry of the environment. */
describe('admission by a real OPA at a real API server', { skip }, () => {
  let server: TestApiServer;
  let api: CoreV1Api;
  let opa: ChildProcess;
  let folder: string;
  let port: number;

  before(async () => {
    folder = stageCorpus();
    cpSync(join(import.meta.dirname, '../images/opa/policies/system'), join(folder, 'system'), { recursive: true });
    const authority = await createAuthority('SomaGent test');
    await writeTls(folder, authority);
    writeFileSync(join(folder, 'environment.json'), JSON.stringify({ registries: ['localhost:5000'] }));
    port = await freePort();
    opa = startOpa(folder, port);
    const get = fetchTrusting(join(folder, 'ca.crt'));
    await waitFor({ name: 'OPA', address: `127.0.0.1:${port}`, fix: 'start it by hand' }, () => alive(get, port), {
      seconds: 30,
    });
    server = await startApiServer();
    api = server.admin.makeApiClient(CoreV1Api);
    for (const [name, region] of [
      ['north-services', 'north'],
      ['elsewhere', undefined],
    ] as const) {
      const labels = region === undefined ? {} : { 'somagent.dev/region': region };
      await api.createNamespace({ body: { metadata: { name, labels } } });
      // No controller makes the account that every pod must have.
      await api.createNamespacedServiceAccount({ namespace: name, body: { metadata: { name: 'default' } } });
    }
    await register(server, port, authority.certificate);
  });

  after(async () => {
    await server?.stop();
    opa?.kill('SIGKILL');
    rmSync(folder, { recursive: true });
  });

  const create = (pod: V1Pod, namespace = 'north-services') =>
    api.createNamespacedPod({ namespace, body: pod, dryRun: 'All' });

  it('admits a pod that keeps every rule', async () => {
    const pod = await create(good);
    assert.equal(pod.metadata?.name, 'probe');
  });

  it('refuses a privileged pod in the words of the rule', async () => {
    const privileged = changed((container) => {
      container.securityContext = { ...container.securityContext, privileged: true, allowPrivilegeEscalation: true };
    });
    await assert.rejects(create(privileged), (error: { code: number; body: string }) => {
      assert.equal(error.code, 403);
      const { message } = JSON.parse(error.body);
      assert.match(message, /admission webhook "deploy\.policy\.somagent\.dev" denied the request/);
      assert.match(
        message,
        /soma\.deploy\.deny_escalation: Pod probe container probe lacks allowPrivilegeEscalation: false/,
      );
      assert.match(message, /Pod probe container probe is privileged/);
      return true;
    });
  });

  it('refuses an image of another registry, though the platform knows it', async () => {
    const foreign = changed((container) => {
      container.image = 'registry.example.com/somagent/node:1';
    });
    await assert.rejects(create(foreign), (error: { body: string }) => /deny_registry/.test(error.body));
  });

  it('leaves namespaces of others alone', async () => {
    const open = changed((container) => {
      container.securityContext = { privileged: true };
    });
    assert.equal((await create(open, 'elsewhere')).metadata?.name, 'probe');
  });

  it('shows its policies to nobody and lets nobody change them', async () => {
    const ask = fetchTrusting(join(folder, 'ca.crt'));
    const at = (path: string) => `https://127.0.0.1:${port}${path}`;
    for (const [method, path] of [
      ['GET', '/v1/policies'],
      ['GET', '/v1/data'],
      ['PUT', '/v1/policies/deploy/deploy.rego'],
      ['DELETE', '/v1/policies/deploy/deploy.rego'],
      ['PUT', '/v1/data/environment'],
      ['POST', '/v1/data/soma/gateway/verdict'],
      ['POST', '/v0/data/facts'],
      ['POST', '/'],
      ['GET', '/metrics'],
      ['GET', `${review}/response`],
    ] as const) {
      const body = method === 'GET' || method === 'DELETE' ? {} : { body: '{}' };
      const response = await ask(at(path), { method, ...body });
      assert.deepEqual([method, path, response.status], [method, path, 401]);
    }
    assert.equal((await ask(at('/health'))).status, 200);
  });

  it('lets nothing in while OPA is away', async () => {
    opa.kill('SIGKILL');
    await assert.rejects(create(good), (error: { code: number; body: string }) =>
      /failed calling webhook/.test(error.body),
    );
  });
});

async function writeTls(folder: string, authority: Awaited<ReturnType<typeof createAuthority>>): Promise<void> {
  const request = {
    commonName: 'opa',
    dnsNames: ['localhost'],
    ipAddresses: ['127.0.0.1'],
    usages: ['server'],
  } as const;
  const leaf = await issueCertificate(authority, request);
  writeFileSync(join(folder, 'ca.crt'), authority.certificate);
  writeFileSync(join(folder, 'tls.crt'), leaf.certificate);
  writeFileSync(join(folder, 'tls.key'), leaf.key, { mode: 0o600 });
}

function startOpa(folder: string, port: number): ChildProcess {
  const tls = ['--tls-cert-file', 'tls.crt', '--tls-private-key-file', 'tls.key'];
  const rooms = ['deploy', 'system', 'facts:facts/data.json', 'environment:environment.json'];
  const flags = [
    '--addr',
    `127.0.0.1:${port}`,
    ...tls,
    '--authorization',
    'basic',
    '--skip-version-check',
    '--log-level',
    'error',
  ];
  return spawn(opaPath(), ['run', '--server', ...flags, ...rooms], { cwd: folder, stdio: 'ignore' });
}

async function alive(get: typeof fetch, port: number): Promise<void> {
  const { status } = await get(`https://127.0.0.1:${port}/health`);
  if (status !== 200) throw new Error(`answered ${status}`);
}

async function register(server: TestApiServer, port: number, authority: string): Promise<void> {
  const configuration = server.admin.makeApiClient(AdmissionregistrationV1Api);
  const rule = { apiGroups: [''], apiVersions: ['v1'], resources: ['pods'], operations: ['CREATE', 'UPDATE'] };
  await configuration.createValidatingWebhookConfiguration({
    body: {
      metadata: { name: 'somagent-test' },
      webhooks: [
        {
          name: 'deploy.policy.somagent.dev',
          admissionReviewVersions: ['v1'],
          sideEffects: 'None',
          failurePolicy: 'Fail',
          namespaceSelector: { matchLabels: { 'somagent.dev/region': 'north' } },
          matchConditions: [{ name: 'not-being-deleted', expression: '!has(object.metadata.deletionTimestamp)' }],
          rules: [rule],
          clientConfig: {
            url: `https://127.0.0.1:${port}${review}`,
            caBundle: Buffer.from(authority).toString('base64'),
          },
        },
      ],
    },
  });
  const api = server.admin.makeApiClient(CoreV1Api);
  // The API server takes the configuration over within a second or two.
  const inForce = async () => {
    const pod = changed((container) => {
      container.securityContext = { privileged: true };
    });
    const outcome: unknown = await api
      .createNamespacedPod({ namespace: 'north-services', body: pod, dryRun: 'All' })
      .catch((error: unknown) => error);
    const said = outcome instanceof Error ? outcome.message : 'it was created';
    if (!said.includes('webhook')) throw new Error(`the webhook is not in force yet: ${said}`);
  };
  await waitFor({ name: 'the webhook', address: 'kube-apiserver', fix: 'read its log' }, inForce, { seconds: 30 });
}
