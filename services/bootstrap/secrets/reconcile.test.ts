import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, before, beforeEach, describe, it } from 'node:test';
import { CoreV1Api, RbacAuthorizationV1Api } from '@kubernetes/client-node';
import { apiServerProgram, startApiServer, type TestApiServer } from '../testing/api-server.ts';
import { type SecretsPlan, secretsPlan } from './plan.ts';
import { reconcileSecrets } from './reconcile.ts';
import { SecretStore } from './store.ts';

const namespaces = ['test-system', 'test-data', 'test-services'];
const plan: SecretsPlan = {
  region: 'test',
  authority: { namespace: 'test-system', name: 'region-ca' },
  secrets: [
    { kind: 'authority-certificate', name: 'region-ca-cert', namespaces: ['test-data', 'test-services'] },
    {
      kind: 'password',
      name: 'postgres-role-sessions',
      username: 'sessions',
      namespaces: ['test-data', 'test-services'],
    },
    { kind: 'token', name: 'slm-api-key', namespaces: ['test-services'] },
    {
      kind: 'certificate',
      name: 'postgres-tls',
      namespaces: ['test-data'],
      commonName: 'postgres',
      dnsNames: ['postgres', 'postgres.test-data.svc'],
      usages: ['server', 'client'],
    },
    { kind: 'public-key', name: 'checkpoint-public', of: 'zz-checkpoint', namespaces: ['test-data', 'test-services'] },
    { kind: 'signing-key', name: 'zz-checkpoint', algorithm: 'Ed25519', namespaces: ['test-system'] },
  ],
};
/** What constructs/bootstrap grants: any Secret may be created, those of the plan may be read and renewed. */
function rightsIn(namespace: string) {
  const planned = plan.secrets.filter(({ namespaces }) => namespaces.includes(namespace)).map(({ name }) => name);
  const resourceNames = namespace === plan.authority.namespace ? [plan.authority.name, ...planned] : planned;
  const secrets = { apiGroups: [''], resources: ['secrets'] };
  return [
    { ...secrets, verbs: ['create'] },
    { ...secrets, verbs: ['get', 'update'], resourceNames },
  ];
}

const skip = existsSync(apiServerProgram()) ? false : `${apiServerProgram()} is not built: run make toolchain`;

