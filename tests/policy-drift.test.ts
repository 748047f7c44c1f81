/** A bundle that nobody trusted signed is put where the services look: each says so soon, and none of them runs it. */
import assert from 'node:assert/strict';
import { createHash, generateKeyPairSync } from 'node:crypto';
import { after, before, describe, it } from 'node:test';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { compileCorpus } from '@somagent/policies/bundle/corpus.ts';
import { sealBundle } from '@somagent/policies/bundle/sign.ts';
import { currentKey, parseCurrent } from '@somagent/policy/source.ts';
import { loginAs, logout, type Person } from './attacks/world.ts';
import { get, kubectl } from './support/kubectl.ts';
import { type ObjectStoreAccess, objectStoreAs } from './support/object-store.ts';
import { address, authorityPem, call, tokenOf } from './support/session-api.ts';
import { eventually } from './support/wait.ts';

const namespace = 'local-services';
/** Every service that decides by policy, by the name of its product. */
const services = ['gateway', 'identity', 'orchestrator', 'audit', 'memory-gateway', 'analytics', 'training'];
/** The longest that a drift may stay unseen, milliseconds. */
const unseen = 5000;

interface Pods {
  readonly items: readonly {
    readonly metadata: { readonly name: string; readonly labels: Readonly<Record<string, string>> };
    readonly status: { readonly phase: string };
  }[];
}

/** What the policy check of every pod says, by the name of the pod. */
async function policies(): Promise<Map<string, string>> {
  const { items } = await get<Pods>('pods', '-n', namespace);
  const pods = items.filter(
    ({ metadata: { labels }, status }) =>
      status.phase === 'Running' && services.includes(labels['app.kubernetes.io/name'] ?? ''),
  );
  const names = pods.map(({ metadata }) => metadata.name);
  const states = names.map(async (name) => {
    const path = `/api/v1/namespaces/${namespace}/pods/${name}:8081/proxy/readyz`;
    const { checks } = JSON.parse(await kubectl('get', '--raw', path)) as { checks: Record<string, string> };
    return [name, checks.policy ?? ''] as const;
  });
  return new Map(await Promise.all(states));
}

describe('a bundle of a foreign key in the running platform', () => {
  const pointer = `/policy/${currentKey}`;
  let store: ObjectStoreAccess;
  let signed: Buffer;
  let operator: Person;

  before(async () => {
    setDefaultCACertificates([...getCACertificates('default'), await authorityPem()]);
    store = await objectStoreAs('policy-publisher');
    signed = await store.get(pointer);
    operator = await loginAs('operator-1');
  });
  after(async () => {
    await store.put(pointer, signed);
    await store[Symbol.asyncDispose]();
    await logout(operator).catch(() => undefined);
  });

  /** Puts the platform's own corpus there under a key that nobody trusts, newer than any. @returns its revision */
  async function plant(): Promise<string> {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    const planted = createHash('sha256').update(`planted ${Date.now()}`).digest('hex');
    const { archive } = await sealBundle(compileCorpus(), privateKey, Math.floor(Date.now() / 1000) + 60);
    const key = `bundles/${planted}.tar.gz`;
    await store.put(`/policy/${key}`, archive);
    await store.put(pointer, Buffer.from(`${JSON.stringify({ revision: planted, key })}\n`));
    return planted;
  }

  it('is seen by every service in 5 s, run by none, and recorded; the signed one ends it', async (context) => {
    const running = parseCurrent(signed).revision.slice(0, 12);
    const before = await policies();
    const missing = services.filter((service) => ![...before.keys()].some((pod) => pod.startsWith(`${service}-`)));
    assert.deepEqual(missing, []);
    assert.deepEqual([...new Set(before.values())], [`ok: revision ${running}`]);

    const began = performance.now();
    const planted = await plant();
    await eventually('every service sees the drift', 30, async () => {
      const said = await policies();
      return [...said.values()].every((state) => state.includes(', drift: ')) || undefined;
    });
    const took = performance.now() - began;
    context.diagnostic(`${before.size} pods said so within ${Math.round(took)} ms of the upload`);
    assert.ok(took < unseen, `${took} ms`);
    for (const state of (await policies()).values())
      assert.match(state, new RegExp(`^ok: revision ${running}, drift: `));
    assert.equal((await call('/v1/sessions', { token: await tokenOf('acme-agent') })).status, 200);

    await store.put(pointer, signed);
    await eventually('the drift ends', 30, async () => {
      const said = await policies();
      return [...said.values()].every((state) => state === `ok: revision ${running}`) || undefined;
    });
    await eventually('the audit log tells of it', 60, () => recorded(planted));
  });

  /** Whether the audit log has the drift to that revision, from each service. */
  async function recorded(planted: string): Promise<true | undefined> {
    const headers = { authorization: `Bearer ${operator.access}` };
    const found = new Set<string>();
    for (let from: number | null = 0; from !== null; ) {
      const query: string = `topic=audit.control&limit=500&from=${from}`;
      const response = await fetch(`${address('SOMA_AUDIT_URL', 'auditUrl')}/v1/audit/entries?${query}`, { headers });
      assert.equal(response.status, 200, await response.clone().text());
      const page = (await response.json()) as { entries: { leaf: string }[]; next: number | null };
      for (const { leaf } of page.entries) {
        const { type, data } = JSON.parse(leaf).event;
        if (type === 'policy.drifted' && data.signed === planted) found.add(data.service);
      }
      from = page.next;
    }
    return services.every((service) => found.has(service)) || undefined;
  }
});
