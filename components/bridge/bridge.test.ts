import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as kubernetes from '@pulumi/kubernetes';
import * as pulumi from '@pulumi/pulumi';
import { plan } from '@somagent/stacks/runner/index.ts';
import type { RegisteredObject } from '@somagent/stacks/runner/monitor.ts';
import { ApiObject, App, Chart, JsonPatch } from 'cdk8s';
import { k8s } from 'cdk8s-plus-33';
import fc from 'fast-check';
import { bridgeApp, ChartDeployment, logicalName, type Manifest, synthesize, typeToken } from './index.ts';

// A provider would take it for its own: what is planned must not depend on the shell.
delete process.env.KUBECONFIG;

const run = { project: 'somagent', stack: 'test', config: {} };

/** Bridges one chart and returns what the SDK registered. */
async function bridged(build: (chart: Chart) => void): Promise<readonly RegisteredObject[]> {
  const program = async (): Promise<object> => {
    const chart = new Chart(bridgeApp(), 'chart', { namespace: 'here' });
    build(chart);
    const provider = new kubernetes.Provider('region', { context: 'a-context' });
    new ChartDeployment('parent', { chart }, { provider });
    return {};
  };
  return (await plan(program, run)).objects;
}

/** Stands in a tree of plain values where an Output or a secret will be. */
class Mark {
  readonly value: unknown;
  readonly secret: boolean;
  constructor(value: unknown, secret: boolean) {
    this.value = value;
    this.secret = secret;
  }
}

const key = fc.stringMatching(/^[a-z][a-zA-Z]{0,8}$/).map((text) => `x${text}`);
const leaf = fc.oneof(fc.string({ maxLength: 12 }), fc.integer(), fc.boolean());
const { tree } = fc.letrec<{ tree: unknown }>((tie) => ({
  tree: fc.oneof(
    { maxDepth: 4, depthSize: 'small' },
    leaf,
    fc.tuple(leaf, fc.boolean()).map(([value, secret]) => new Mark(value, secret)),
    fc.dictionary(key, leaf, { maxKeys: 2, noNullPrototype: true }).map((value) => new Mark(value, false)),
    fc.dictionary(key, tie('tree'), { maxKeys: 4, noNullPrototype: true }),
    fc.array(tie('tree'), { maxLength: 3 }),
  ),
}));

/** The tree with Outputs in place of marks. */
function withOutputs(value: unknown): unknown {
  if (value instanceof Mark) return value.secret ? pulumi.secret(value.value) : pulumi.output(value.value);
  if (Array.isArray(value)) return value.map(withOutputs);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, withOutputs(item)]));
}

/** What must arrive: marks resolved, and the paths of the secret ones. */
function expected(value: unknown, path: string, secrets: string[]): unknown {
  if (value instanceof Mark) {
    if (value.secret) secrets.push(path);
    return value.value;
  }
  if (Array.isArray(value)) return value.map((item, index) => expected(item, `${path}.${index}`, secrets));
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(
    Object.entries(value).map(([name, item]) => [name, expected(item, `${path}.${name}`, secrets)]),
  );
}

test('any tree with Outputs and secrets arrives as it was, secrets as secrets', async () => {
  await fc.assert(
    fc.asyncProperty(fc.dictionary(key, tree, { minKeys: 1, maxKeys: 4, noNullPrototype: true }), async (spec) => {
      const [object] = await bridged((chart) => {
        const props = {
          apiVersion: 'example.com/v1',
          kind: 'Thing',
          metadata: { name: 'thing' },
          spec: withOutputs(spec),
        };
        new ApiObject(chart, 'thing', props);
      });
      const secrets: string[] = [];
      assert.deepEqual(object?.manifest['spec'], expected(spec, 'spec', secrets));
      assert.deepEqual([...(object?.secrets ?? [])].sort(), secrets.sort());
    }),
    { numRuns: 60 },
  );
});

const name = fc.stringMatching(/^[a-z]([-a-z0-9]{0,8}[a-z0-9])?$/);
const identity = fc.record({
  apiVersion: fc.constantFrom('v1', 'apps/v1', 'batch/v1', 'rbac.authorization.k8s.io/v1', 'kafka.strimzi.io/v1'),
  kind: fc.constantFrom('ConfigMap', 'Deployment', 'Job', 'Role', 'Kafka'),
  namespace: name,
  name,
});

test('every object is registered once, under its token, with the provider of its region', async () => {
  const distinct = fc.uniqueArray(identity, { minLength: 1, maxLength: 12, selector: (id) => JSON.stringify(id) });
  await fc.assert(
    fc.asyncProperty(distinct, async (identities) => {
      const objects = await bridged((chart) => {
        for (const [index, { namespace, name: own, ...type }] of identities.entries()) {
          new ApiObject(chart, `object-${index}`, { ...type, metadata: { namespace, name: own } });
        }
      });
      assert.equal(objects.length, identities.length);
      assert.equal(new Set(objects.map(({ urn }) => urn)).size, identities.length);
      for (const { urn, manifest, provider } of objects) {
        assert.deepEqual(provider, { name: 'region', context: 'a-context' });
        const type = urn.split('::')[2]?.split('$').at(-1);
        assert.equal(type, typeToken(manifest));
        assert.equal(urn.split('::')[3], logicalName('parent', manifest));
      }
    }),
    { numRuns: 40 },
  );
});

test('type tokens are those of the provider', () => {
  const tokens: [string, string, string][] = [
    ['v1', 'ConfigMap', 'kubernetes:core/v1:ConfigMap'],
    ['apps/v1', 'Deployment', 'kubernetes:apps/v1:Deployment'],
    ['rbac.authorization.k8s.io/v1', 'Role', 'kubernetes:rbac.authorization.k8s.io/v1:Role'],
    ['kafka.strimzi.io/v1', 'Kafka', 'kubernetes:kafka.strimzi.io/v1:Kafka'],
  ];
  for (const [apiVersion, kind, token] of tokens) assert.equal(typeToken({ apiVersion, kind }), token);
});

