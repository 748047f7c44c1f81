import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TestRegion } from '../testing.ts';
import { PodNetwork } from './pod-network.ts';

function networks() {
  const region = new TestRegion();
  const make = (plane: 'data' | 'services', name: string) =>
    new PodNetwork(region.chart(plane), name, { product: 'x', instance: name, component: 'y', name });
  return { region, client: make('services', 'client'), server: make('data', 'server') };
}

test('nothing is open until it is declared', () => {
  const { region } = networks();
  assert.deepEqual(region.find('NetworkPolicy', 'client').spec, {
    podSelector: { matchLabels: { 'somagent.dev/network': 'client' } },
    policyTypes: ['Ingress', 'Egress'],
    ingress: [],
    egress: [],
  });
});

test('one wiring opens the way out of the client and into the server, and nothing else', () => {
  const { region, client, server } = networks();
  client.allowTo(server, [5432]);
  client.allowTo(server, [5432]);
  const peer = (namespace: string, name: string) => ({
    namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': namespace } },
    podSelector: { matchLabels: { 'somagent.dev/network': name } },
  });
  const ports = [{ protocol: 'TCP', port: 5432 }];
  const clientPolicy = region.find('NetworkPolicy', 'client').spec;
  const serverPolicy = region.find('NetworkPolicy', 'server').spec;
  assert.deepEqual(clientPolicy.egress, [{ to: [peer('north-data', 'server')], ports }]);
  assert.deepEqual(clientPolicy.ingress, []);
  assert.deepEqual(serverPolicy.ingress, [{ from: [peer('north-services', 'client')], ports }]);
  assert.deepEqual(serverPolicy.egress, []);
});

test('the API server, a published port and an operator each open one side only', () => {
  const { region, client } = networks();
  client.allowToApiServer({ cidrs: ['10.0.0.1/32', '10.96.0.1/32'], ports: [6443] });
  client.allowFromAnywhere(8443);
  client.allowFromNamespace('kuberay-system', [{ from: 8000, to: 8010 }]);
  const { egress, ingress } = region.find('NetworkPolicy', 'client').spec;
  assert.deepEqual(egress, [
    {
      to: [{ ipBlock: { cidr: '10.0.0.1/32' } }, { ipBlock: { cidr: '10.96.0.1/32' } }],
      ports: [{ protocol: 'TCP', port: 6443 }],
    },
  ]);
  assert.deepEqual(ingress, [
    { ports: [{ protocol: 'TCP', port: 8443 }] },
    {
      from: [{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'kuberay-system' } } }],
      ports: [{ protocol: 'TCP', port: 8000, endPort: 8010 }],
    },
  ]);
});
