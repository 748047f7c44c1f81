import assert from 'node:assert/strict';
import { test } from 'node:test';
import { App } from 'cdk8s';
import { findManifest, type Manifest, manifestsOf } from '../testing.ts';
import { RegionNamespaces } from './region-namespaces.ts';

const planes = ['system', 'data', 'identity', 'runtime', 'services'];

test('each plane is a namespace under the restricted standard', () => {
  const manifests = manifestsOf(new RegionNamespaces(new App(), 'namespaces', { region: 'north' }));
  for (const plane of planes) {
    const { labels } = findManifest(manifests, 'Namespace', `north-${plane}`).metadata;
    for (const mode of ['enforce', 'audit', 'warn']) {
      assert.equal(labels[`pod-security.kubernetes.io/${mode}`], 'restricted');
    }
    assert.equal(labels['somagent.dev/region'], 'north');
  }
});

test('everything is denied both ways, name resolution excepted', () => {
  const manifests = manifestsOf(new RegionNamespaces(new App(), 'namespaces', { region: 'north' }));
  const policies = (plane: string) =>
    manifests.filter((m: Manifest) => m.kind === 'NetworkPolicy' && m.metadata.namespace === `north-${plane}`);
  for (const plane of planes) {
    const [deny, dns] = policies(plane);
    assert.deepEqual(deny.spec, { podSelector: {}, policyTypes: ['Ingress', 'Egress'] });
    assert.deepEqual(dns.spec.egress, [
      {
        to: [
          {
            namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'kube-system' } },
            podSelector: { matchLabels: { 'k8s-app': 'kube-dns' } },
          },
        ],
      },
    ]);
  }
});

test('a quota is set where it is given, and checked', () => {
  const quota = { cpu: '2', memory: '4Gi', pods: 20 };
  const app = new App();
  const manifests = manifestsOf(new RegionNamespaces(app, 'a', { region: 'north', quotas: { data: quota } }));
  const quotas = manifests.filter(({ kind }) => kind === 'ResourceQuota');
  assert.equal(quotas.length, 1);
  assert.equal(quotas[0].metadata.namespace, 'north-data');
  assert.deepEqual(quotas[0].spec.hard, { 'requests.cpu': '2', 'limits.memory': '4Gi', pods: '20' });
  assert.throws(
    () => new RegionNamespaces(app, 'b', { region: 'south', quotas: { data: { ...quota, memory: '4G' } } }),
    {
      message: 'quota.memory is "4G"; allowed: a whole number followed by Ki, Mi, Gi or Ti. Use for instance "512Mi".',
    },
  );
});

test('two regions side by side share no object', () => {
  const app = new App();
  const names = ['north', 'south'].flatMap((region) =>
    manifestsOf(new RegionNamespaces(app, region, { region })).map(
      ({ kind, metadata }) => `${kind} ${metadata.namespace ?? ''}/${metadata.name}`,
    ),
  );
  assert.equal(names.length, 30);
  assert.equal(new Set(names).size, names.length);
});