test('names differ whenever parent, kind, namespace or name do', () => {
  const part = fc.stringMatching(/^[a-z:%]{1,6}$/);
  const manifest = fc.record({ kind: fc.constantFrom('Role', 'Job'), namespace: name, name: part });
  fc.assert(
    fc.property(manifest, manifest, (left, right) => {
      const named = ({ kind, ...metadata }: typeof left) => logicalName('p', { apiVersion: 'v1', kind, metadata });
      assert.equal(named(left) === named(right), JSON.stringify(left) === JSON.stringify(right));
      assert.equal(named(left).includes('::'), false);
    }),
  );
});

test('an Output inside a number-or-text union of cdk8s is kept', async () => {
  const [object] = await bridged((chart) => {
    new k8s.KubeService(chart, 'service', {
      metadata: { name: 'service' },
      spec: { ports: [{ port: 1, targetPort: k8s.IntOrString.fromString(pulumi.output('http') as never) }] },
    });
  });
  const spec = object?.manifest['spec'] as { ports: { targetPort: unknown }[] };
  assert.equal(spec.ports[0]?.targetPort, 'http');
});

test('an Output that was made into text is refused with its place and the way out', () => {
  const build = (value: unknown) => {
    const chart = new Chart(bridgeApp(), 'chart');
    new ApiObject(chart, 'config', {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'config' },
      data: { url: value },
    } as never);
    return () => synthesize(chart);
  };
  const message = /data\.url of v1 ConfigMap config .*pulumi\.interpolate/;
  assert.throws(build(`https://${pulumi.output('host')}`), message);
  assert.throws(build(JSON.stringify({ host: pulumi.output('host') })), message);
});

test('an Output that a patch brings in is refused rather than corrupted', () => {
  const chart = new Chart(bridgeApp(), 'chart');
  const object = new ApiObject(chart, 'config', {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: 'config' },
    data: { a: 'b' },
  } as never);
  object.addJsonPatch(JsonPatch.replace('/data/a', pulumi.output('c')));
  assert.throws(() => synthesize(chart), /data\.a of v1 ConfigMap config/);
});

test('a name that is an Output is refused', () => {
  const chart = new Chart(bridgeApp(), 'chart');
  new ApiObject(chart, 'config', {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name: pulumi.output('x') as never },
  });
  assert.throws(() => synthesize(chart), /metadata\.name of ConfigMap 'chart\/config' is a pulumi\.Output/);
});

test('a chart outside a bridge App is refused', () => {
  assert.throws(() => synthesize(new Chart(new App(), 'chart')), /create it with bridgeApp\(\)/);
});

test('one object declared twice in a chart is refused, naming both', () => {
  const chart = new Chart(bridgeApp(), 'chart');
  for (const id of ['one', 'two'])
    new ApiObject(chart, id, { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'same' } });
  assert.throws(() => synthesize(chart), /'chart\/one' and by 'chart\/two'/);
});

const object = (chart: Chart, kind: string, id: string, apiVersion = 'v1') =>
  new ApiObject(chart, id, { apiVersion, kind, metadata: { name: id } });

test('a workload waits for its rights, configuration and policies, and not for Services', async () => {
  const order = await bridged((chart) => {
    object(chart, 'Deployment', 'app', 'apps/v1');
    object(chart, 'Service', 'service');
    object(chart, 'ConfigMap', 'config');
    object(chart, 'Namespace', 'here');
  });
  const kinds = order.map(({ manifest }) => manifest.kind);
  assert.equal(kinds[0], 'Namespace');
  assert.equal(kinds.indexOf('ConfigMap') < kinds.indexOf('Deployment'), true);
});

test('dependencies between constructs order objects, a circle is refused', async () => {
  const build = (chart: Chart) => {
    const second = object(chart, 'Job', 'second', 'batch/v1');
    const first = object(chart, 'Job', 'first', 'batch/v1');
    second.addDependency(first);
    return { first, second };
  };
  const order = await bridged(build);
  assert.deepEqual(
    order.map(({ manifest }) => manifest.metadata.name),
    ['first', 'second'],
  );
  const circle = (chart: Chart) => {
    const { first, second } = build(chart);
    first.addDependency(second);
  };
  await assert.rejects(bridged(circle), /in a circle: 'chart\/second' -> 'chart\/first' -> 'chart\/second'/);
});

test('a transform changes an object but not its identity', async () => {
  const deploy = (transform: (manifest: Manifest) => Manifest) => async (): Promise<object> => {
    const chart = new Chart(bridgeApp(), 'chart');
    object(chart, 'ConfigMap', 'config');
    new ChartDeployment('parent', { chart, transform }, { provider: new kubernetes.Provider('region', {}) });
    return {};
  };
  const { objects } = await plan(
    deploy((manifest) => ({ ...manifest, data: { a: 'b' } })),
    run,
  );
  assert.deepEqual(objects[0]?.manifest['data'], { a: 'b' });
  const renamed = deploy((manifest) => ({ ...manifest, metadata: { name: 'other' } }));
  await assert.rejects(plan(renamed, run), /identity must stay/);
});

test('without an explicit provider the object is refused', async () => {
  const chart = new Chart(bridgeApp(), 'chart');
  object(chart, 'ConfigMap', 'config');
  const program = async (): Promise<object> => {
    new ChartDeployment('parent', { chart }, {} as never);
    return {};
  };
  await assert.rejects(plan(program, run), /v1 ConfigMap config has no explicit provider/);
});
