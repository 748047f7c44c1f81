import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as kubernetes from '@pulumi/kubernetes';
import { plan } from '@somagent/stacks/runner/index.ts';
import { describe, type Manifest, Region, type RegionArgs, regionSizes } from '../index.ts';

// A provider would take it for its own: what is planned must not depend on the shell.
delete process.env.KUBECONFIG;

const args: RegionArgs = {
  image: (name) => `registry.example.com/somagent/${name}:0123456789abcdef`,
  size: regionSizes.small,
  gatewayUrl: 'https://gateway.example.com',
  identityUrl: 'https://identity.example.com',
  accountsUrl: 'https://accounts.example.com',
  auditUrl: 'https://audit.example.com',
  memoryUrl: 'https://memory.example.com',
  analyticsUrl: 'https://analytics.example.com',
  trainingUrl: 'https://training.example.com',
  qdrantRenderer: 'edge',
  clickhouseRenderer: 'embedded',
  scalerRenderer: 'pods',
  rayRenderer: 'pods',
  kafkaRenderer: 'pods',
  registry: 'registry.example.com',
  realm: {
    name: 'somagent',
    clients: [
      { clientId: 'acme-agent', tenant: 'acme', scopes: ['somagent-gateway'] },
      { clientId: 'somagent-identity', scopes: [], workload: { plane: 'services', serviceAccount: 'identity' } },
    ],
  },
};

function planned(names: readonly string[], more: Partial<RegionArgs> = {}) {
  const program = async (): Promise<object> => {
    for (const name of names) {
      new Region(
        name,
        { ...args, ...more },
        { provider: new kubernetes.Provider(`${name}-cluster`, { context: `context-of-${name}` }) },
      );
    }
    return {};
  };
  return plan(program, { project: 'somagent', stack: 'test', config: {} });
}

const { objects } = await planned(['east', 'west']);

test('every object has the provider of its own region', () => {
  for (const { components, provider, manifest } of objects) {
    const region = components[0];
    assert.deepEqual(provider, { name: `${region}-cluster`, context: `context-of-${region}` }, describe(manifest));
    // What belongs to no namespace carries the region in its own name.
    const place = manifest.metadata.namespace ?? manifest.metadata.name.replace(/^somagent-/, '');
    assert.equal(place.startsWith(`${region}-`), true, describe(manifest));
  }
});

test('two regions side by side on one cluster share no object', () => {
  assert.equal(new Set(objects.map(({ manifest }) => describe(manifest))).size, objects.length);
  const count = (region: string) => objects.filter(({ components }) => components[0] === region).length;
  assert.equal(count('east'), count('west'));
  assert.equal(count('east') > 50, true);
});

test('where the addresses of the API server are named, no pod reaches any other address', async () => {
  const reaching = (of: typeof objects, cidr: string) =>
    of.filter(({ manifest }) => JSON.stringify(manifest).includes(`"cidr":"${cidr}"`)).map(({ manifest }) => manifest);
  const open = reaching(objects, '0.0.0.0/0');
  assert.deepEqual([...new Set(open.map(({ kind }) => kind))], ['NetworkPolicy']);
  const { objects: narrowed } = await planned(['east'], { apiServerCidrs: ['10.0.0.1/32'] });
  assert.deepEqual(reaching(narrowed, '0.0.0.0/0'), []);
  assert.equal(reaching(narrowed, '10.0.0.1/32').length, open.length / 2);
});

test('no manifest holds a secret', () => {
  assert.deepEqual(
    objects.flatMap(({ secrets }) => secrets),
    [],
  );
  assert.deepEqual(
    objects.filter(({ manifest }) => manifest.kind === 'Secret'),
    [],
  );
});

test('planes come in the order in which they stand on each other', () => {
  const position = (kind: string, prefix: string): number => {
    const index = objects.findIndex(
      ({ manifest }) => manifest.kind === kind && describe(manifest).includes(` east-${prefix}`),
    );
    assert.notEqual(index, -1, `${kind} ${prefix}`);
    return index;
  };
  const chain = [
    position('Namespace', 'system'.replace('system', 'system')),
    position('Job', 'system/bootstrap'),
    position('StatefulSet', 'data/postgres'),
    position('Job', 'data/postgres-databases'),
    position('Job', 'runtime/temporal-schema'),
    position('Deployment', 'runtime/temporal-frontend'),
    position('Job', 'runtime/temporal-namespace'),
    position('Deployment', 'services/orchestrator'),
    position('Deployment', 'services/gateway'),
  ];
  assert.deepEqual(
    chain,
    chain.toSorted((left, right) => left - right),
  );
});

test('a second run registers the very same objects', async () => {
  const again = await planned(['east', 'west']);
  assert.deepEqual(
    again.objects.map(({ urn, manifest }) => [urn, manifest]),
    objects.map(({ urn, manifest }) => [urn, manifest]),
  );
});

test('the transform of a product sees its objects and no others', async () => {
  const seen: Manifest[] = [];
  const { objects: changed } = await planned(['east'], {
    transform: {
      gateway: (manifest) => {
        seen.push(manifest);
        return {
          ...manifest,
          metadata: { ...manifest.metadata, annotations: { ...manifest.metadata.annotations, marked: 'yes' } },
        };
      },
    },
  });
  const marked = changed.filter(({ manifest }) => manifest.metadata.annotations?.marked === 'yes');
  assert.equal(marked.length, seen.length);
  assert.deepEqual([...new Set(marked.map(({ components }) => components.at(-1)))], ['east-services-gateway']);
});

test('with strimzi, Kafka is custom resources, and no broker is a pod of ours', async () => {
  const { objects: withOperator } = await planned(['east'], { kafkaRenderer: 'strimzi' });
  const kinds = withOperator
    .filter(({ manifest }) => manifest.apiVersion === 'kafka.strimzi.io/v1')
    .map(({ manifest }) => manifest.kind);
  assert.deepEqual([...new Set(kinds)].toSorted(), ['Kafka', 'KafkaNodePool', 'KafkaTopic', 'KafkaUser']);
  const names = withOperator
    .filter(({ manifest }) => manifest.kind === 'StatefulSet')
    .map(({ manifest }) => manifest.metadata.name);
  assert.equal(names.includes('kafka'), false);
});

test('with kuberay, Ray is a custom resource', async () => {
  const { objects: withOperator } = await planned(['east'], { rayRenderer: 'kuberay' });
  const kinds = withOperator
    .filter(({ manifest }) => manifest.apiVersion === 'ray.io/v1')
    .map(({ manifest }) => manifest.kind);
  assert.deepEqual(kinds, ['RayService']);
});
