import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bootstrapOf, type Manifest, TestRegion, wholeRegion } from './testing.ts';

/** Two instances of every product in the same namespaces. */
function twice(): Manifest[] {
  const region = new TestRegion();
  wholeRegion(region);
  wholeRegion(region, '-b');
  bootstrapOf(region);
  return region.manifests();
}

test('two instances of every construct in one set of namespaces share no name', () => {
  const names = twice().map(({ kind, metadata }) => `${kind} ${metadata.namespace}/${metadata.name}`);
  const repeated = names.filter((name, index) => names.indexOf(name) !== index);
  assert.deepEqual(repeated, []);
});

test('every selector finds pods of exactly one instance', () => {
  const manifests = twice();
  const pods = manifests.flatMap(({ metadata: { namespace, name }, spec }) => {
    // A CronJob has its pods one level deeper.
    const template = spec?.template ?? spec?.jobTemplate?.spec.template;
    return template === undefined ? [] : [{ namespace, name, labels: template.metadata.labels }];
  });
  const selectors = manifests.flatMap(({ kind, metadata, spec }) => {
    const labels = kind === 'Service' ? spec.selector : (spec?.podSelector ?? spec?.selector)?.matchLabels;
    return labels === undefined ? [] : [{ kind, metadata, labels }];
  });
  for (const { kind, metadata, labels } of selectors) {
    // Patroni adds the role to its pods at run time.
    const { role: _role, ...expected } = labels;
    const found = pods.filter(
      (pod) =>
        pod.namespace === metadata.namespace &&
        Object.entries(expected).every(([key, value]) => pod.labels[key] === value),
    );
    const instances = new Set(found.map((pod) => pod.labels['app.kubernetes.io/instance']));
    assert.equal(
      instances.size,
      1,
      `${kind} ${metadata.name} selects pods of ${[...instances].join(', ') || 'nobody'}`,
    );
    assert.equal([...instances][0], metadata.labels['app.kubernetes.io/instance'], `${kind} ${metadata.name}`);
  }
});

test('every object has a namespace and the labels of the platform', () => {
  for (const { kind, metadata } of twice()) {
    assert.match(metadata.namespace, /^north-(system|data|identity|runtime|services)$/, `${kind} ${metadata.name}`);
    for (const label of ['name', 'instance', 'part-of', 'managed-by']) {
      assert.equal(typeof metadata.labels[`app.kubernetes.io/${label}`], 'string', `${kind} ${metadata.name}`);
    }
    assert.equal(metadata.labels['somagent.dev/region'], 'north');
  }
});

test('the promised processor time of a region fits on two cores', () => {
  const region = new TestRegion();
  wholeRegion(region);
  const millicores = region
    .manifests()
    .filter(({ kind }) => kind === 'Deployment' || kind === 'StatefulSet')
    .map(({ spec }) => spec.replicas * Number.parseInt(spec.template.spec.containers[0].resources.requests.cpu, 10))
    .reduce((sum, each) => sum + each, 0);
  assert.ok(millicores <= 1600, `${millicores}m are promised`);
});