describe('secrets on a real API server', { skip }, () => {
  let server: TestApiServer;
  let api: CoreV1Api;
  let store: SecretStore;

  before(async () => {
    server = await startApiServer();
    api = server.admin.makeApiClient(CoreV1Api);
    store = new SecretStore(server.bootstrap.makeApiClient(CoreV1Api));
    const rbac = server.admin.makeApiClient(RbacAuthorizationV1Api);
    for (const namespace of namespaces) {
      const rules = rightsIn(namespace);
      await api.createNamespace({ body: { metadata: { name: namespace } } });
      await rbac.createNamespacedRole({ namespace, body: { metadata: { name: 'secrets' }, rules } });
      await rbac.createNamespacedRoleBinding({
        namespace,
        body: {
          metadata: { name: 'secrets' },
          roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'secrets' },
          subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'User', name: 'bootstrap' }],
        },
      });
    }
    await api.createNamespace({ body: { metadata: { name: 'foreign' } } });
  });

  after(() => server.stop());

  beforeEach(async () => {
    for (const namespace of namespaces) await api.deleteCollectionNamespacedSecret({ namespace });
  });

  const reconcile = (wanted = plan) => reconcileSecrets(store, secretsPlan.parse(wanted));

  /** Every Secret's decoded keys, as `namespace/name` → data. */
  const everything = async () => {
    const found: Record<string, Record<string, string>> = {};
    for (const namespace of namespaces) {
      for (const { metadata, data } of (await api.listNamespacedSecret({ namespace })).items) {
        const entries = Object.entries(data ?? {});
        found[`${namespace}/${metadata?.name}`] = Object.fromEntries(
          entries.map(([key, value]) => [key, Buffer.from(value, 'base64').toString()]),
        );
      }
    }
    return found;
  };

  it('creates what is absent, then nothing', async () => {
    assert.deepEqual(await reconcile(), { created: 10, updated: 0, unchanged: 0 });
    const first = await everything();
    assert.deepEqual(Object.keys(first).sort(), [
      'test-data/checkpoint-public',
      'test-data/postgres-role-sessions',
      'test-data/postgres-tls',
      'test-data/region-ca-cert',
      'test-services/checkpoint-public',
      'test-services/postgres-role-sessions',
      'test-services/region-ca-cert',
      'test-services/slm-api-key',
      'test-system/region-ca',
      'test-system/zz-checkpoint',
    ]);
    assert.deepEqual(Object.keys(first['test-data/postgres-tls'] ?? {}).sort(), ['ca.crt', 'tls.crt', 'tls.key']);
    assert.deepEqual(Object.keys(first['test-data/region-ca-cert'] ?? {}), ['ca.crt']);
    assert.equal(first['test-data/region-ca-cert']?.['ca.crt'], first['test-system/region-ca']?.['tls.crt']);
    assert.deepEqual(first['test-data/postgres-role-sessions'], first['test-services/postgres-role-sessions']);
    assert.match(first['test-services/slm-api-key']?.token ?? '', /^[A-Za-z0-9_-]{43}$/);
    assert.deepEqual(await reconcile(), { created: 0, updated: 0, unchanged: 10 });
    assert.deepEqual(await everything(), first);
  });

  it('labels and types what it makes', async () => {
    await reconcile();
    const secret = await api.readNamespacedSecret({ namespace: 'test-data', name: 'postgres-tls' });
    assert.equal(secret.type, 'kubernetes.io/tls');
    assert.deepEqual(secret.metadata?.labels, {
      'app.kubernetes.io/name': 'postgres-tls',
      'app.kubernetes.io/instance': 'test-postgres-tls',
      'app.kubernetes.io/part-of': 'somagent',
      'app.kubernetes.io/managed-by': 'somagent',
      'somagent.dev/region': 'test',
    });
  });

  it('ends with one value when four run at once', async () => {
    const counts = await Promise.all([reconcile(), reconcile(), reconcile(), reconcile()]);
    assert.equal(
      counts.reduce((sum, { created }) => sum + created, 0),
      10,
    );
    assert.deepEqual(await reconcile(), { created: 0, updated: 0, unchanged: 10 });
  });

  it('completes a run that was killed between two namespaces from the value that exists', async () => {
    await reconcile();
    const before = await everything();
    await api.deleteNamespacedSecret({ namespace: 'test-data', name: 'postgres-role-sessions' });
    await api.deleteNamespacedSecret({ namespace: 'test-services', name: 'region-ca-cert' });
    assert.deepEqual(await reconcile(), { created: 2, updated: 0, unchanged: 8 });
    assert.deepEqual(await everything(), before);
  });

  it('repairs a copy that differs and issues anew what the plan changed', async () => {
    await reconcile();
    const before = await everything();
    const stray = { namespace: 'test-services', name: 'postgres-role-sessions' };
    await api.deleteNamespacedSecret(stray);
    await api.createNamespacedSecret({
      namespace: stray.namespace,
      body: { metadata: { name: stray.name }, stringData: { username: 'sessions', password: 'other' } },
    });
    const wider = structuredClone(plan);
    const certificate = wider.secrets[3];
    if (certificate?.kind === 'certificate') certificate.dnsNames = ['postgres', 'postgres-0'];
    assert.deepEqual(await reconcile(wider), { created: 0, updated: 2, unchanged: 8 });
    const now = await everything();
    assert.deepEqual(now['test-services/postgres-role-sessions'], before['test-services/postgres-role-sessions']);
    assert.notEqual(now['test-data/postgres-tls']?.['tls.crt'], before['test-data/postgres-tls']?.['tls.crt']);
    assert.equal(now['test-system/region-ca']?.['tls.key'], before['test-system/region-ca']?.['tls.key']);
  });

  it('keeps the private half of a signing key in one namespace and renews public halves that are not its own', async () => {
    await reconcile();
    const before = await everything();
    const key = before['test-system/zz-checkpoint'];
    assert.deepEqual(Object.keys(key ?? {}), ['private.pem', 'public.pem']);
    assert.deepEqual(before['test-data/checkpoint-public'], { 'public.pem': key?.['public.pem'] });
    assert.deepEqual(before['test-services/checkpoint-public'], { 'public.pem': key?.['public.pem'] });
    const stray = { namespace: 'test-services', name: 'checkpoint-public' };
    await api.deleteNamespacedSecret(stray);
    await api.createNamespacedSecret({
      namespace: stray.namespace,
      body: { metadata: { name: stray.name }, stringData: { 'public.pem': 'forged' } },
    });
    assert.deepEqual(await reconcile(), { created: 0, updated: 1, unchanged: 9 });
    assert.deepEqual(await everything(), before);
  });

  it('refuses a public half without its signing key', async () => {
    const orphan = { kind: 'public-key' as const, name: 'checkpoint-public', of: 'gone', namespaces: ['test-data'] };
    await assert.rejects(reconcile({ ...plan, secrets: [orphan] }), { message: 'the plan has no signing key gone' });
  });

  it('prints no value', async (t) => {
    let printed = '';
    t.mock.method(process.stdout, 'write', (text: string) => {
      printed += text;
      return true;
    });
    await reconcile();
    t.mock.restoreAll();
    assert.match(printed, /"secret created"/);
    for (const data of Object.values(await everything())) {
      for (const [key, value] of Object.entries(data)) {
        if (key !== 'username') assert.equal(printed.includes(value.trim().slice(0, 40)), false, key);
      }
    }
  });

  it('names what it may not read: a Secret of a foreign namespace, and one that is not in the plan', async () => {
    const into = (namespace: string): SecretsPlan => ({
      ...plan,
      secrets: [{ kind: 'token', name: 'stray', namespaces: [namespace] }],
    });
    await assert.rejects(reconcile(into('foreign')), {
      message: 'Secret foreign/stray: not allowed to read it',
      fix: "grant read on secrets in foreign to the Job's service account",
    });
    await assert.rejects(reconcile(into('test-data')), { message: 'Secret test-data/stray: not allowed to read it' });
  });
});
